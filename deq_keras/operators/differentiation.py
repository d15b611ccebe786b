"""The adjoint of a linear map by differentiation, exact since the map is its own derivative."""

import tensorflow as tf

from deq_keras.numerics.shapes import is_known, static_shape


def adjoint(operator, v, data, image_shape, dtype):
    """`K^T v` with the real inner product: the gradient of `Re <K u, v>` in `u`, at `u = 0`."""
    if not is_known(image_shape):
        raise ValueError(
            f"{type(operator).__name__}.adjoint needs the size of the images. Received "
            f"image_shape={tuple(image_shape)}. Pass `image_shape=(batch, height, width, "
            "channels)`, or define `image_shape(measurement_shape, data_shape=None)`."
        )
    return _pull_back(operator, tf.zeros(image_shape, dtype), data, v)


def normal(operator, u, data):
    """`K^T K u`, with a single evaluation of `K`."""
    return _pull_back(operator, u, data)


def _pull_back(operator, u, data, v=None):
    u = tf.identity(u)
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(u)
        image = operator.call(u, data)
    if v is None:
        v = image
    else:
        _check(operator, u, image, v)
    back = tape.gradient(image, u, output_gradients=v)
    if back is None:
        raise ValueError(
            f"{type(operator).__name__}.call cannot be differentiated in the images, so its "
            "adjoint is not known. Define `adjoint(v, data=None, image_shape=None)`."
        )
    return tf.convert_to_tensor(back)


def _check(operator, u, image, v):
    expected, received = (
        [(leaf.shape, leaf.dtype) for leaf in tf.nest.flatten(structure)]
        for structure in (image, v)
    )
    fits = len(expected) == len(received) and all(
        a[0].is_compatible_with(b[0]) and a[1] == b[1]
        for a, b in zip(expected, received, strict=True)
    )
    if not fits:

        def words(pairs):
            return ", ".join(f"{dtype.name} {tuple(shape)}" for shape, dtype in pairs)

        raise ValueError(
            f"{type(operator).__name__}.adjoint expected measurements of images of shape "
            f"{static_shape(u.shape)}: {words(expected)}. Received {words(received)}. If the "
            "images have another size, pass `image_shape`, or define `image_shape("
            "measurement_shape, data_shape=None)`."
        )

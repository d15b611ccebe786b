"""The norm of an operator of which nothing is proven: an estimate by power iteration."""

import tensorflow as tf

from deq_keras.numerics.partial import stopped
from deq_keras.numerics.shapes import static_shape

STEPS = 30
SAFETY = 1.05  # power iteration approaches the norm from below
SEED = (0, 0)


def operator_norm(operator, data, image_shape):
    """`1.05 * ||K u||` for the unit image `u` that 30 power iterations found.

    Args:
        operator: A `LinearOperator`.
        data: Its data; then each image has its own norm.
        image_shape: `(batch, height, width, channels)`, integers or scalar tensors; the batch may
            be `None` if there are no data.

    Returns:
        A scalar tensor, `(batch,)` if there are data. Its derivative is that of the norm for a
        fixed image.
    """
    alone = all(leaf is None for leaf in tf.nest.flatten(data))
    needed = [] if image_shape is None else list(image_shape)[1 if alone else 0 :]
    if not needed or any(size is None for size in needed):
        name = type(operator).__name__
        received = None if image_shape is None else static_shape(image_shape)
        raise ValueError(
            f"{name}.operator_norm is estimated on images of the real size. Received "
            f"image_shape={received}. Pass `image_shape=(batch, height, width, channels)`, or "
            "define `operator_norm(data=None, image_shape=None)`, an upper bound."
        )
    batch = 1 if alone else needed[0]
    sizes = needed if alone else needed[1:]
    dtype = tf.as_dtype(operator.compute_dtype)
    precise = tf.float64 if dtype == tf.float64 else tf.float32
    normal = operator.bind((batch, *sizes), data, dtype).normal
    fixed = stopped(normal)

    def unit(u):
        norm = tf.sqrt(tf.reduce_sum(u**2, axis=(1, 2, 3), keepdims=True))
        return u / tf.where(norm > 0, norm, 1)

    def iterate(u):
        return (unit(tf.cast(fixed(tf.cast(u, dtype)), precise)),)

    # All images start alike, so that none depends on its companions; the mean of blurs and
    # sums, whose largest singular vector is smooth, is in it.
    start = 1 + tf.random.stateless_normal((1, *sizes), SEED, dtype=precise)
    start = unit(tf.broadcast_to(start, (batch, *sizes)))
    (u,) = tf.while_loop(lambda u: True, iterate, (start,), maximum_iterations=STEPS)
    u = tf.stop_gradient(u)
    square = tf.reduce_sum(u * tf.cast(normal(tf.cast(u, dtype)), precise), axis=(1, 2, 3))
    positive = square > 0
    norm = SAFETY * tf.where(positive, tf.sqrt(tf.where(positive, square, 1)), 0)
    return tf.cast(norm[0] if alone else norm, operator.variable_dtype)

"""Masks, the operators of inpainting."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.convolution import spectra
from deq_keras.numerics.partial import Partial
from deq_keras.numerics.shapes import shapes_of, static_shape
from deq_keras.operators.base import LinearMap, LinearOperator, refuse_data


class Masked(LinearOperator):
    """Base class of operators with a mask: one for all images, or one for each as data.

    Args:
        mask: Array `(height, width)`, `(height, width, channels)` or
            `(1, height, width, channels)`, or `None` if the masks come as data.
        trainable: Whether the mask is learned.
        **kwargs: `name` and `dtype` of the layer.
    """

    certified = True

    def __init__(self, mask=None, trainable=False, **kwargs):
        super().__init__(trainable=trainable, **kwargs)
        self._learned = bool(trainable)
        self._initial = None if mask is None else _four_axes(mask)
        self._shape = np.shape(mask)
        self.mask = None
        if mask is not None:
            self.mask = self.add_weight(
                shape=self._initial.shape,
                initializer=lambda shape, dtype: tf.constant(self._initial, dtype),
                trainable=self._learned,
                name="mask",
            )

    def operator_norm(self, data=None, image_shape=None):
        if self.mask is None and data is None:
            raise ValueError(
                f"The norm of a {type(self).__name__} whose masks come as data depends on them. "
                "Pass them: `operator_norm(data)`."
            )
        if self.mask is not None:
            return tf.reduce_max(tf.abs(tf.convert_to_tensor(self.mask)))
        # For each image its own, so that a step size does not depend on the companions.
        size = tf.abs(tf.cast(data, self.variable_dtype))
        return tf.reduce_max(size, axis=[1, 2, 3]) if size.shape.rank == 4 else tf.reduce_max(size)

    def smallest_singular_value(self, data=None):
        if self.mask is None:
            return super().smallest_singular_value()
        return tf.reduce_min(tf.abs(tf.convert_to_tensor(self.mask)))

    def check_data_shape(self, u_shape, data_shape):
        if self.mask is not None:
            refuse_data(self, data_shape)
            data_shape = self.mask.shape
        elif data_shape is None:
            raise ValueError(
                f"This {type(self).__name__} has no mask of its own: its masks come with the "
                "images. Call `operator(u, masks)`, or construct it with a mask."
            )
        fits = len(data_shape) == 4 and all(
            m in (1, None) or n is None or m == n for m, n in zip(data_shape, u_shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"Expected a mask of a shape that can be broadcast to that of the images, "
                f"{tuple(u_shape)}. Received a mask of shape {tuple(data_shape)}. Crop the images "
                "or make a mask for their size."
            )

    def load_own_variables(self, store):
        """As Keras does, but a fixed mask, which the configuration holds, may be missing.

        Keras saves the weights of an operator that is used twice only once.
        """
        if len(store) or self._learned:
            super().load_own_variables(store)

    def get_config(self):
        config = super().get_config()
        mask = self._initial
        if mask is not None:
            # Zeros and ones take less space as integers.
            mask = mask.astype(int) if np.array_equal(mask, mask.astype(int)) else mask
            mask = mask.reshape(self._shape).tolist()
        config.update(mask=mask, trainable=self._learned and self.trainable)
        return config

    def masks(self, image_shape, data, dtype):
        """The masks `(batch or 1, ...)` as `(shared, rows)` of a partial function."""
        self.check_shapes(static_shape(image_shape), shapes_of(data, static=True))
        if self.mask is not None:
            return (tf.cast(tf.convert_to_tensor(self.mask), dtype),), ()
        masks = tf.convert_to_tensor(data)
        if masks.dtype.is_complex:
            raise ValueError(
                f"{type(self).__name__} expected real masks. Received {masks.dtype.name}."
            )
        return (), (tf.cast(masks, dtype),)


@keras.saving.register_keras_serializable(package="deq_keras")
class Mask(Masked):
    """`K u = mask * u`: inpainting, with 1 where a pixel is known and 0 where it is missing.

    The mask is either one for all images, or comes with each image as `data`. Weights other than
    0 and 1 are allowed, such as the reciprocals of noise levels.

    Args:
        mask: Array `(height, width)`, `(height, width, channels)` or
            `(1, height, width, channels)`. `None` (the default) if the mask comes as data.
        trainable: Whether the mask is learned. Its gradient can be taken in any case.
        **kwargs: `name` and `dtype` of the layer.

    Call arguments:
        u: Images `(batch, height, width, channels)`.
        data: Masks of a shape that can be broadcast to that of `u`, if `mask` is `None`.

    Returns:
        Measurements of the shape of `u`.

    Raises:
        ValueError: If the mask is empty, not finite, of another rank, or does not fit the images.

    Example:

    >>> masks = deq_keras.operators.random_mask((2, 32, 48, 1), keep=0.5, seed=1)
    >>> inpaint = deq_keras.operators.Mask()
    >>> y = inpaint(tf.ones((2, 32, 48, 1)), masks)
    """

    def bind(self, image_shape, data=None, dtype=None):
        dtype = tf.as_dtype(dtype or self.compute_dtype)
        real = spectra.real_dtype(dtype)
        shared, rows = self.masks(image_shape, data, dtype)
        squares = [tuple(mask**2 for mask in masks) for masks in (shared, rows)]
        same = Partial(tf.multiply, shared, rows)
        _, height, width, _ = image_shape

        def spectrum(h, w, square):
            # Far from a convolution; the diagonal makes up for that.
            mean = tf.reduce_mean(tf.cast(square, real), axis=(1, 2, 3))[:, None, None]
            return mean * tf.ones((1, h, w // 2 + 1), mean.dtype)

        return LinearMap(
            same,
            same,
            Partial(tf.multiply, *squares),
            Partial(spectrum, (height, width, *squares[0]), squares[1]),
            Partial(lambda square: tf.cast(square, real), *squares),
        )

    def measurement_shape(self, image_shape, data_shape=None):
        return tuple(image_shape)


def _four_axes(mask):
    if np.iscomplexobj(mask):
        raise ValueError("Expected `mask` to be real. Received complex values.")
    array = np.asarray(mask, np.float64)
    shape = array.shape
    if array.ndim not in (2, 3, 4) or array.size == 0 or (array.ndim == 4 and shape[0] != 1):
        raise ValueError(
            "Expected `mask` of shape (height, width), (height, width, channels) or "
            f"(1, height, width, channels), not empty. Received shape {shape}. For a mask for "
            "each image leave it out, and pass the masks as data."
        )
    if not np.isfinite(array).all():
        raise ValueError("Expected `mask` to be finite. Received NaN or infinite values.")
    return array.reshape((1, *shape, 1) if array.ndim == 2 else (1, *shape)[-4:])

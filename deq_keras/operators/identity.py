"""The identity, the operator of denoising."""

import keras
import tensorflow as tf

from deq_keras.convolution import spectra
from deq_keras.numerics.partial import Partial
from deq_keras.numerics.shapes import shapes_of, static_shape
from deq_keras.operators.base import LinearMap, LinearOperator, refuse_data


@keras.saving.register_keras_serializable(package="deq_keras")
class Identity(LinearOperator):
    """`K u = u`: denoising.

    Call arguments:
        u: Images `(batch, height, width, channels)`.

    Returns:
        `u`.

    Example:

    >>> denoise = deq_keras.operators.Identity()
    >>> y = denoise(tf.ones((1, 8, 8, 1)))
    """

    certified = True

    def bind(self, image_shape, data=None, dtype=None):
        self.check_shapes(static_shape(image_shape), shapes_of(data, static=True))
        dtype = spectra.real_dtype(tf.as_dtype(dtype or self.compute_dtype))
        _, height, width, _ = image_shape
        same = Partial(_same)
        spectrum = Partial(lambda h, w: tf.ones((1, h, w // 2 + 1), dtype), (height, width))
        diagonal = Partial(lambda: tf.ones((1, 1, 1, 1), dtype))
        return LinearMap(same, same, same, spectrum, diagonal)

    def measurement_shape(self, image_shape, data_shape=None):
        return tuple(image_shape)

    def operator_norm(self, data=None, image_shape=None):
        return tf.ones((), self.variable_dtype)

    def smallest_singular_value(self, data=None):
        return tf.ones((), self.variable_dtype)

    def check_data_shape(self, u_shape, data_shape):
        refuse_data(self, data_shape)


def _same(u):
    return u

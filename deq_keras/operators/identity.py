"""The identity, the operator of denoising."""

import keras
import tensorflow as tf

from deq_keras.convolution import spectra
from deq_keras.operators.base import LinearOperator


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

    def call(self, u, data=None):
        self._check(u, data)
        return u

    def adjoint(self, v, data=None):
        return self.call(v, data)

    def normal_map(self, like, data=None):
        self._check(like, data)
        return lambda u: u

    def normal_spectrum(self, like, data=None):
        self._check(like, data)
        height, width = spectra.size_of(like)
        return tf.ones((1, height, width // 2 + 1), spectra.real_dtype(like.dtype))

    def normal_diagonal(self, like, data=None):
        return tf.ones((1, 1, 1, 1), spectra.real_dtype(like.dtype))

    def operator_norm(self, data=None):
        return tf.ones((), self.variable_dtype)

    def smallest_singular_value(self):
        return tf.ones((), self.variable_dtype)

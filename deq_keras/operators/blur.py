"""Blurs: convolutions with a known or learned kernel."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras import convolution
from deq_keras.checks import one_of
from deq_keras.convolution import spectra
from deq_keras.operators.base import LinearOperator

METHODS = ("auto", "direct", "fft")
PADDINGS = ("zero", "circular", "reflect")


@keras.saving.register_keras_serializable(package="deq_keras")
class Blur(LinearOperator):
    """Convolution of each channel with the same kernel.

    `(K u)[y, x] = sum_{i, j} kernel[i, j] * u[y + kh // 2 - i, x + kw // 2 - j]`, where pixels
    outside the image are zero, those of its periodic continuation, or those of its reflection
    about the border pixels. This is `scipy.ndimage.convolve` with the modes `"constant"`,
    `"wrap"` and `"mirror"`.

    Args:
        kernel: Array `(kh, kw)`. It is not normalised.
        padding: `"circular"`, `"zero"` or `"reflect"`.
        method: `"direct"` (sums), `"fft"`, or `"auto"`: the faster of the two by measurement on a
            CPU. They agree up to rounding.
        trainable: Whether the kernel is learned. Its gradient can be taken in any case.
        **kwargs: `name` and `dtype` of the layer.

    Call arguments:
        u: Images `(batch, height, width, channels)`, for `"reflect"` and for `"direct"` with
            `"circular"` at least as large as the kernel.

    Returns:
        Blurred images of the shape of `u`.

    Raises:
        ValueError: If the kernel is empty, not finite or not of rank 2, or if the padding or the
            method is unknown.

    Example:

    >>> blur = deq_keras.operators.Blur([[0.0, 0.5, 0.0], [0.5, 1.0, 0.5], [0.0, 0.5, 0.0]])
    >>> y = blur(tf.ones((1, 32, 48, 1)))
    """

    def __init__(self, kernel, padding="circular", method="auto", trainable=False, **kwargs):
        super().__init__(trainable=trainable, **kwargs)
        array = np.asarray(kernel, np.float64)
        if array.ndim != 2 or array.size == 0:
            raise ValueError(
                "Expected `kernel` of shape (height, width), not empty. Received shape "
                f"{array.shape}."
            )
        if not np.isfinite(array).all():
            raise ValueError("Expected `kernel` to be finite. Received NaN or infinite values.")
        self.padding = convolution.check_padding(padding, PADDINGS)
        self.method = one_of("method", method, METHODS)
        self._learned = bool(trainable)
        self._initial = array
        self.kernel = self.add_weight(
            shape=array.shape,
            initializer=lambda shape, dtype: tf.constant(self._initial, dtype),
            trainable=self._learned,
            name="kernel",
        )

    def call(self, u, data=None):
        self._check(u, data)
        return self._forward(u, self._prepare(u))

    def adjoint(self, v, data=None):
        self._check(v, data)
        return self._backward(v, self._prepare(v))

    def normal_map(self, like, data=None):
        self._check(like, data)
        prepared = self._prepare(like)
        if self._uses_fft and self.padding == "circular":
            square = prepared * tf.math.conj(prepared)
            return lambda u: _filter(u, square)
        return lambda u: self._backward(self._forward(u, prepared), prepared)

    def operator_norm(self, data=None):
        kernel = tf.convert_to_tensor(self.kernel)
        return convolution.norm_bound(_flip(kernel)[:, :, None, None], self.padding)

    def normal_spectrum(self, like, data=None):
        self._check(like, data)
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), spectra.real_dtype(like.dtype))
        return spectra.power(kernel, *spectra.size_of(like))[None]

    def normal_diagonal(self, like, data=None):
        kernel = tf.cast(tf.convert_to_tensor(self.kernel), spectra.real_dtype(like.dtype))
        return tf.reshape(tf.reduce_sum(kernel**2), (1, 1, 1, 1))

    def get_config(self):
        config = super().get_config()
        config.update(
            kernel=self._initial.tolist(),
            padding=self.padding,
            method=self.method,
            trainable=self._learned and self.trainable,
        )
        return config

    @property
    def _uses_fft(self):
        if self.method != "auto":
            return self.method == "fft"
        return self._initial.size > (1 if self.padding == "circular" else 400)

    @property
    def _sizes(self):
        return convolution.same_sizes(self._initial)

    def _prepare(self, like):
        """What the maps need to know: the transfer function, or the filters for these channels."""
        kernel = tf.convert_to_tensor(self.kernel)
        if not self._uses_fft:
            channels = like.shape[-1]
            filters = _flip(tf.cast(kernel, like.dtype))[:, :, None, None]
            # No channel is mixed with another. Dense filters are as fast as a depthwise
            # convolution for a few channels, and its gradients are slow.
            return filters * tf.eye(channels, dtype=like.dtype)
        shape = spectra.size_of(like)
        if self.padding != "circular":
            shape = [size + sum(pads) for size, pads in zip(shape, self._sizes, strict=True)]
        return spectra.transfer_function(tf.cast(kernel, spectra.real_dtype(like.dtype)), *shape)

    def _forward(self, u, prepared):
        if not self._uses_fft:
            return convolution.correlate(u, prepared, self.padding)
        if self.padding == "circular":
            return _filter(u, prepared)
        padded = convolution.pad(u, self._sizes, self.padding)
        return convolution.pad_adjoint(_filter(padded, prepared), self._sizes, "zero")

    def _backward(self, v, prepared):
        if not self._uses_fft:
            return convolution.correlate_adjoint(v, prepared, self.padding)
        conjugate = tf.math.conj(prepared)
        if self.padding == "circular":
            return _filter(v, conjugate)
        padded = convolution.pad(v, self._sizes, "zero")
        return convolution.pad_adjoint(_filter(padded, conjugate), self._sizes, self.padding)


def _flip(kernel):
    return tf.reverse(kernel, [0, 1])


def _filter(u, spectrum):
    x = tf.cast(u, spectrum.dtype.real_dtype)
    return tf.cast(convolution.filter_spectrum(x, spectrum), u.dtype)

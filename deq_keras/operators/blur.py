"""Blurs: convolutions with a known or learned kernel."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras import convolution
from deq_keras.checks import one_of
from deq_keras.convolution import spectra
from deq_keras.numerics.partial import Partial
from deq_keras.numerics.shapes import shapes_of, static_shape
from deq_keras.operators.base import LinearMap, LinearOperator, refuse_data

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

    certified = True

    def __init__(self, kernel, padding="circular", method="auto", trainable=False, **kwargs):
        super().__init__(trainable=trainable, **kwargs)
        array = np.asarray(kernel)
        if np.iscomplexobj(array):
            raise ValueError("Expected `kernel` to be real. Received complex numbers.")
        array = array.astype(np.float64)
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

    def bind(self, image_shape, data=None, dtype=None):
        shape = static_shape(image_shape)
        self.check_shapes(shape, shapes_of(data, static=True))
        dtype = tf.as_dtype(dtype or self.compute_dtype)
        kernel = tf.convert_to_tensor(self.kernel)
        real = tf.cast(kernel, spectra.real_dtype(dtype))
        _, height, width, channels = image_shape
        maps = self._with_fft if self._uses_fft else self._direct
        forward, adjoint, normal = maps(kernel, dtype, height, width, channels)
        if normal is None:
            normal = Partial(_twice, (forward, adjoint))
        spectrum = Partial(lambda k, h, w: spectra.power(k, h, w)[None], (real, height, width))
        diagonal = Partial(lambda k: tf.reshape(tf.reduce_sum(k**2), (1, 1, 1, 1)), (real,))
        return LinearMap(forward, adjoint, normal, spectrum, diagonal)

    def measurement_shape(self, image_shape, data_shape=None):
        return tuple(image_shape)

    def operator_norm(self, data=None, image_shape=None):
        kernel = tf.convert_to_tensor(self.kernel)
        return convolution.norm_bound(_flip(kernel)[:, :, None, None], self.padding)

    def check_data_shape(self, u_shape, data_shape):
        refuse_data(self, data_shape)

    def load_own_variables(self, store):
        """As Keras does, but a fixed kernel, which the configuration holds, may be missing.

        Keras saves the weights of an operator that is used twice only once.
        """
        if len(store) or self._learned:
            super().load_own_variables(store)

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

    def _direct(self, kernel, dtype, height, width, channels):
        """The maps as sums."""
        padding = self.padding
        filters = _flip(tf.cast(kernel, dtype))[:, :, None, None]
        # No channel is mixed with another. Dense filters are as fast as a depthwise
        # convolution for a few channels, and its gradients are slow.
        shared = (filters * tf.eye(channels, dtype=dtype),)
        forward = Partial(lambda u, f: convolution.correlate(u, f, padding), shared)
        adjoint = Partial(lambda v, f: convolution.correlate_adjoint(v, f, padding), shared)
        return forward, adjoint, None

    def _with_fft(self, kernel, dtype, height, width, channels):
        """The maps by Fourier transforms, of a padded image unless the padding is circular."""
        padding, sizes = self.padding, convolution.same_sizes(self._initial)
        if padding != "circular":
            height, width = (
                size + sum(pads) for size, pads in zip((height, width), sizes, strict=True)
            )
        kernel = tf.cast(kernel, spectra.real_dtype(dtype))
        transfer = spectra.transfer_function(kernel, height, width)
        conjugate = tf.math.conj(transfer)
        if padding == "circular":
            shared = ((transfer,), (conjugate,), (transfer * conjugate,))
            return tuple(Partial(_filter, one) for one in shared)

        def forward(u, spectrum):
            padded = convolution.pad(u, sizes, padding)
            return convolution.pad_adjoint(_filter(padded, spectrum), sizes, "zero")

        def adjoint(v, spectrum):
            padded = convolution.pad(v, sizes, "zero")
            return convolution.pad_adjoint(_filter(padded, spectrum), sizes, padding)

        return Partial(forward, (transfer,)), Partial(adjoint, (conjugate,)), None


def _twice(u, forward, adjoint):
    return adjoint(forward(u))


def _flip(kernel):
    return tf.reverse(kernel, [0, 1])


def _filter(u, spectrum):
    x = tf.cast(u, spectrum.dtype.real_dtype)
    return tf.cast(convolution.filter_spectrum(x, spectrum), u.dtype)

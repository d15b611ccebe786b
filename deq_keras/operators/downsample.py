"""Downsampling, the operator of super-resolution."""

import math
import numbers

import keras
import numpy as np
import tensorflow as tf

from deq_keras import convolution
from deq_keras.checks import positive_int
from deq_keras.convolution import spectra
from deq_keras.numerics.partial import Partial
from deq_keras.numerics.shapes import shapes_of, static_shape
from deq_keras.operators import decimation
from deq_keras.operators.base import LinearMap, LinearOperator, refuse_data, refuse_other_size
from deq_keras.operators.blur import Blur
from deq_keras.operators.kernels import gaussian_kernel


@keras.saving.register_keras_serializable(package="deq_keras")
class Downsample(LinearOperator):
    """Blur, then every `f`-th pixel: super-resolution is its inversion.

    `(K u)[y, x] = (B u)[f y, g x]` with `B u` the convolution of `u` with the kernel as in `Blur`,
    that is `scipy.ndimage.convolve(u, kernel)[::f, ::g]`. `n` pixels become `ceil(n / f)`.

    Args:
        factor: A positive integer `f = g`, or a pair `(f, g)` for rows and columns.
        kernel: What suppresses the frequencies that the coarse grid cannot hold: `"gaussian"`, of
            standard deviation `f / 2` pixels, an array `(kh, kw)`, or `None` for no blur, so that
            images alias.
        padding: `"circular"`, `"zero"` or `"reflect"`; see `Blur`.
        method: As for `Blur`.
        image_size: `(height, width)` of the images, if it is one and the same. Without it the
            adjoint takes it to be a multiple of the factor unless it is told `image_shape`: 17
            columns may come of 33 or of 34.
        trainable: Whether the kernel is learned.
        **kwargs: `name` and `dtype` of the layer.

    Call arguments:
        u: Images `(batch, height, width, channels)`.

    Returns:
        Images `(batch, ceil(height / f), ceil(width / g), channels)`.

    Raises:
        ValueError: If an argument is out of range, or the images are not of `image_size`.

    Reference:
        Zhao, Wei, Basarab, Dobigeon, Kouame and Tourneret: Fast single image super-resolution
        using a new analytical solution for l2-l2 problems. IEEE Transactions on Image Processing
        25 (2016), 3683-3697.

    Example:

    >>> coarse = deq_keras.operators.Downsample(2)
    >>> y = coarse(tf.ones((1, 33, 48, 1)))  # (1, 17, 24, 1)
    >>> u = coarse.adjoint(y, image_shape=(1, 33, 48, 1))
    """

    certified = True

    def __init__(
        self,
        factor,
        kernel="gaussian",
        padding="circular",
        method="auto",
        image_size=None,
        trainable=False,
        **kwargs,
    ):
        super().__init__(trainable=trainable, **kwargs)
        self.factor = _pair("factor", factor)
        self.image_size = None if image_size is None else _pair("image_size", image_size)
        self.kernel = kernel if kernel is None or isinstance(kernel, str) else np.asarray(kernel)
        self._learned = bool(trainable)
        self.blur = Blur(
            _kernel(kernel, self.factor), padding, method, trainable, dtype=self.dtype_policy
        )

    def bind(self, image_shape, data=None, dtype=None):
        self.check_shapes(static_shape(image_shape), shapes_of(data, static=True))
        dtype = tf.as_dtype(dtype or self.compute_dtype)
        blur = self.blur.bind(image_shape, None, dtype)
        _, height, width, _ = image_shape
        factors, padding = self.factor, self.blur.padding
        area = factors[0] * factors[1]
        rows, columns = self.measurement_shape(image_shape)[1:3]
        ones = tf.ones((1, rows, columns, 1), dtype)
        kept = decimation.insert_zeros(ones, factors, (height, width))
        kernel = tf.convert_to_tensor(self.blur.kernel)

        def forward(u, blurred):
            return decimation.decimate(blurred(u), factors)

        def adjoint(v, h, w, back):
            return back(decimation.insert_zeros(v, factors, (h, w)))

        def normal(u, kept, blurred, back):
            return back(kept * blurred(u))

        def diagonal(kept, kernel):
            squares = tf.reverse(kernel, [0, 1])[:, :, None, None] ** 2
            real = tf.cast(kept, squares.dtype)
            return convolution.correlate_adjoint(real, squares, padding)

        real = spectra.real_dtype(dtype)
        return LinearMap(
            Partial(forward, (blur.forward,)),
            Partial(adjoint, (height, width, blur.adjoint)),
            Partial(normal, (kept, blur.forward, blur.adjoint)),
            # Aliasing is forgotten: on average one pixel in `area` is kept.
            Partial(lambda power: power() / area, (blur.spectrum,)),
            Partial(diagonal, (kept, tf.cast(kernel, real))) if self._covers(image_shape) else None,
        )

    def measurement_shape(self, image_shape, data_shape=None):
        batch, height, width, channels = image_shape
        return (batch, *map(_fewer, (height, width), self.factor), channels)

    def image_shape(self, measurement_shape, data_shape=None):
        if len(measurement_shape) != 4:
            return tuple(measurement_shape)  # which the checks refuse in words
        batch, rows, columns, channels = measurement_shape
        if self.image_size is not None:
            return (batch, *self.image_size, channels)
        pairs = zip((rows, columns), self.factor, strict=True)
        return (batch, *[None if n is None else n * factor for n, factor in pairs], channels)

    def operator_norm(self, data=None, image_shape=None):
        whole = self.blur.operator_norm()
        kernel = tf.convert_to_tensor(self.blur.kernel)
        kernel = tf.cast(kernel, spectra.real_dtype(kernel.dtype))
        size = [None, None] if image_shape is None else list(image_shape)[1:3]
        size = list(self.image_size or size)
        known = [n if isinstance(n, int) else None for n in size]
        filters = tf.reverse(kernel, [0, 1])
        bound = decimation.norm_bound(filters, self.blur.padding, self.factor, known)
        if self.blur.padding == "circular":
            # An image that is smaller than the kernel meets it more than once.
            for n, k in zip(size, kernel.shape, strict=True):
                if n is None or tf.is_tensor(n):
                    bound = tf.where(n is not None and n >= k, bound, math.inf)
        safety = 1.0 if bound.dtype == whole.dtype else 1.01  # never rounded down
        return tf.minimum(whole, tf.cast(safety * bound, whole.dtype))

    def smallest_singular_value(self, data=None):
        if self.factor == (1, 1):
            return self.blur.smallest_singular_value()
        return super().smallest_singular_value()

    def check_data_shape(self, u_shape, data_shape):
        refuse_data(self, data_shape)
        refuse_other_size(self, u_shape)

    def get_config(self):
        config = super().get_config()
        kernel = self.kernel
        config.update(
            factor=self.factor,
            kernel=kernel.tolist() if isinstance(kernel, np.ndarray) else kernel,
            padding=self.blur.padding,
            method=self.blur.method,
            image_size=self.image_size,
            trainable=self._learned and self.trainable,
        )
        return config

    def _covers(self, image_shape):
        """Whether a period is as large as the kernel, as far as that is known."""
        if self.blur.padding != "circular":
            return True
        pairs = zip(static_shape(image_shape)[1:3], self.blur.kernel.shape, strict=True)
        return all(n is None or n >= k for n, k in pairs)


def _fewer(n, factor):
    return None if n is None else (n + factor - 1) // factor


def _kernel(kernel, factors):
    if kernel is None:
        return [[1.0]]
    if not isinstance(kernel, str):
        return kernel
    if kernel != "gaussian":
        raise ValueError(
            f"Expected `kernel` to be 'gaussian', an array or None. Received kernel={kernel!r}."
        )
    sides = [1 if f == 1 else 2 * math.ceil(1.5 * f) + 1 for f in factors]  # three deviations
    return gaussian_kernel(sides, [f / 2 for f in factors])


def _pair(name, value):
    pair = (value, value) if isinstance(value, numbers.Number) else value
    if not isinstance(pair, list | tuple) or len(pair) != 2:
        raise ValueError(
            f"Expected `{name}` to be a positive integer or a pair of them (height, width). "
            f"Received {name}={value!r}."
        )
    return tuple(positive_int(name, n) for n in pair)

"""Downsampling, the operator of super-resolution."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras import convolution
from deq_keras.checks import kernel_size, unknown_name_error
from deq_keras.numerics.partial import Partial
from deq_keras.numerics.shapes import static_shape
from deq_keras.operators.base import LinearMap
from deq_keras.operators.blur import Blur
from deq_keras.operators.kernels import box_kernel, gaussian_kernel

KERNELS = {
    "gaussian": lambda f: gaussian_kernel((3 * f[0], 3 * f[1]), (0.4 * f[0], 0.4 * f[1])),
    "box": box_kernel,
}


@keras.saving.register_keras_serializable(package="deq_keras")
class Downsample(Blur):
    """`K u = S (k * u)`: a blur against aliasing, of which every few pixels are kept.

    `(K u)[y, x] = (k * u)[fy * y + (fy - 1) // 2, fx * x + (fx - 1) // 2]` for a factor
    `(fy, fx)`, for as many `y` and `x` as there are such pixels; `k * u` is that of `Blur`. A
    kernel with even sides where the factor is even, and odd ones where it is odd, such as the
    named ones, has its centre in the middle of the `fy x fx` pixels that a pixel of the
    measurement stands for. So 33 or 34 columns give 17 for a factor of 2, and images whose size
    is not twice that of the measurement say so: by `image_size`, or by an `image_shape` or an
    `initial_value` that is given with a call.

    The spectrum that preconditioners use is that of the blur, divided by the number of pixels for
    one: the mean over all positions of the grid. The diagonal is a mean, too.

    Args:
        factor: A positive integer or a pair of them (vertical, horizontal).
        kernel: `"gaussian"`, of a standard deviation of 0.4 times the factor and 3 times as many
            pixels; `"box"`, the mean over the pixels; an array `(kh, kw)`, which is not
            normalised; or `None` for no blur.
        padding: As for `Blur`.
        image_size: `(height, width)` of all images, where it is not that of the measurement times
            the factor. `None`: it is, or another one is given with the call.
        method: As for `Blur`.
        trainable: Whether the kernel is learned.
        **kwargs: `name` and `dtype` of the layer.

    Call arguments:
        u: Images `(batch, height, width, channels)`.

    Returns:
        Measurements `(batch, about height / fy, about width / fx, channels)`.

    Raises:
        ValueError: If an argument is out of range, or the images are not of `image_size`.

    Example:

    >>> downsample = deq_keras.operators.Downsample(2)
    >>> y = downsample(tf.ones((1, 32, 33, 1)))
    >>> y.shape
    TensorShape([1, 16, 17, 1])
    >>> downsample.adjoint(y, image_shape=(1, 32, 33, 1)).shape
    TensorShape([1, 32, 33, 1])
    """

    def __init__(
        self,
        factor,
        kernel="gaussian",
        padding="circular",
        image_size=None,
        method="auto",
        trainable=False,
        **kwargs,
    ):
        self.factor = _pair("factor", factor)
        self.image_size = None if image_size is None else _pair("image_size", image_size)
        self.kernel_name = None
        if isinstance(kernel, str):
            if kernel not in KERNELS:
                raise unknown_name_error("kernel", kernel, KERNELS)
            self.kernel_name, kernel = kernel, KERNELS[kernel](self.factor)
        self._blurs = kernel is not None
        super().__init__(
            [[1.0]] if kernel is None else kernel, padding, method, trainable, **kwargs
        )

    def bind(self, image_shape, data=None, dtype=None):
        blur = super().bind(image_shape, data, dtype)
        sizes, factor = tuple(image_shape)[1:3], self.factor
        forward = Partial(_blur_and_keep, (blur.forward, factor))
        adjoint = Partial(_insert_and_blur, (blur.adjoint, sizes, factor))
        return LinearMap(
            forward,
            adjoint,
            Partial(_twice, (forward, adjoint)),
            Partial(_shared_power, (blur.spectrum, factor)),
            Partial(_shared_power, (blur.diagonal, factor)),
        )

    def measurement_shape(self, image_shape, data_shape=None):
        batch, *sizes, channels = image_shape
        kept = [_kept(size, f) for size, f in zip(sizes, self.factor, strict=True)]
        return (batch, *kept, channels)

    def image_shape(self, measurement_shape, data_shape=None):
        batch, *sizes, channels = measurement_shape
        if self.image_size is not None:
            return (batch, *self.image_size, channels)
        times = [n if n is None else f * n for n, f in zip(sizes, self.factor, strict=True)]
        return (batch, *times, channels)

    def operator_norm(self, data=None, image_shape=None):
        """As for `LinearOperator`; for images of a known size it is sharper.

        `K K^T` is a convolution on the coarse grid with the autocorrelation of the kernel there,
        but for what padding adds: then images are first extended, which repeats each pixel.
        """
        whole = super().operator_norm()
        kernel = tf.convert_to_tensor(self.kernel)
        pads = [[0, 0], *([side - 1, side - 1] for side in kernel.shape), [0, 0]]
        padded = tf.pad(kernel[None, :, :, None], pads)
        products = tf.nn.conv2d(padded, kernel[:, :, None, None], 1, "VALID")[0, :, :, 0]
        start = [(side - 1) % f for side, f in zip(kernel.shape, self.factor, strict=True)]
        coarse = products[start[0] :: self.factor[0], start[1] :: self.factor[1]]
        square = convolution.norm_bound(coarse[:, :, None, None], "zero")
        sizes = (None, None) if image_shape is None else tuple(image_shape)[1:3]
        for copies in map(self._copies, sizes, kernel.shape, self.factor):
            square = tf.math.multiply_no_nan(tf.cast(copies, square.dtype), square)
        positive = square > 0
        return tf.minimum(whole, tf.where(positive, tf.sqrt(tf.where(positive, square, 1)), 0))

    def check_shapes(self, u_shape, data_shape=None):
        super().check_shapes(u_shape, data_shape)
        sizes = tuple(u_shape)[1:3]
        for size, stated in zip(sizes, self.image_size or (None, None), strict=True):
            if None not in (size, stated) and size != stated:
                raise ValueError(
                    f"This Downsample has image_size={self.image_size}. Received images of size "
                    f"{sizes}. Leave `image_size` out for images of several sizes."
                )
        for size, f in zip(sizes, self.factor, strict=True):
            if size is not None and _kept(size, f) < 1:
                raise ValueError(
                    f"Downsample by {self.factor} expected larger images: nothing would be left. "
                    f"Received images of size {sizes}."
                )

    def get_config(self):
        config = super().get_config()
        config.update(factor=self.factor, image_size=self.image_size)
        if self.kernel_name is not None or not self._blurs:
            config["kernel"] = self.kernel_name
        return config

    def _copies(self, size, side, factor):
        """How often a pixel occurs on an axis that is extended by padding; infinite: not known."""
        if side == 1 or self.padding == "zero":
            return 1.0
        if size is None:
            return np.inf
        if self.padding == "reflect":
            return tf.where(size > side, 2.0, np.inf)
        # On a ring of a whole number of steps nothing needs to be extended.
        return tf.where(size % factor == 0, 1.0, tf.where(size >= side - 1, 2.0, np.inf))


def _pair(name, value):
    try:
        return kernel_size(value)
    except ValueError:
        raise ValueError(
            f"Expected `{name}` to be a positive integer or a pair of them (vertical, "
            f"horizontal). Received {name}={value!r}."
        ) from None


def _offset(factor):
    return (factor - 1) // 2


def _kept(size, factor):
    """How many of `size` pixels are kept."""
    return None if size is None else (size - _offset(factor) + factor - 1) // factor


def _blur_and_keep(u, blur, factor):
    (a, b), (top, left) = factor, map(_offset, factor)
    return blur(u)[:, top::a, left::b]


def _insert_and_blur(v, blur, sizes, factor):
    expected = static_shape(_kept(size, f) for size, f in zip(sizes, factor, strict=True))
    if not v.shape[1:3].is_compatible_with(expected):
        raise ValueError(
            f"Downsample by {factor} expected measurements of size {expected} of images of size "
            f"{static_shape(sizes)}. Received size {tuple(v.shape[1:3])}. Pass `image_shape`, or "
            "state `image_size` when the operator is made."
        )
    channels = v.shape[3]
    for axis, (size, f) in enumerate(zip(sizes, factor, strict=True), start=1):
        v = _insert(v, axis, size, f, channels)
    return blur(v)


def _insert(v, axis, size, factor, channels):
    """Zeros around each pixel along an axis, so that `size` pixels are there."""
    if factor == 1:
        return v
    offset, shape = _offset(factor), [n if n else tf.shape(v)[i] for i, n in enumerate(v.shape)]
    before, after = shape[:axis], shape[axis + 1 :]
    # Four axes at most, which every runtime can pad.
    columns = tf.reshape(v, [-1, shape[axis], 1, after[0] * channels if axis == 1 else channels])
    columns = tf.pad(columns, [[0, 0], [0, 0], [offset, factor - 1 - offset], [0, 0]])
    v = tf.reshape(columns, [*before, shape[axis] * factor, *after])
    end = [[0, 0]] * 4
    end[axis] = [0, offset]  # the last one may be nearer to the border
    v = tf.pad(v, end)
    v = v[:, :size] if axis == 1 else v[:, :, :size]
    return tf.reshape(v, [*before, size, *after])  # fails where the sizes do not belong together


def _twice(u, forward, adjoint):
    return adjoint(forward(u))


def _shared_power(power, factor):
    return power() / (factor[0] * factor[1])

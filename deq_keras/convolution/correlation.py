"""Correlation of images with filters, its adjoint, and filtering in the Fourier domain.

`correlate` and `correlate_adjoint` are the inner loop of the library. They are derivatives of the
trilinear form `<correlate(u, filters), v>`, and so are all their gradients. So each is given as
the gradient of the others: differentiable to any order, and as fast as it is evaluated; in
SavedModels as `deq_keras.numerics.linear` says.
"""

import functools
import math

import numpy as np
import tensorflow as tf

from deq_keras.convolution.padding import check_padding, pad, pad_adjoint, same_sizes
from deq_keras.numerics.linear import LINEAR_MAP


def correlate(u, filters, padding) -> tf.Tensor:
    """Cross-correlates images with filters.

    `v[y, x, f] = sum_{i, j, c} filters[i, j, c, f] * u[y + i - top, x + j - left, c]` with the
    origin of the filters at `top = (kh - 1) // 2`, `left = (kw - 1) // 2`, and pixels outside the
    image as `padding` says. `"valid"` keeps the outputs that need no such pixels (there
    `top = left = 0`), `kh - 1` rows and `kw - 1` columns fewer; the others keep the size.

    Args:
        u: Images `(batch, height, width, c)`.
        filters: `(kh, kw, c, f)`, of static shape.
        padding: `"valid"`, `"zero"`, `"circular"` or `"reflect"`.

    Returns:
        `(batch, height, width, f)`, differentiable to any order in `u` and `filters`.

    Example:

    >>> row = tf.reshape([1.0, 2.0, 4.0], (1, 1, 3, 1))
    >>> difference = tf.reshape([-1.0, 1.0], (1, 2, 1, 1))
    >>> deq_keras.convolution.correlate(row, difference, "circular")[0, 0, :, 0].numpy()
    array([ 1.,  2., -3.], dtype=float32)
    """
    check_padding(padding)
    # The identities belong to the current graph, so gradients may be taken in a nested function.
    u, filters = tf.identity(u), tf.identity(filters)
    with tf.name_scope(LINEAR_MAP):
        return _correlation(padding)(u, filters)


def correlate_adjoint(v, filters, padding) -> tf.Tensor:
    """Applies the adjoint of `correlate`: `<correlate(u), v> = <u, correlate_adjoint(v)>`.

    Args:
        v: `(batch, height, width, f)`; for `"valid"` of the reduced size.
        filters: As for `correlate`.
        padding: As for `correlate`.

    Returns:
        `(batch, height, width, c)`, differentiable to any order in `v` and `filters`.

    Example:

    >>> u, v = tf.random.uniform((1, 8, 9, 2)), tf.random.uniform((1, 8, 9, 5))
    >>> filters = tf.random.normal((3, 3, 2, 5))
    >>> left = tf.reduce_sum(deq_keras.convolution.correlate(u, filters, "reflect") * v)
    >>> right = tf.reduce_sum(u * deq_keras.convolution.correlate_adjoint(v, filters, "reflect"))
    >>> np.allclose(left, right, rtol=1e-3, atol=1e-3)
    True
    """
    check_padding(padding)
    v, filters = tf.identity(v), tf.identity(filters)
    with tf.name_scope(LINEAR_MAP):
        return _adjoint(padding)(v, filters)


def filter_spectrum(u, spectrum) -> tf.Tensor:
    """Multiplies the discrete Fourier transform of each channel: a circular convolution.

    Args:
        u: Images `(batch, height, width, channels)`.
        spectrum: Complex `(height, width // 2 + 1)`, the transfer function as `tf.signal.rfft2d`
            gives it, or `(batch or 1, channels or 1, height, width // 2 + 1)`. Its conjugate gives
            the adjoint.

    Returns:
        Images of the shape of `u`, differentiable to any order in both arguments.

    Example:

    >>> u = tf.random.uniform((2, 8, 8, 1))
    >>> mean = tf.complex(tf.reshape(tf.one_hot(0, 40), (8, 5)), 0.0)  # of frequency zero alone
    >>> result = deq_keras.convolution.filter_spectrum(u, mean)
    >>> np.allclose(result, tf.reduce_mean(u, axis=(1, 2), keepdims=True), atol=1e-5)
    True
    """
    u, spectrum = tf.identity(u), tf.identity(spectrum)
    with tf.name_scope(LINEAR_MAP):
        return _filtered(u, spectrum)


# Arrays, for TensorFlow reads a list much more slowly.
_SWAP = np.array([0, 1, 3, 2], np.int32)
_TO_PLANES, _FROM_PLANES = np.array([0, 3, 1, 2], np.int32), np.array([0, 2, 3, 1], np.int32)

# Each of these is made once: `tf.custom_gradient` reads signatures, which takes longer than a small
# convolution.


@functools.cache
def _correlation(padding):
    @tf.custom_gradient
    def function(u, filters):
        def gradient(v):
            return (
                correlate_adjoint(v, filters, padding),
                _filter_gradient(u, v, filters.shape, padding),
            )

        if padding == "zero":
            return _convolve(u, filters, same_sizes(filters)), gradient
        return _convolve(pad(u, same_sizes(filters), padding), filters), gradient

    return function


@functools.cache
def _adjoint(padding):
    @tf.custom_gradient
    def function(v, filters):
        def gradient(u):
            return (
                correlate(u, filters, padding),
                _filter_gradient(u, v, filters.shape, padding),
            )

        kh, kw = filters.shape[:2]
        (top, bottom), (left, right) = sizes = same_sizes(filters)
        flipped = _turned(filters)
        if padding == "zero":
            return _convolve(v, flipped, ((bottom, top), (right, left))), gradient
        full = _convolve(v, flipped, ((kh - 1, kh - 1), (kw - 1, kw - 1)))
        return pad_adjoint(full, sizes, padding), gradient

    return function


# TensorFlow's own VJP takes twice the time: 2.0 for 0.9 ms, 10x128x128, two cores.
@tf.custom_gradient
def _filtered(u, spectrum):
    def gradient(v):
        width = tf.shape(u)[2]
        column = tf.range(width // 2 + 1)
        # All columns but the first, and the last of an even width, stand for two.
        twice = (column > 0) & (2 * column < width)
        area = tf.cast(width * tf.shape(u)[1], u.dtype)
        weights = tf.cast(tf.where(twice, 2, 1), u.dtype) / area
        product = tf.math.conj(_transform(u)) * _transform(v)
        if spectrum.shape.rank == 2:
            product = tf.reduce_sum(product, [0, 1])
        else:
            shapes = tf.shape(spectrum), tf.shape(product)
            shared = tf.raw_ops.BroadcastGradientArgs(s0=shapes[0], s1=shapes[1]).r0
            product = tf.reshape(tf.reduce_sum(product, shared), shapes[0])
        return (
            filter_spectrum(v, tf.math.conj(spectrum)),
            product * tf.complex(weights, tf.zeros_like(weights)),
        )

    size = u.shape[1:3]
    size = np.array(size, np.int32) if size.is_fully_defined() else tf.shape(u)[1:3]
    planes = tf.signal.irfft2d(_transform(u) * spectrum, size)
    return tf.ensure_shape(_from_planes(planes), u.shape), gradient


def _filter_gradient(u, v, shape, padding):
    """The derivative of `<correlate(u, filters), v>` in the filters, itself differentiable."""
    with tf.name_scope(LINEAR_MAP):
        return _trilinear(tuple(shape), padding)(tf.identity(u), tf.identity(v))


@functools.cache
def _trilinear(shape, padding):
    @tf.custom_gradient
    def function(u, v):
        def gradient(filters):
            return correlate_adjoint(v, filters, padding), correlate(u, filters, padding)

        sizes = same_sizes(tf.TensorSpec(shape))
        kh, kw, c, f = shape
        # CPU kernels compute 16 entries of the last axis at the price of one: 1.1 for 9.4 ms,
        # 8x96x96, 5x5x32x1, two cores.
        if accelerated() or c * math.ceil(f / 16) <= f * math.ceil(c / 16):
            return _tap_products(pad(u, sizes, padding), v, shape), gradient
        if padding == "zero":
            around = tuple(pair[::-1] for pair in sizes)
        else:
            u, around = pad(u, sizes, padding), ((kh - 1, kh - 1), (kw - 1, kw - 1))
        product = _tap_products(pad(v, around, "zero"), u, (kh, kw, f, c))
        return _turned(product), gradient

    return function


def _tap_products(u, v, shape):
    """`sum_y u[y + i] v[y]` for each tap `i` of filters of a shape, with `u` padded."""
    return tf.raw_ops.Conv2DBackpropFilter(
        input=u, filter_sizes=shape, out_backprop=v, strides=[1] * 4, padding="VALID"
    )


def _turned(filters):
    """The filters turned by 180 degrees, inputs and outputs exchanged."""
    # Not `tf.reverse`, which ONNX and OpenVINO have for some tensors only.
    rows, columns = (np.arange(k - 1, -1, -1) for k in filters.shape[:2])
    return tf.transpose(tf.gather(tf.gather(filters, rows, axis=0), columns, axis=1), _SWAP)


def _transform(u):
    """The transforms of the channels, `(batch, channels, height, width // 2 + 1)`."""
    if u.shape[3] == 1:  # no data to move
        return tf.signal.rfft2d(tf.expand_dims(tf.squeeze(u, 3), 1))
    return tf.signal.rfft2d(tf.transpose(u, _TO_PLANES))


def _from_planes(planes):
    if planes.shape[1] == 1:
        return tf.expand_dims(tf.squeeze(planes, 1), 3)
    return tf.transpose(planes, _FROM_PLANES)


def _convolve(x, filters, sizes=((0, 0), (0, 0))):
    """`tf.nn.conv2d` with zero padding by `sizes`, faster for few output channels on a CPU.

    CPU kernels compute 16 output channels at the price of one. So the pixels of a block of size
    `s` become output channels of a convolution of stride `s` with shifted copies of the filters.
    """
    # Adjoint and VJP of correlate, ms, against conv2d_transpose and TensorFlow's VJP, two cores:
    # 10x128x128, 11x11x1x2: 1.1 for 3.4; 8x96x96, 7x7x1x48: 2.1 for 11.5; 8x64x64, 5x5x1x24:
    # 0.7 for 1.6. Flipped filters without blocks are no faster than conv2d_transpose.
    (top, bottom), (left, right) = sizes
    kh, kw, c, f = filters.shape
    height = (x.shape[1] or tf.shape(x)[1]) + top + bottom - kh + 1
    width = (x.shape[2] or tf.shape(x)[2]) + left + right - kw + 1
    if x.shape[0] == 0:  # TensorFlow 2.21 has results with the channels of `x` then
        return tf.zeros((0, height, width, f), x.dtype)
    s = _block_size(filters.shape)
    if s == 1:
        return tf.nn.conv2d(x, filters, 1, [[0, 0], [top, bottom], [left, right], [0, 0]])
    blocks = tf.pad(filters, [[0, 1], [0, 1], [0, 0], [0, 0]])
    blocks = tf.gather(tf.gather(blocks, _shifts(kw, s), axis=1), _shifts(kh, s), axis=0)
    blocks = tf.transpose(blocks, [0, 2, 4, 1, 3, 5])
    blocks = tf.reshape(blocks, [kh + s - 1, kw + s - 1, c, s * s * f])
    sizes = [[0, 0], [top, bottom + s - 1], [left, right + s - 1], [0, 0]]
    y = tf.nn.depth_to_space(tf.nn.conv2d(x, blocks, s, sizes), s)
    return y[:, :height, :width, :]


def _block_size(shape):
    """The block with the least arithmetic."""
    kh, kw, c, _ = shape
    if kh * kw * c < 64 or accelerated():
        return 1
    return min((1, 2, 4), key=lambda s: _arithmetic(shape, s))


def _arithmetic(shape, s):
    """Multiplications of 16 output channels at once, for a pixel, in blocks of size `s`."""
    kh, kw, c, f = shape
    return (kh + s - 1) * (kw + s - 1) * c / s**2 * math.ceil(s**2 * f / 16)


def arithmetic(shape) -> tuple[float, float]:
    """How much a CPU computes for each pixel with filters, as `tf.nn.conv2d` and as `correlate`.

    Args:
        shape: `(kh, kw, c, f)`, integers.

    Returns:
        Two numbers, in multiplications of 16 numbers at once. They are equal where blocks do not
        help, and where there is an accelerator.

    Example:

    >>> deq_keras.convolution.correlation.arithmetic((5, 5, 32, 1))
    (800.0, 128.0)
    """
    return _arithmetic(shape, 1), _arithmetic(shape, _block_size(shape))


def accelerated() -> bool:
    """Whether TensorFlow sees a device other than CPUs: fast forms are for these alone.

    Example:

    >>> deq_keras.convolution.correlation.accelerated() in (True, False)
    True
    """
    return any(d.device_type != "CPU" for d in tf.config.get_visible_devices())


def _shifts(k, s):
    """Where each row of the shifted filters comes from; row `k` is zero."""
    source = np.arange(k + s - 1)[:, None] - np.arange(s)
    return np.where((source >= 0) & (source < k), source, k)

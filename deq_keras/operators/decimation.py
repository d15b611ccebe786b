"""Decimation: every `f`-th pixel is kept. Its adjoint, and the norm of a blur before it."""

import functools

import numpy as np
import tensorflow as tf

from deq_keras.convolution.norm_bounds import square_root
from deq_keras.numerics.shapes import sizes_of


def decimate(u, factors):
    """`u[:, ::f, ::g]` for factors `(f, g)`."""
    # A pooling over one pixel is a quarter of the time of the strided slice.
    return u if tuple(factors) == (1, 1) else tf.nn.avg_pool2d(u, 1, factors, "SAME")


def insert_zeros(v, factors, size):
    """The adjoint of `decimate` on images of `size` (height, width), which may be tensors."""
    if tuple(factors) == (1, 1):
        return v
    f, g = factors
    batch, rows, columns, channels = sizes_of(v)
    # Two paddings of matrices: half of the time of the gradient of a strided slice.
    x = tf.pad(tf.reshape(v, [-1, channels]), [[0, 0], [0, channels * (g - 1)]])
    width = columns * g * channels
    x = tf.pad(tf.reshape(x, [-1, width]), [[0, 0], [0, width * (f - 1)]])
    x = tf.reshape(x, [batch, rows * f, columns * g, channels])
    x = tf.slice(x, [0, 0, 0, 0], [-1, *size, -1])
    static = [n if isinstance(n, int) else None for n in size]
    return tf.ensure_shape(x, (v.shape[0], *static, channels))


def norm_bound(filters, padding, factors, size):
    """A bound on the norm of a correlation that is followed by a decimation.

    The squared norm of a matrix is at most its largest absolute row sum times its largest absolute
    column sum (Schur). A pixel meets only those filter pixels that lead to an output that is kept:
    about one in `f g`, so the bound is about that of the correlation divided by `sqrt(f g)`. It is
    exact for the mean over blocks.

    Args:
        filters: `(kh, kw)`.
        padding: `"zero"`, `"circular"` or `"reflect"`.
        factors: `(f, g)`.
        size: Height and width of the images, `None` where they are not known. For `"circular"`
            these are then taken to be at least those of the filters.

    Returns:
        A scalar tensor.
    """
    weights = tf.abs(filters)
    tall, wide = (
        tf.constant(_multiplicities(k, factor, padding, n), filters.dtype)
        for k, factor, n in zip(filters.shape, factors, size, strict=True)
    )
    columns = tf.reduce_max(tall @ weights @ tf.transpose(wide))
    return square_root(columns * tf.reduce_sum(weights))


@functools.lru_cache(maxsize=64)
def _multiplicities(k, factor, padding, n):
    """How often a pixel meets each of the `k` filter pixels: a row for each case that there is.

    The cases are found by going through all pixels of lines of all lengths up to where nothing new
    happens: where both ends are far apart, a longer line has the cases of one that is shorter by
    the factor.
    """
    top = (k - 1) // 2
    enough = 2 * k + 2 * factor
    if n is None:
        lengths = range({"zero": 1, "circular": k, "reflect": k // 2 + 1}[padding], enough + 1)
    else:
        lengths = [n if n <= enough else enough - (enough - n) % factor]
    cases = set()
    for length in lengths:
        taps = np.broadcast_to(np.arange(k), (-(-length // factor), k))
        pixels = np.arange(0, length, factor)[:, None] + taps - top
        inside = np.ones(pixels.shape, bool)
        if padding == "zero":
            inside = (pixels >= 0) & (pixels < length)
        elif padding == "circular":
            pixels = pixels % length
        else:
            pixels = length - 1 - abs(length - 1 - abs(pixels))
        counts = np.zeros((length, k), int)
        np.add.at(counts, (pixels[inside], taps[inside]), 1)
        cases.update(map(tuple, counts))
    rows = np.array(sorted(cases), float)
    # The weights are not negative, so a row that is nowhere larger than another one is not needed.
    below = np.all(rows[:, None] <= rows[None], axis=2) & np.any(rows[:, None] < rows[None], axis=2)
    return rows[~below.any(axis=1)]

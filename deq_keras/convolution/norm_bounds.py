"""Certified bounds on the norm of a convolution."""

import math

import numpy as np
import tensorflow as tf

from deq_keras.convolution.padding import check_padding
from deq_keras.convolution.reflected_bounds import fits, largest_eigenvalue, reflect_bound


def norm_bound(filters, padding, size=None) -> tf.Tensor:
    """Returns an upper bound on the l2 operator norm of `correlate`, for every image size.

    The smallest of these is returned:

    - **Spectrum.** On the infinite grid `correlate` multiplies the Fourier transform of an image
      by the matrix `F(w)` of the filters' Fourier series, so its squared norm is the maximum over
      the frequencies `w` of the largest eigenvalue of `G(w) = F(w)^* F(w)`. For every vector `x`,
      `x^* G(w) x` is a trigonometric polynomial of degree `d = k - 1` in each frequency, and the
      modulus of such a polynomial is at most `1 / cos(pi d / N)` times its maximum over `N > 2d`
      equispaced points (Ehlich and Zeller, 1964). `x^* G(w) x >= 0`, so it is applied after half
      of the largest sample is subtracted. "circular" samples the same spectrum at the
      frequencies of its size; "zero" and "valid" are compressions of the infinite grid: an image
      is extended by zeros and outputs are dropped. For "reflect" the image is extended to one of
      twice the period less two, in which each pixel occurs at most twice a dimension; outputs of
      its circular correlation are dropped. That is a factor `sqrt(2)` for each dimension in which
      the filter has more than one pixel.
    - **Borders.** For "reflect" and images that are known not to be tiny, corrections for borders
      and corners are added to the spectrum instead of that factor: see `reflect_bound`. The norm
      is then bounded by typically 1.2 to 1.45 times that of the infinite grid instead of 2.
    - **Schur test.** The squared norm of a matrix is at most its largest absolute row sum times
      its largest absolute column sum. This is exact for filters of one sign such as blurs. With
      "reflect" a border pixel is used more often than others: the maximum is over all positions
      of a pixel and all admissible sizes (see `_column_multiplicities`).

    They hold in exact arithmetic; the result is rounded as usual.

    Args:
        filters: As for `correlate`.
        padding: As for `correlate`.
        size: `(height, width)` of the smallest image for which the bound must hold: integers, or a
            tensor of two, such as `tf.shape(u)[1:3]`. `None`: any image that the padding allows.
            It matters for "reflect" alone, and there only whether it is at least `2 (k - 1)` (for
            `k = 2` at least 4).

    Returns:
        A scalar tensor, differentiable with respect to the filters (with gradient 0 at 0).

    Raises:
        ValueError: If the padding is not known.

    Example:

    >>> filters = tf.random.normal((7, 7, 1, 48))
    >>> at_size = deq_keras.convolution.norm_bound(filters, "reflect", (64, 64))
    >>> bool(at_size < deq_keras.convolution.norm_bound(filters, "reflect"))
    True

    Reference:
        H. Ehlich, K. Zeller: Schwankung von Polynomen zwischen Gitterpunkten. Mathematische
        Zeitschrift 86 (1964), 41-44.
    """
    every, at_size = norm_bounds(filters, padding, size)
    return every if size is None else at_size


def norm_bounds(filters, padding, size) -> tuple[tf.Tensor, tf.Tensor]:
    """The pair of `norm_bound` for every image and for those of a size, at the cost of one.

    Example:

    >>> filters = tf.random.normal((7, 7, 1, 48))
    >>> from deq_keras.convolution.norm_bounds import norm_bounds
    >>> every, at_size = norm_bounds(filters, "reflect", (64, 64))
    >>> bool(at_size <= every)
    True
    """
    check_padding(padding)
    filters = tf.convert_to_tensor(filters)
    dtype = filters.dtype
    if dtype not in (tf.float32, tf.float64):  # there is no half-precision FFT
        filters = tf.cast(filters, tf.float32)
    grid, schur = _spectral_bound(filters), _schur_bound(filters, padding)
    doubled = grid
    if padding == "reflect":
        doubled = grid * 2 ** sum(k > 1 for k in filters.shape[:2])
    every = _root(tf.minimum(doubled, schur), dtype)
    if padding != "reflect" or size is None:
        return every, every
    return every, _root(tf.minimum(_mirrored(filters, grid, doubled, size), schur), dtype)


def _root(square, dtype):
    norm = square_root(square)
    return norm if norm.dtype == dtype else tf.cast(1.01 * norm, dtype)  # never rounded down


def square_root(square):
    """The square root, with derivative 0 at 0."""
    positive = square > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, square, 1)), 0)


def _mirrored(filters, grid, doubled, size):
    """The bound for mirrored boundaries from that of the infinite grid, at a size."""
    if tf.is_tensor(size):
        static = tf.get_static_value(size)
        size = tf.unstack(size, 2) if static is None else static
    large = fits(filters.shape, size)
    known = not any(tf.is_tensor(part) for part in large)
    if known and not all(large):
        return doubled
    tight = tf.minimum(doubled, reflect_bound(filters, grid, _frequencies(filters.shape)))
    return tight if known else tf.where(tf.reduce_all(large), tight, doubled)


def _frequencies(shape):
    return tuple(max(32, 2 ** math.ceil(math.log2(16 * k))) for k in shape[:2])


def _spectral_bound(filters):
    """Bounds the squared norm on the infinite grid by the sampled spectrum."""
    kh, kw, c, _ = filters.shape
    # The coefficients of the trigonometric polynomials: few filters are left to transform.
    gram = tf.nn.conv2d(
        tf.transpose(filters, [2, 0, 1, 3]),
        tf.transpose(filters, [0, 1, 3, 2]),
        1,
        [[0, 0], [kh - 1, kh - 1], [kw - 1, kw - 1], [0, 0]],
    )
    n_h, n_w = _frequencies(filters.shape)
    gram = tf.pad(gram, [[0, 0], [0, n_h - 2 * kh + 1], [0, n_w - 2 * kw + 1], [0, 0]])
    gram = tf.transpose(tf.roll(gram, [1 - kh, 1 - kw], [1, 2]), [0, 3, 1, 2])
    spectrum = tf.signal.rfft2d(gram)
    if c == 1:
        largest = tf.reduce_max(tf.math.real(spectrum))
    else:
        spectrum = tf.reshape(tf.transpose(spectrum, [2, 3, 0, 1]), [-1, c, c])
        largest = largest_eigenvalue(spectrum)
    cosine = math.cos(math.pi * (kh - 1) / n_h) * math.cos(math.pi * (kw - 1) / n_w)
    return largest * (1 + 1 / cosine) / 2


def _schur_bound(filters, padding):
    """Bounds the squared norm by the product of the largest row and column sums."""
    size = tf.abs(filters)
    rows = tf.reduce_max(tf.reduce_sum(size, [0, 1, 2]))
    columns = tf.reduce_sum(size, 3)
    if padding == "reflect":
        kh, kw = filters.shape[:2]
        tall = tf.constant(_column_multiplicities(kh), filters.dtype)
        wide = tf.constant(_column_multiplicities(kw), filters.dtype)
        columns = tf.linalg.matmul(tall, tf.reshape(columns, [kh, -1]))
        columns = tf.linalg.matmul(wide, tf.reshape(columns, [tall.shape[0], kw, -1]))
    else:
        columns = tf.reduce_sum(columns, [0, 1])
    return rows * tf.reduce_max(columns)


def _column_multiplicities(k):
    """How often the pixel at distances (i, j) from the two borders meets each filter pixel `a`.

    Of the outputs `y` in `[0, i + j]`, the pixel itself is met by `y = i + t - a`, its reflection
    in the first border by `y = t - a - i`, that in the second by `y = i + 2 j + t - a`. Distances
    beyond the kernel size change nothing, so the rows of the result are all the cases there are.
    """
    t = (k - 1) // 2
    i, j, a = np.ogrid[: k + 1, : k + 1, :k]
    direct = (a <= t + i) & (a >= t - j)
    first = (i > 0) & (a <= t - i)
    last = (j > 0) & (a >= t + j)
    counts = direct.astype(int) + first + last
    return np.unique(counts[(i + j >= k - 1 - t)[..., 0]], axis=0)

"""A tight certified bound on the norm of a convolution with mirrored boundaries."""

import math

import numpy as np
import tensorflow as tf


def reflect_bound(filters, square, frequencies):
    """Bounds the squared norm of `correlate(., filters, "reflect")` on images that are not tiny.

    It holds for every image of at least `2 m` pixels in each dimension in which the filter has
    more than one, where `m = max(k - 1, 2)` (see `fits`). It is the sum of the bound `S^2` of the
    infinite grid, a correction for the borders of each dimension, and one for the corners: 1.4 to
    2.1 times `S^2` for most filters of 3x3 to 11x11 pixels, where the true value is 1 to 1.5 times,
    and counting each pixel as often as it may occur in the mirror image gives 4 times.

    **Proof**, first in one dimension. Let the output `y` of a filter read the pixels from `y - t`
    to `y + b`, with `k = t + b + 1`, and let `w(y)` be the outputs for the image `u` continued by
    zeros. With mirrored boundaries they are `w(y) + r(y)`, where `r` is the part of the filter that
    meets mirrored pixels, and those outside the image are dropped. So the squared norm of the
    outputs is

        sum_{all y} |w(y)|^2 + q_first(u) + q_last(u),

        q_first(u) = sum_{0 <= y < t} |w(y) + r(y)|^2 - sum_{-b <= y < t} |w(y)|^2,

    and `q_last` is the same at the other border. The first sum is at most `S^2 |u|^2`. The outputs
    in `q_first` read pixels up to `t - 1 + b = k - 2`, and mirrored ones up to `t`: the first `m`.
    Those in `q_last` read the last `m`. In an image of `2 m` pixels these are different ones, so
    `q_first + q_last` is at most `max(0, lambda_first, lambda_last) |u|^2`, with the largest
    eigenvalues of two matrices of order `m`.

    In two dimensions `A^T A` is bilinear in what happens to pairs of rows and to pairs of columns:
    they are mirrored (`R`), or continued by zeros (`Z`). Multiplied out,

        R x R = Z x Z + (R - Z) x Z + Z x (R - Z) + (R - Z) x (R - Z).

    The first term is at most `S^2`. The second lives on `m` rows at the upper and at the lower
    border, and is continued by zeros along them: a compression of a convolution along the border,
    so its largest eigenvalue is at most that of the matrix-valued Fourier series `K(w)` of this,
    of order `m c` for `c` channels. The third is the same for the left and right borders, the last
    a quadratic form in the `m m' c` numbers at each of the four corners.

    The maximum over `w` follows from equispaced samples as in `norm_bound`: for every vector `x` of
    length one, `p(w) = x^* K(w) x` is a trigonometric polynomial of degree `d = k - 1`, and
    `p(w) >= -S^2`, because `S^2 + K(w)` is at least an `A^T A`. With `M` the largest eigenvalue at
    the `N` samples, or 0 if that is negative, the modulus of `p + S^2 / 2` is at most `M + S^2 / 2`
    there, hence `p <= (M + S^2 / 2) / cos(pi d / N) - S^2 / 2` everywhere.

    Args:
        filters: `(kh, kw, c, f)`, float32 or float64, of static shape.
        square: A bound on `S^2`.
        frequencies: `(N, N')`, how many frequencies to sample in each dimension.

    Returns:
        A scalar tensor, differentiable in the filters.
    """
    kh, kw = filters.shape[:2]
    total = square
    if kh > 1:
        total += _border(filters, square, frequencies[1])
    if kw > 1:
        total += _border(tf.transpose(filters, [1, 0, 2, 3]), square, frequencies[0])
    if kh > 1 and kw > 1:
        total += _corners(filters)
    return total


def fits(shape, size):
    """Whether `reflect_bound` holds for filters of `shape` and images of `size` and larger."""
    pairs = zip(shape[:2], size, strict=True)
    return [n >= (2 * _reach(k) if k > 1 else 1) for k, n in pairs]


def _reach(k):
    """How many pixels from the border the outputs that meet mirrored ones depend on."""
    return max(k - 1, 2)


def largest_eigenvalue(matrices):
    """The largest eigenvalue among Hermitian matrices `(n, m, m)`, differentiable."""
    # The gradient passes through one matrix only, that of the largest eigenvalue.
    values = tf.math.real(tf.linalg.eigvalsh(tf.stop_gradient(matrices)))[:, -1]
    return tf.math.real(tf.linalg.eigvalsh(matrices[tf.argmax(values)]))[-1]


def _border(filters, square, frequencies):
    """The correction for the borders of the first dimension."""
    kh, kw, c, _ = filters.shape
    reach = _reach(kh)
    padded = tf.pad(tf.transpose(filters, [0, 2, 3, 1]), [[0, 0]] * 3 + [[0, frequencies - kw]])
    spectrum = tf.transpose(tf.signal.rfft(padded), [3, 0, 1, 2])
    n = spectrum.shape[0]
    rows = tf.reshape(spectrum, [n, kh * c, -1])
    gram = tf.linalg.matmul(tf.math.conj(rows), rows, transpose_b=True)
    gram = tf.transpose(tf.reshape(gram, [n, kh, c, kh, c]), [1, 3, 0, 2, 4])
    forms = tf.constant(_forms(kh), gram.dtype)
    matrices = tf.linalg.matmul(forms, tf.reshape(gram, [kh * kh, n * c * c]))
    matrices = tf.reshape(matrices, [2, reach, reach, n, c, c])
    matrices = tf.transpose(matrices, [0, 3, 1, 4, 2, 5])
    largest = largest_eigenvalue(tf.reshape(matrices, [2 * n, reach * c, reach * c]))
    cosine = math.cos(math.pi * (kw - 1) / frequencies)
    return (tf.maximum(largest, 0) + square / 2) / cosine - square / 2


def _corners(filters):
    """The correction for the four corners."""
    kh, kw, c, f = filters.shape
    h, w = _reach(kh), _reach(kw)
    rows = tf.reshape(filters, [kh * kw * c, f])
    gram = tf.reshape(tf.linalg.matmul(rows, rows, transpose_b=True), [kh, kw, c, kh, kw, c])
    gram = tf.transpose(gram, [0, 3, 1, 4, 2, 5])
    tall = tf.reshape(tf.constant(_forms(kh), filters.dtype), [-1, kh * kh])
    wide = tf.reshape(tf.constant(_forms(kw), filters.dtype), [-1, kw * kw])
    forms = tf.linalg.matmul(tall, tf.reshape(gram, [kh * kh, -1]))
    forms = tf.linalg.matmul(wide, tf.reshape(forms, [tall.shape[0], kw * kw, c * c]))
    forms = tf.reshape(forms, [2, h, h, 2, w, w, c, c])
    forms = tf.transpose(forms, [0, 3, 1, 4, 6, 2, 5, 7])
    order = h * w * c
    return tf.maximum(largest_eigenvalue(tf.reshape(forms, [4, order, order])), 0)


def _forms(k):
    """The coefficients of `q_first` and `q_last` in products of filter pixels.

    Returns:
        An array `(2, m^2, k^2)`: for each border, for each pair of pixels (counted from
        the border), the coefficient of each product of two filter pixels.
    """
    top = (k - 1) // 2
    first = _first_form(k, top)
    last = _first_form(k, k - 1 - top)[:, :, ::-1, ::-1]
    return np.stack([first, last]).reshape(2, -1, k**2)


def _first_form(k, t):
    """`q_first` for filters with their origin at `t`: `(m, m, k, k)`."""
    bottom = k - 1 - t
    y, x, a = np.ogrid[-bottom:t, : _reach(k), :k]
    zeros = (a == x - y + t).astype(float)  # which filter pixel of output y meets pixel x
    mirror = (a == t - x - y) & (x > 0)
    mirrored = np.where(y >= 0, zeros + mirror, 0)
    return np.einsum("yxa,yzb->xzab", mirrored, mirrored) - np.einsum("yxa,yzb->xzab", zeros, zeros)

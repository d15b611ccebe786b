"""Projections of an image along parallel lines: the arithmetic of the X-ray transform.

Along the axis of the image that is nearer to the lines the rows of pixels are sheared, so that the
lines stand upright, and added; then the sums are spread over the bins of the detector. A shear by
linear interpolation is a product with two numbers in the Fourier domain, so that all angles are one
product of real matrices for each frequency, with a vector for each image.
"""

import math
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deq_keras.numerics.shapes import sizes_of

# Lengths of fast transforms: even products of powers of 2, 3 and 5.
_LENGTHS = np.array(
    sorted({2**i * 3**j * 5**k for i in range(1, 17) for j in range(5) for k in range(4)}), np.int32
)


class Views(NamedTuple):
    """Angles whose lines are nearer to one axis of the image; nothing in it depends on its size.

    Attributes:
        places: Where these angles stand among all.
        transposed: Whether the rows that are sheared are the columns of the image.
        slopes: By how many pixels a row is sheared against the one above it, in [-1, 1].
        widths: Width of a sheared pixel on the detector, in units of pixels, in [0.7, 1].
        signs: -1 where the detector is seen from behind.
    """

    places: np.ndarray
    transposed: bool
    slopes: np.ndarray
    widths: np.ndarray
    signs: np.ndarray


class Weights(NamedTuple):
    """What `Views` are for images of one size: tensors.

    Attributes:
        shear: `(frequencies, angles, 2 * half of the rows)`: real parts, then imaginary parts.
        bins: `(angles, bins, taps)`: which sums a bin meets.
        shares: Of the same shape: how much of each of these sums it gets.
        sums: `(angles, length, taps)`: which bins a sum meets.
        parts: Of the same shape.
    """

    shear: tf.Tensor
    bins: tf.Tensor
    shares: tf.Tensor
    sums: tf.Tensor
    parts: tf.Tensor


def views(degrees):
    """The `Views` of angles: one or two, without those that hold no angle."""
    cosine, sine = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    upright = np.abs(cosine) >= np.abs(sine)
    found = []
    # A pixel at column x and row r, from the centre, has the detector coordinate x cos - r sin.
    for transposed, along, across in ((False, cosine, -sine), (True, -sine, cosine)):
        places = np.flatnonzero(upright != transposed)
        if len(places):
            along, across = along[places], across[places]
            parts = across / along, np.abs(along), np.sign(along)
            found.append(Views(places, transposed, *parts))
    return found


def taps(these, bin_width):
    """How many sums a bin meets at most, and how many bins a sum, for a width in pixels."""
    return (
        math.ceil(bin_width / these.widths.min()) + 1,
        math.ceil(these.widths.max() / bin_width) + 1,
    )


def weights(these, rows, columns, bins, bin_width, scale, dtype):
    """The `Weights` of views.

    Args:
        these: `Views`.
        rows: Number of rows that are sheared and added, an integer or a scalar tensor.
        columns: Their length.
        bins: Number of bins.
        bin_width: In units of pixels.
        scale: What a pixel of value 1 adds to the sum over all bins.
        dtype: Real dtype of the result.
    """
    length = _length(rows + columns + 2)
    wide, narrow = taps(these, bin_width)
    width, sign = these.widths[:, None], these.signs[:, None]
    middle, centre = (tf.cast(n, tf.float64) / 2 for n in (columns, bins))

    # Edges are in pixels on the detector, from its centre. A sheared row is periodic: a place in it
    # stands for the pixel `place` or `place - length`, whichever is nearer to the image.
    number = tf.cast(tf.range(bins), tf.float64)
    bin_edge = (sign * (number - centre + 0.5) - 0.5) * bin_width
    before = (length - columns) // 2
    place = tf.math.floormod(tf.range(length) + before, length) - before
    pixel_edge = (tf.cast(place, tf.float64) - middle) * width

    def share(bin_edge, pixel_edge, fits):
        left = tf.maximum(bin_edge, pixel_edge)
        right = tf.minimum(bin_edge + bin_width, pixel_edge + width[..., None])
        part = scale * tf.maximum(right - left, 0) / width[..., None]
        return tf.cast(tf.where(fits, part, 0), dtype)

    pixel = _neighbours(bin_edge / width + middle, wide)
    fits = (pixel >= -before) & (pixel < length - before)
    edge = (tf.cast(pixel, tf.float64) - middle) * width[..., None]
    shares = share(bin_edge[..., None], edge, fits)

    number = _neighbours(pixel_edge / bin_width + centre, narrow)
    fits = (number >= 0) & (number < bins)
    parts = share((tf.cast(number, tf.float64) - centre) * bin_width, pixel_edge[..., None], fits)
    number = tf.where(sign[..., None] < 0, bins - 1 - number, number)
    number = tf.clip_by_value(number, 0, bins - 1)
    shear = _shear(these, rows, length, dtype)
    return Weights(shear, tf.math.floormod(pixel, length), shares, number, parts)


def project(images, parts):
    """Sums over the lines: `(rows, images, columns)` to `(angles, bins, images)`."""
    length = tf.shape(parts.sums)[1]
    rows = _fold(images)
    rows = tf.pad(rows, [[0, 0], [0, 0], [0, length - tf.shape(rows)[2]]])
    spectra = _transform(rows, length)
    (real, real_odd), (imaginary, imaginary_odd) = (
        tf.split(part(spectra), 2, 0) for part in (tf.math.real, tf.math.imag)
    )
    real, imaginary = tf.concat([real, imaginary_odd], 0), tf.concat([imaginary, -real_odd], 0)
    spectra = tf.transpose(tf.concat([real, imaginary], 1), (2, 0, 1))
    sums = tf.transpose(tf.matmul(parts.shear, spectra), (1, 2, 0))
    sums = _transform_back(tf.complex(*tf.split(sums, 2, 1)), length)
    return _mix(tf.transpose(sums, (0, 2, 1)), parts.bins, parts.shares)


def project_back(sinograms, parts, rows, columns):
    """The adjoint of `project`."""
    return _shear_back(_mix(sinograms, parts.sums, parts.parts), parts, rows, columns)


def near_diagonal(parts, rows, columns):
    """About the diagonal of `project_back(project(...))`: `(rows, 1, columns)`.

    A pixel is spread over two neighbouring sums, in parts `1 - f` and `f`. Their squares and their
    product are replaced by the means over all `f`, of which two thirds and one third of a shear
    back remain.
    """
    next_sums, next_parts = (tf.roll(t, -1, 1)[:, :, None] for t in (parts.sums, parts.parts))
    same = tf.cast(parts.sums[..., None] == next_sums, next_parts.dtype)
    product = tf.reduce_sum(parts.parts[..., None] * next_parts * same, (2, 3))
    product = (product + tf.roll(product, 1, 1)) / 2
    square = tf.reduce_sum(parts.parts**2, 2)
    return _shear_back((2 * square + product)[..., None] / 3, parts, rows, columns)


def ramp(sinograms, bin_size):
    """Sinograms with each projection filtered by `|f|`, as filtered backprojection asks for.

    The filter is made of its values at the bins, so that the mean is right (Kak and Slaney, 3.3).

    Args:
        sinograms: `(batch, angles, bins, channels)`, real.
        bin_size: Width of a bin.
    """
    bins = sizes_of(sinograms)[2]
    length = _length(2 * bins)
    distance = tf.range(length)
    distance = tf.cast(tf.minimum(distance, length - distance), sinograms.dtype)
    odd = -(tf.math.divide_no_nan(tf.ones_like(distance), np.pi * distance) ** 2)
    kernel = tf.where(distance % 2 == 1, odd, 0) + tf.where(distance == 0, 0.25, 0)
    gain = tf.math.real(tf.signal.rfft(kernel / bin_size))
    spectra = tf.signal.rfft(tf.transpose(sinograms, (0, 1, 3, 2)), [length])
    filtered = tf.signal.irfft(spectra * tf.complex(gain, tf.zeros_like(gain)), [length])
    return tf.transpose(filtered[..., :bins], (0, 1, 3, 2))


def _shear_back(sums, parts, rows, columns):
    """From sums `(angles, length, images)` to `(rows, images, columns)`: the adjoint of adding."""
    length = tf.shape(sums)[1]
    spectra = _transform(tf.transpose(sums, (0, 2, 1)), length)
    spectra = tf.concat([tf.math.real(spectra), tf.math.imag(spectra)], 1)
    sheared = tf.matmul(parts.shear, tf.transpose(spectra, (2, 0, 1)), transpose_a=True)
    real, imaginary = tf.split(tf.transpose(sheared, (1, 2, 0)), 2, 1)
    (real, imaginary_odd), (imaginary, real_odd) = (tf.split(t, 2, 0) for t in (real, imaginary))
    real, imaginary = tf.concat([real, -real_odd], 0), tf.concat([imaginary, imaginary_odd], 0)
    images = _transform_back(tf.complex(real, imaginary), length)
    return _unfold(images[..., :columns], rows)


def _transform(rows, length):
    """Fourier transforms of rows that are of a length; `tf.signal` pads and crops in many steps."""
    kind = tf.complex128 if rows.dtype == tf.float64 else tf.complex64
    return tf.raw_ops.RFFT(input=rows, fft_length=length[None], Tcomplex=kind)


def _transform_back(spectra, length):
    kind = spectra.dtype.real_dtype
    return tf.raw_ops.IRFFT(input=spectra, fft_length=length[None], Treal=kind)


def _length(least):
    """The least length of a fast transform that is no less than some number."""
    if isinstance(least, int):
        return int(_LENGTHS[np.searchsorted(_LENGTHS, least)])
    return tf.gather(_LENGTHS, tf.searchsorted(_LENGTHS, least[None])[0])


def _shear(these, rows, length, dtype):
    """The factors of the rows from the middle down; those above have the conjugate ones."""
    frequencies = tf.range(length // 2 + 1)[:, None, None]
    half = (rows + 1) // 2
    start = 0.5 * (1.0 - tf.cast(rows % 2, tf.float64))
    shift = these.slopes[:, None] * (tf.cast(tf.range(half), tf.float64) + start)
    whole = tf.floor(shift)
    part = tf.cast(shift - whole, dtype)
    turn = tf.math.floormod(frequencies * tf.cast(whole, tf.int32), length)
    following = tf.math.floormod(turn + frequencies, length)
    angle = tf.cast(tf.range(length), tf.float64) * (2 * np.pi / tf.cast(length, tf.float64))
    # A shift by `d` multiplies by exp(-i angle d), whose imaginary part is negated.
    tables = (tf.cast(function(angle), dtype) for function in (tf.cos, tf.sin))
    return tf.concat(
        [(1 - part) * tf.gather(t, turn) + part * tf.gather(t, following) for t in tables], 2
    )


def _neighbours(position, count):
    """The integers from the one below a position on, `count` of them, in a new axis."""
    return tf.cast(tf.floor(position), tf.int32)[..., None] + tf.range(count)


def _mix(values, places, shares):
    """`sum_t shares[a, i, t] values[a, places[a, i, t]]` for `(angles, n, images)`."""
    parts = zip(tf.unstack(places, axis=2), tf.unstack(shares, axis=2), strict=True)
    return tf.add_n([tf.gather(values, at, batch_dims=1) * share[..., None] for at, share in parts])


def _fold(images):
    """Sums, then differences, of the rows from the middle down with those that mirror them."""
    rows = tf.shape(images)[0]
    below = images[rows // 2 :]
    above = tf.reverse(images[: rows // 2], [0])
    above = tf.pad(above, [[rows % 2, 0], [0, 0], [0, 0]])  # a middle row mirrors nothing
    return tf.concat([below + above, below - above], 0)


def _unfold(folded, rows):
    """The adjoint of `_fold`."""
    even, odd = tf.split(folded, 2, 0)
    return tf.concat([tf.reverse((even - odd)[rows % 2 :], [0]), even + odd], 0)

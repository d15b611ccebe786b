"""Masks of measured frequencies as NumPy arrays, with frequency zero at `[0, 0]`."""

import numpy as np

from deq_keras.checks import positive, positive_int
from deq_keras.operators.mask_patterns import all_channels, check_fraction, mask_shape

_GOLDEN_ANGLE = np.pi * (np.sqrt(5) - 1) / 2  # of each spoke to the next


def cartesian_mask(shape, acceleration=4.0, center_fraction=0.08, seed=0):
    """A mask of whole columns: those of low frequencies, and others at random.

    The columns of low frequencies are always measured. Each of the others is measured with the
    probability that makes one in `acceleration` of all columns on average.

    Args:
        shape: `(height, width)`, `(height, width, channels)` or `(batch, height, width, channels)`.
            Each image of a batch has columns of its own.
        acceleration: How many times fewer columns are measured, at least 1.
        center_fraction: Part of the columns that are always measured, in [0, 1].
        seed: Integer; the mask is a function of it and the other arguments.

    Returns:
        A float32 array of zeros and ones, in the layout of `numpy.fft.fft2`.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Zbontar et al.: fastMRI: an open dataset and benchmarks for accelerated MRI.
        arXiv:1811.08839.

    Example:

    >>> mask = deq_keras.operators.cartesian_mask((64, 48), acceleration=4.0)
    """
    shape = mask_shape(shape)
    if positive("acceleration", acceleration) < 1:
        raise ValueError(f"Expected `acceleration` to be at least 1. Received {acceleration!r}.")
    planes = shape[:2] if len(shape) < 4 else shape[:3]
    width = planes[-1]
    low = round(check_fraction("center_fraction", center_fraction) * width)
    rest = max(width / acceleration - low, 0) / max(width - low, 1)
    known = np.random.default_rng(seed).random((*planes[:-2], 1, width)) < rest
    start = (width - low + 1) // 2
    known[..., start : start + low] = True
    known = np.fft.ifftshift(known, axes=-1)
    return all_channels(np.broadcast_to(known, planes), shape)


def radial_mask(shape, spokes=32):
    """A mask of lines through frequency zero, each turned by the golden angle from the last.

    They end at the ellipse that touches the edges, so the corners are not measured.

    Args:
        shape: `(height, width)`, `(height, width, channels)` or `(batch, height, width, channels)`.
            The spokes go on from one image of a batch to the next.
        spokes: How many lines, a positive integer.

    Returns:
        A float32 array of zeros and ones, in the layout of `numpy.fft.fft2`.

    Raises:
        ValueError: If an argument is out of range.

    Reference:
        Winkelmann, Schaeffter, Koehler, Eggers and Doessel: An optimal radial profile order based
        on the golden ratio for time-resolved MRI. IEEE Transactions on Medical Imaging 26 (2007),
        68-76.

    Example:

    >>> mask = deq_keras.operators.radial_mask((64, 48), spokes=16)
    """
    shape = mask_shape(shape)
    spokes = positive_int("spokes", spokes)
    planes = shape[:2] if len(shape) < 4 else shape[:3]
    height, width = planes[-2:]
    count = int(np.prod(planes[:-2]))
    known = np.zeros((count, height, width), bool)
    # In steps of at most half a pixel; frequency zero is in the middle.
    along = np.linspace(-0.5, 0.5, 2 * max(height, width) + 1)
    for image in range(count):
        angles = _GOLDEN_ANGLE * (image * spokes + np.arange(spokes))[:, None]
        rows = np.rint(height * along * np.sin(angles)).astype(int)
        columns = np.rint(width * along * np.cos(angles)).astype(int)
        known[image, rows % height, columns % width] = True
    return all_channels(known.reshape(planes), shape)

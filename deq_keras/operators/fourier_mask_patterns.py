"""Masks of frequencies as NumPy arrays, in the order of `numpy.fft.fft2`."""

import numpy as np

from deq_keras.checks import positive_int
from deq_keras.operators.mask_patterns import all_channels, fraction_of, mask_shape


def cartesian_mask(shape, acceleration=4, centre_fraction=0.08, seed=0):
    """A mask in which some columns of frequencies are measured, as by a Cartesian scan.

    Of the columns `1 / acceleration` are measured: all of the lowest frequencies, and others that
    are drawn at random. There are at least as many as the centre has, and at least one.

    Args:
        shape: `(height, width)`, `(height, width, channels)` or `(batch, height, width, channels)`;
            each image of a batch has its own columns.
        acceleration: Number >= 1, how many times fewer columns are measured.
        centre_fraction: Share of the columns, in [0, 1], that are measured in any case.
        seed: Integer; the mask is a function of it and the other arguments.

    Returns:
        A float32 array of zeros and ones, low frequencies at its corners: `numpy.fft.fftshift` of
        height and width shows it as usual.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> mask = deq_keras.operators.cartesian_mask((64, 48), acceleration=4)
    >>> int(mask[0].sum())
    12
    """
    shape = mask_shape(shape)
    if not acceleration >= 1:
        raise ValueError(
            f"Expected `acceleration` to be at least 1. Received acceleration={acceleration!r}."
        )
    pixels = _pixels(shape)
    width = pixels[-1]
    centre = round(fraction_of("centre_fraction", centre_fraction) * width)
    total = max(round(width / acceleration), centre, 1)
    rng = np.random.default_rng(seed)
    order = rng.random((*pixels[:-2], width))
    middle = np.abs(np.fft.fftfreq(width) * width + 0.25)  # one order of the two of each size
    order[..., np.argsort(middle)[:centre]] = -1
    ranks = np.argsort(np.argsort(order, axis=-1), axis=-1)
    known = np.broadcast_to((ranks < total)[..., None, :], pixels)
    return all_channels(known, shape)


def radial_mask(shape, spokes, angle=0.0):
    """A mask in which frequencies along lines through the lowest one are measured.

    Args:
        shape: As for `cartesian_mask`; all images have the same lines.
        spokes: Number of lines; their directions are equally spaced.
        angle: Direction of the first one in degrees, anticlockwise from the horizontal.

    Returns:
        As for `cartesian_mask`.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> mask = deq_keras.operators.radial_mask((64, 48), spokes=16)
    """
    shape = mask_shape(shape)
    pixels = _pixels(shape)
    height, width = pixels[-2:]
    angles = np.deg2rad(angle) + np.pi * np.arange(positive_int("spokes", spokes)) / spokes
    radius = np.arange(-height - width, height + width + 1) / 2  # in steps of half a pixel
    rows = np.rint(-radius[:, None] * np.sin(angles)).astype(int)
    columns = np.rint(radius[:, None] * np.cos(angles)).astype(int)
    inside = (-(height // 2) <= rows) & (rows < (height + 1) // 2)
    inside &= (-(width // 2) <= columns) & (columns < (width + 1) // 2)
    known = np.zeros((height, width), bool)
    known[rows[inside], columns[inside]] = True  # negative ones count from the end
    return all_channels(np.broadcast_to(known, pixels), shape)


def _pixels(shape):
    return shape[:2] if len(shape) < 4 else shape[:3]

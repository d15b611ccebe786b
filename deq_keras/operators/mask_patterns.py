"""Masks as NumPy arrays: pixels that are known or missing."""

import numpy as np


def random_mask(shape, keep, seed=0):
    """A mask in which each pixel is known with probability `keep`, independently.

    Args:
        shape: `(height, width)`, `(height, width, channels)` or `(batch, height, width, channels)`.
            The channels of a pixel are known or missing together.
        keep: Probability in [0, 1].
        seed: Integer; the mask is a function of it and the other arguments.

    Returns:
        A float32 array of zeros and ones.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> mask = deq_keras.operators.random_mask((64, 48), keep=0.3, seed=1)
    """
    shape = mask_shape(shape)
    keep = check_fraction("keep", keep)
    pixels = shape[:2] if len(shape) < 4 else shape[:3]
    known = np.random.default_rng(seed).random(pixels) < keep
    return all_channels(known, shape)


def centre_mask(shape, fraction=0.5):
    """A mask in which a block in the centre is missing.

    Args:
        shape: As for `random_mask`.
        fraction: Height and width of the block in parts of the image's, in [0, 1].

    Returns:
        A float32 array of zeros and ones.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> mask = deq_keras.operators.centre_mask((64, 48), fraction=0.25)
    """
    shape = mask_shape(shape)
    fraction = check_fraction("fraction", fraction)
    known = np.ones(shape[:2] if len(shape) < 4 else shape[:3], bool)
    height, width = known.shape[-2:]
    rows, columns = round(fraction * height), round(fraction * width)
    top, left = (height - rows) // 2, (width - columns) // 2
    known[..., top : top + rows, left : left + columns] = False
    return all_channels(known, shape)


def band_mask(shape, fraction=0.25, position=0.5):
    """A mask in which a horizontal band is missing.

    Args:
        shape: As for `random_mask`.
        fraction: Height of the band in parts of the image's, in [0, 1].
        position: Where the band lies: from 0, at the top, to 1, at the bottom.

    Returns:
        A float32 array of zeros and ones.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> mask = deq_keras.operators.band_mask((64, 48), fraction=0.25, position=0.5)
    """
    shape = mask_shape(shape)
    fraction, position = check_fraction("fraction", fraction), check_fraction("position", position)
    known = np.ones(shape[:2] if len(shape) < 4 else shape[:3], bool)
    height = known.shape[-2]
    rows = round(fraction * height)
    top = round(position * (height - rows))
    known[..., top : top + rows, :] = False
    return all_channels(known, shape)


def mask_shape(shape):
    """The shape as a tuple of two to four positive integers, else a `ValueError`."""
    shape = tuple(int(n) for n in shape)
    if len(shape) not in (2, 3, 4) or min(shape) < 1:
        raise ValueError(
            "Expected `shape` to be (height, width), (height, width, channels) or (batch, height, "
            f"width, channels), of positive integers. Received {shape}."
        )
    return shape


def check_fraction(name, value):
    """`value` as a float if it is in [0, 1], else a `ValueError`."""
    if not 0 <= value <= 1:
        raise ValueError(f"Expected `{name}` to be in [0, 1]. Received {name}={value!r}.")
    return float(value)


def all_channels(known, shape):
    """A float32 mask of a shape from what is known of each pixel."""
    known = known if known.ndim == len(shape) else known[..., None]
    return np.array(np.broadcast_to(known, shape), np.float32)

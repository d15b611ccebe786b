"""Overlapping tiles of a large image, and the weights with which they are blended.

A model treats the border of a tile as the border of an image: it mirrors or repeats what lies
there, where the whole image goes on. So near a border between tiles the answer is wrong, and the
error decays over the support of the blur and the receptive field of the prior. Two neighbours
share `overlap` pixels. Each is ignored in the outer quarter of these, where it is worst; over the
half in the middle the weight goes from one to the other along a raised cosine, so that no edge is
drawn. Choose an overlap of at least four times the farthest distance over which a pixel matters in
one step of the model: the half-width of the blur plus that of the prior's filters (both of them,
for a gradient step). The default of 32 fits 9 × 9 filters; a wide blur needs more. Where noise is
weak and the prior strong, information travels over many steps: compare two overlaps if in doubt.
"""

import math
from typing import NamedTuple

import numpy as np

from trainers.process.errors import ConfigurationError


class Span(NamedTuple):
    """A tile along one axis: its pixels, and the weight of each."""

    start: int
    stop: int
    weights: np.ndarray


def check(tile, overlap):
    """Raises a `ConfigurationError` unless tiles of this side can overlap by so much.

    Args:
        tile: The longest side of a tile in pixels; 0: no tiles.
        overlap: The pixels that neighbours share.
    """
    if tile < 0 or overlap < 0 or (tile and 3 * overlap + 8 > tile):
        raise ConfigurationError(
            "Expected --tile=0 (whole images), or at least 3 times --overlap plus 8, so "
            f"that no more than two tiles share a pixel. Received: {tile} and {overlap}."
        )


def spans(size, tile, overlap):
    """The tiles along an axis, all of one size, at most `tile`, as few as there can be.

    Args:
        size: Pixels of the axis.
        tile: The most pixels of a tile; 0: the axis in one piece.
        overlap: The least number of pixels that neighbours share.

    Returns:
        A list of `Span`. The weights of all spans add up to 1 at each pixel.

    Example:

    >>> [(span.start, span.stop) for span in spans(100, tile=40, overlap=10)]
    [(0, 40), (30, 70), (60, 100)]
    """
    if not tile or size <= tile:
        return [Span(0, size, np.ones(size, np.float32))]
    count = math.ceil((size - overlap) / (tile - overlap))
    side = math.ceil((size + (count - 1) * overlap) / count)
    starts = [round(i * (size - side) / (count - 1)) for i in range(count)]
    found = []
    for number, start in enumerate(starts):
        weights = np.ones(side, np.float32)
        if number > 0:
            shared = starts[number - 1] + side - start
            weights[:shared] = rise(shared)
        if number + 1 < count:
            shared = start + side - starts[number + 1]
            weights[side - shared :] = 1 - rise(shared)
        found.append(Span(start, start + side, weights))
    return found


def rise(length):
    """Weights from 0 to 1 along an overlap; those of its mirror image are 1 minus these.

    Example:

    >>> rise(8).round(2).tolist()
    [0.0, 0.0, 0.04, 0.31, 0.69, 0.96, 1.0, 1.0]
    """
    position = (np.arange(length) + 0.5) / max(length, 1)
    phase = np.clip(2 * position - 0.5, 0, 1)
    return ((1 - np.cos(np.pi * phase)) / 2).astype(np.float32)

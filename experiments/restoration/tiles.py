"""Overlapping tiles of a large image, and the weights with which they are blended.

A model treats the border of a tile as the border of an image: it mirrors, wraps or ends what lies
there, where the whole image goes on. So a reconstruction is wrong near the border of its tile, and
the error decays with the distance. Two neighbours share `overlap` pixels. Each is ignored in the
outer quarter of these, where it is worst; over the half in the middle the weight goes from one to
the other along a raised cosine, so that no edge is drawn.

How far an error reaches depends on the prior's receptive field (the side of a filter of fields of
experts; that of a denoiser) and on how strong it is. Choose an overlap of six times that field, and
more where the weight of the prior is large. With 5 x 5 filters, denoising noise of a standard
deviation of 0.1, tiles differ from the whole by at most 8e-3 at an overlap of 8, 1e-3 at 16 and
3e-5 at the default of 32; with five times the weight by 6e-4 at 32. For a blur add twice its width;
weakly regularised deblurring amplifies what is wrong at a border, and a blur with circular
boundaries wraps each tile onto itself, also at the outer border of the image, where no overlap
helps: there use --tile=0.
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

    >>> from experiments.restoration.tiles import spans
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

    >>> from experiments.restoration.tiles import rise
    >>> (100 * rise(8)).round().astype(int).tolist()
    [0, 0, 4, 31, 69, 96, 100, 100]
    """
    position = (np.arange(length) + 0.5) / max(length, 1)
    phase = np.clip(2 * position - 0.5, 0, 1)
    return ((1 - np.cos(np.pi * phase)) / 2).astype(np.float32)

"""One image or measurement through a model: whole, or in tiles that are blended."""

from typing import NamedTuple

import numpy as np

from experiments.restoration import tiles
from experiments.restoration.errors import Refused, TooLarge

_SMALLEST = 64  # a tile that a server does not take is halved down to about this side


class Settings(NamedTuple):
    """What the model is asked, and how.

    Attributes:
        tile: The longest side of a tile in pixels; 0: whole images.
        overlap: The least number of pixels that neighbouring tiles share.
        tolerance: The residual to reach; 0 or less: the model's own.
        max_steps: The most steps; 0 or less: the model's own.
    """

    tile: int = 512
    overlap: int = 32
    tolerance: float = 0.0
    max_steps: int = 0


class Restored(NamedTuple):
    """A reconstruction, and the worst of what its tiles and channels say of themselves."""

    reconstruction: np.ndarray  # (batch, height, width, channels)
    tiles: int
    steps: int
    residual: float
    converged: bool
    error_bound: float
    certified: bool


def restore(model, measurement, data, settings, progress=lambda done, total: None):
    """The reconstruction of an image, of whatever size.

    An image that is larger than a tile is cut into overlapping ones, which are asked for one after
    the other, so that neither the model nor a server ever holds more than one. What the operator
    needs is cut along if it has the height and width of the measurement (a mask), and given as it
    is if it has not (a kernel). Fourier coefficients, which are no image, are never cut.

    Args:
        model: A `Model`.
        measurement: `(batch, height, width, channels)`; the channels of one image may be a batch.
        data: A dict from `data`, `data_1`... to arrays with the same batch.
        settings: `Settings`. Where a tile is too large for the server it is halved, down to a side
            of 64 pixels, and so is the overlap if need be.
        progress: Called with the number of finished tiles and of all.

    Returns:
        `Restored`.

    Raises:
        Refused: The model does not take this image, or its answers do not fit together.
        Unavailable: The server is not there.
    """
    tile, overlap = settings.tile, settings.overlap
    if model.is_complex or measurement.ndim != 4:
        tile = 0
    while True:
        try:
            return _in_tiles(model, measurement, data, settings, tile, overlap, progress)
        except TooLarge:
            side = min(tile or np.inf, max(measurement.shape[1:3]))
            if model.is_complex or measurement.ndim != 4 or side <= _SMALLEST:
                raise
            tile = max(_SMALLEST, int(side) // 2)
            overlap = min(overlap, tile // 4)


def _in_tiles(model, measurement, data, settings, tile, overlap, progress):
    height, width = measurement.shape[1:3] if measurement.ndim == 4 else (1, 1)
    rows, columns = (tiles.spans(size, tile, overlap) for size in (height, width))
    total, done, answers = len(rows) * len(columns), 0, []
    result = factors = None
    for row in rows:
        for column in columns:
            answer = model.diagnose(
                _cut(measurement, row, column, (height, width)),
                {name: _cut(array, row, column, (height, width)) for name, array in data.items()},
                settings.tolerance,
                settings.max_steps,
            )
            part = answer.reconstruction
            if total == 1:
                result = part
            else:
                if result is None:
                    factors = _factors(part, row, column)
                    shape = (height * factors[0], width * factors[1])
                    result = np.zeros((len(part), *shape, part.shape[-1]), np.float32)
                _add(result, part, row, column, factors)
            answers.append(answer._replace(reconstruction=None))
            done += 1
            progress(done, total)
    return Restored(
        reconstruction=result,
        tiles=total,
        steps=int(max(np.max(a.steps) for a in answers)),
        residual=float(max(np.max(a.residual) for a in answers)),
        converged=all(np.all(a.converged) for a in answers),
        error_bound=float(max(np.max(a.error_bound) for a in answers)),
        certified=all(np.all(a.certified) for a in answers),
    )


def _cut(array, row, column, size):
    if array.ndim < 3 or array.shape[1:3] != size:
        return array
    return array[:, row.start : row.stop, column.start : column.stop]


def _factors(part, row, column):
    """By how much a reconstruction is larger than its measurement, along each axis."""
    sides = (row.stop - row.start, column.stop - column.start)
    factors = tuple(got // given for got, given in zip(part.shape[1:3], sides, strict=True))
    expected = tuple(f * side for f, side in zip(factors, sides, strict=True))
    if part.ndim != 4 or 0 in factors or part.shape[1:3] != expected:
        raise Refused(
            f"Expected reconstructions of tiles {sides[0]} x {sides[1]} to be a whole number of "
            f"times as large. Received: {part.shape[1:3]}. Restore it whole, with --tile=0."
        )
    return factors


def _add(result, part, row, column, factors):
    """Adds a tile, with its weights, to the result."""
    weights = [np.repeat(span.weights, f) for span, f in zip((row, column), factors, strict=True)]
    top, left = row.start * factors[0], column.start * factors[1]
    place = result[:, top : top + len(weights[0]), left : left + len(weights[1])]
    if place.shape != part.shape:
        raise Refused(f"Expected tiles of one size. Received: {part.shape} and {place.shape}.")
    place += part * weights[0][:, None, None] * weights[1][:, None]

"""Arrays as pictures: for the eye, as errors, side by side, the detail that shows most, filters.

Nothing here draws: these are functions of NumPy arrays, which reports and TensorBoard use too.
"""

import numpy as np


def as_picture(array):
    """A picture as float64 `(height, width, 1 or 3)` for the eye: on [0, 1], without NaN.

    Args:
        array: `(height, width)` or `(height, width, channels)`. Of other numbers of channels than
            1 and 3 the mean is taken.

    Raises:
        ValueError: If it has another number of axes, or no pixels.

    Example:

    >>> deq_keras.plot.pictures.as_picture([[2.0, float("nan")]]).tolist()
    [[[1.0], [0.0]]]
    """
    array = np.asarray(array, dtype=np.float64)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            "Expected each picture as (height, width) or (height, width, channels), none of them "
            f"0. Received the shape {array.shape}: remove the batch axis."
        )
    array = np.nan_to_num(array, nan=0.0, posinf=1.0, neginf=0.0)
    if array.shape[-1] not in (1, 3):
        array = array.mean(axis=-1, keepdims=True)
    return np.clip(array, 0.0, 1.0)


def error(estimate, truth):
    """`|estimate - truth|`, averaged over the channels: `(height, width)`.

    Args:
        estimate: A picture, as for `as_picture`.
        truth: One of the same shape.

    Example:

    >>> deq_keras.plot.pictures.error([[0.5, 1.0]], [[0.25, 1.0]]).tolist()
    [[0.25, 0.0]]
    """
    return np.abs(as_picture(estimate) - as_picture(truth)).mean(axis=-1)


def side_by_side(pictures):
    """Pictures of any sizes in a row, float32 on [0, 1], black below the shorter ones.

    Args:
        pictures: Arrays `(height, width, channels)`.

    Example:

    >>> deq_keras.plot.pictures.side_by_side([np.ones((2, 3, 1)), np.ones((4, 2, 3))]).shape
    (4, 5, 3)
    """
    pictures = [as_picture(picture).astype(np.float32) for picture in pictures]
    height = max(picture.shape[0] for picture in pictures)
    channels = max(picture.shape[-1] for picture in pictures)
    columns = [np.pad(p, [(0, height - p.shape[0]), (0, 0), (0, 0)]) for p in pictures]
    wide = [np.broadcast_to(c, (*c.shape[:2], channels)) for c in columns]
    return np.concatenate(wide, axis=1)


def choose_detail(truth, estimates):
    """The square that shows most: where the estimates differ and the truth has structure.

    Args:
        truth: A picture `(height, width, channels)`.
        estimates: Pictures of the same shape. May be empty: then structure alone decides.

    Returns:
        `(top, left, side)` in pixels, the same for the same pictures.

    Example:

    >>> deq_keras.plot.pictures.choose_detail(np.ones((64, 96, 1)), [])
    (4, 6, 24)
    """
    height, width = truth.shape[:2]
    side = min(height, width, max(24, min(64, min(height, width) // 4)))
    structure = np.hypot(*np.gradient(truth.mean(axis=-1))) if side > 1 else np.zeros((1, 1))
    if len(estimates) > 1:
        spread = np.std(np.stack(estimates), axis=0).mean(axis=-1)
    else:
        spread = np.zeros((height, width))
    score = 1.0
    for values in (spread, structure):
        total = np.pad(values, ((1, 0), (1, 0))).cumsum(0).cumsum(1)
        window = (
            total[side:, side:]
            - total[:-side, side:]
            - total[side:, :-side]
            + total[:-side, :-side]
        )
        # The constant lets one of the two decide where the other is zero everywhere.
        score = score * (0.05 + window / max(window.max(), 1e-12))
    # Not at the border, where estimates differ for reasons of their own.
    room = [
        min(size // 16, (n - 1) // 2) for size, n in zip((height, width), score.shape, strict=True)
    ]
    inner = score[room[0] : score.shape[0] - room[0], room[1] : score.shape[1] - room[1]]
    top, left = np.unravel_index(np.argmax(inner), inner.shape)
    return int(top + room[0]), int(left + room[1]), side


def filter_norms(kernel):
    """The Euclidean norm of each filter of a kernel `(height, width, channels, filters)`.

    Example:

    >>> deq_keras.plot.pictures.filter_norms(np.ones((2, 2, 1, 3))).tolist()
    [2.0, 2.0, 2.0]
    """
    return np.sqrt((np.nan_to_num(np.asarray(kernel, np.float64)) ** 2).sum(axis=(0, 1, 2)))


def filter_tiles(kernel, order=None, columns=None, limit=None):
    """The filters of a kernel as tiles of one picture on [-1, 1], with NaN between them.

    Args:
        kernel: `(height, width, channels, filters)`. Other numbers of channels than three are
            averaged.
        order: Which filters, in the order of the tiles; all in their own order by default.
        columns: How many tiles in a row; by default the picture is about square.
        limit: The end of the scale of all filters; `None` for a scale of each filter's own.

    Returns:
        Array `(rows, columns, 1 or 3)`; zero is a coefficient of zero.

    Example:

    >>> deq_keras.plot.pictures.filter_tiles(np.ones((5, 5, 1, 6))).shape
    (11, 17, 1)
    """
    kernel = np.nan_to_num(np.asarray(kernel, np.float64))
    if kernel.shape[2] != 3:
        kernel = kernel.mean(axis=2, keepdims=True)
    height, width, channels, count = kernel.shape
    order = range(count) if order is None else order
    columns = int(np.ceil(np.sqrt(len(order)))) if columns is None else columns
    rows = -(-len(order) // columns)
    grid = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1, channels), np.nan)
    for place, index in enumerate(order):
        tile = kernel[..., index]
        end = max(np.abs(tile).max() if limit is None else limit, 1e-12)
        top, left = place // columns * (height + 1), place % columns * (width + 1)
        grid[top : top + height, left : left + width] = np.clip(tile / end, -1.0, 1.0)
    return grid

"""Arrays as small image files inside the page: photographs, details, error maps, filters."""

import base64
import io

import matplotlib
import numpy as np
from PIL import Image

ERROR_COLOURS = "magma"
FILTER_COLOURS = "RdBu_r"
# What the whole pictures and error maps may take, in bytes before base64 adds a third.
BUDGET = 3_400_000
# Tried in order until they fit: the longer side in pixels, and the quality of a JPEG or None for
# a PNG, which loses nothing.
LADDER = ((None, None), (None, 92), (384, 90), (288, 90), (224, 90), (176, 90), (128, 90))


def as_image(array):
    """A picture as float64 `(height, width, 1 or 3)` for the eye: on [0, 1], without NaN."""
    array = np.asarray(array, dtype=np.float64)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(
            "Expected each picture as (height, width) or (height, width, channels), none of them "
            f"0. Received the shape {array.shape}: remove the batch axis."
        )
    if array.shape[-1] not in (1, 3):
        array = np.nanmean(array, axis=-1, keepdims=True)
    return np.clip(np.nan_to_num(array, nan=0.0, posinf=1.0, neginf=0.0), 0.0, 1.0)


def error(estimate, truth):
    """|estimate − truth|, averaged over the channels: `(height, width)`."""
    return np.abs(as_image(estimate) - as_image(truth)).mean(axis=-1)


def shrink(array, side):
    """`array` of two or three axes with its longer side at most `side`, by averaging areas."""
    height, width = array.shape[:2]
    if side is None or max(height, width) <= side:
        return array
    size = (max(1, round(width * side / max(height, width))),) + (
        max(1, round(height * side / max(height, width))),
    )
    channels = array.reshape(height, width, -1)
    small = [
        Image.fromarray(np.ascontiguousarray(channels[..., c], dtype=np.float32)).resize(
            size, Image.Resampling.BOX
        )
        for c in range(channels.shape[-1])
    ]
    return np.stack([np.asarray(s) for s in small], -1).reshape(size[::-1] + array.shape[2:])


def coloured(array, limit, name=ERROR_COLOURS):
    """The bytes of `(height, width)` on [0, limit] in a colour map: `(height, width, 3)`."""
    levels = matplotlib.colormaps[name](np.clip(array / limit, 0.0, 1.0), bytes=True)
    return levels[..., :3]


def gradient(name=ERROR_COLOURS, stops=9):
    """A colour map as the stops of a CSS gradient."""
    colours = matplotlib.colormaps[name](np.linspace(0.0, 1.0, stops))
    return ", ".join(matplotlib.colors.to_hex(c) for c in colours)


def file_bytes(pixels, quality=None):
    """`pixels` on [0, 1], or bytes, as a PNG file, or as a JPEG file of that quality."""
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8:
        pixels = np.rint(255 * pixels).astype(np.uint8)
    if pixels.ndim == 3 and pixels.shape[-1] == 1:
        pixels = pixels[..., 0]
    buffer = io.BytesIO()
    if quality is None:
        Image.fromarray(pixels).save(buffer, "PNG")
    else:  # without chroma subsampling: detail in colour is part of what is compared
        Image.fromarray(pixels).save(buffer, "JPEG", quality=quality, subsampling=0)
    return buffer.getvalue()


def uri(content):
    """An image file as a data URI."""
    kind = "png" if content.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def fitting(photographs, maps, budget=BUDGET):
    """Files of whole pictures that together stay within a budget.

    Args:
        photographs: pictures `(height, width, channels)` on [0, 1].
        maps: pairs of an error map `(height, width)` and the limit of its colours.
        budget: bytes.

    Returns:
        The files of the photographs, those of the maps, and the rung of `LADDER` they are on:
        lossless if that fits, JPEG if not, and reduced only if that does not fit either.
    """
    for rung, (side, quality) in enumerate(LADDER):
        limit = budget if rung + 1 < len(LADDER) else float("inf")
        files, spent = [], 0
        for picture in [*photographs, *maps]:
            pixels = (
                coloured(shrink(picture[0], side), picture[1])
                if isinstance(picture, tuple)
                else shrink(picture, side)
            )
            files.append(file_bytes(pixels, quality))
            spent += len(files[-1])
            if spent > limit:
                break
        if spent <= limit:
            return files[: len(photographs)], files[len(photographs) :], LADDER[rung]


def choose_detail(truth, estimates):
    """The square that shows most: where the estimates differ and the truth has structure.

    Args:
        truth: a picture `(height, width, channels)`.
        estimates: pictures of the same shape. May be empty: then structure alone decides.

    Returns:
        `(top, left, side)` in pixels, the same for the same pictures.
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
    """The Euclidean norm of each filter of a kernel `(height, width, channels, filters)`."""
    return np.sqrt((np.nan_to_num(np.asarray(kernel, np.float64)) ** 2).sum(axis=(0, 1, 2)))


def filter_grid(kernel, order, columns, limit=None, colours=FILTER_COLOURS):
    """The filters of a kernel as tiles, on symmetric scales.

    Args:
        kernel: `(height, width, channels, filters)`. Three channels are shown as colours about
            grey, others as their mean in a diverging colour map.
        order: which filters, in the order of the tiles.
        columns: how many tiles in a row.
        limit: the end of the scale of all filters; None for a scale of each filter's own.
        colours: the diverging colour map.

    Returns:
        The bytes of an RGBA picture, transparent between the tiles.
    """
    kernel = np.nan_to_num(np.asarray(kernel, np.float64))
    height, width, channels, _ = kernel.shape
    rows = -(-len(order) // columns)
    grid = np.zeros((rows * (height + 1) - 1, columns * (width + 1) - 1, 4), np.uint8)
    for place, index in enumerate(order):
        tile = kernel[..., index]
        if channels != 3:
            tile = tile.mean(axis=-1)
        end = max(np.abs(tile).max() if limit is None else limit, 1e-12)
        tile = np.clip(0.5 + 0.5 * tile / end, 0.0, 1.0)
        if channels != 3:
            tile = matplotlib.colormaps[colours](tile)[..., :3]
        top, left = place // columns * (height + 1), place % columns * (width + 1)
        cell = grid[top : top + height, left : left + width]
        cell[..., :3] = np.rint(255 * tile)
        cell[..., 3] = 255
    return grid

"""Arrays as small image files inside the page: photographs, details, error maps, filters."""

import base64
import io

import matplotlib
import numpy as np
from PIL import Image

from deq_keras.plot import pictures

ERROR_COLOURS = "magma"
FILTER_COLOURS = "RdBu_r"
# What the whole pictures and error maps may take, in bytes before base64 adds a third.
BUDGET = 3_400_000
# Tried in order until they fit: the longer side in pixels, and the quality of a JPEG or None for
# a PNG, which loses nothing.
LADDER = ((None, None), (None, 92), (384, 90), (288, 90), (224, 90), (176, 90), (128, 90))


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
        for shown in [*photographs, *maps]:
            pixels = (
                coloured(shrink(shown[0], side), shown[1])
                if isinstance(shown, tuple)
                else shrink(shown, side)
            )
            files.append(file_bytes(pixels, quality))
            spent += len(files[-1])
            if spent > limit:
                break
        if spent <= limit:
            return files[: len(photographs)], files[len(photographs) :], LADDER[rung]


def filter_grid(kernel, order, columns, limit=None, colours=FILTER_COLOURS):
    """The filters of a kernel as coloured tiles, on symmetric scales.

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
    tiles = pictures.filter_tiles(kernel, order, columns, limit)
    shown = 0.5 + 0.5 * np.nan_to_num(tiles)
    if tiles.shape[-1] != 3:
        shown = matplotlib.colormaps[colours](shown[..., 0])[..., :3]
    alpha = 255 * ~np.isnan(tiles[..., :1])
    grid = np.concatenate([np.rint(255 * shown), alpha], axis=-1)
    return np.where(alpha > 0, grid, 0).astype(np.uint8)

"""Picture files as arrays on [0, 1], and back with their depth, transparency, colours and camera.

PNG, TIFF and JPEG by libvips: Pillow has no 16-bit colour.
"""

import functools
import logging
import os
from typing import NamedTuple

import numpy as np
import pyvips

from experiments.restoration.errors import Refused

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as in YCbCr
_DEPTHS = {"uchar": 8, "ushort": 16}
_SPACES = ("b-w", "srgb", "rgb", "grey16", "rgb16", "multiband")
# libvips would make up EXIF where there was none.
_KEPT = {True: "all", False: "xmp:iptc:icc:other"}
_CARRIED = ("icc-profile-data", "xmp-data", "iptc-data")
_LOADERS = ("VipsForeignLoadPng", "VipsForeignLoadTiff", "VipsForeignLoadJpeg")
_OPTIONS = {".png": {}, ".tif": {"compression": "deflate"}, ".tiff": {"compression": "deflate"}}


class Picture(NamedTuple):
    """A picture, upright.

    Attributes:
        planes: `(height, width, 1 or 3)` float32 on [0, 1], as stored: not linearised, not
            multiplied by the transparency.
        alpha: `(height, width)` of integers, or None.
        depth: Bits of a value, 8 or 16.
        header: What else there is in the file, a `pyvips.Image`.
    """

    planes: np.ndarray
    alpha: np.ndarray | None
    depth: int
    header: pyvips.Image


def read(path, max_pixels):
    """Reads a PNG, TIFF or JPEG file; palettes and 1, 2 or 4 bits become 8 bits.

    The camera's orientation is applied.

    Args:
        path: The file.
        max_pixels: Its size is read first, and nothing is decoded if it has more than this.

    Returns:
        A `Picture`.

    Raises:
        Refused: It is no such file, is cut short or damaged, has too many pixels, or is neither
            grey nor RGB of 8 or 16 bits; it has several pages.
    """
    _only_known_formats()
    try:
        # The name of a file may hold what libvips takes for options; a source has no name.
        source = pyvips.Source.new_from_file(os.fspath(path))
        image = pyvips.Image.new_from_source(source, "", fail_on="error")
        if image.height * image.width > max_pixels:
            raise Refused(
                f"Expected at most {max_pixels} pixels (--max_pixels). Received: "
                f"{image.height} x {image.width}."
            )
        pages = image.get("n-pages") if "n-pages" in image.get_fields() else 1
        if pages > 1:
            raise Refused(f"Expected one image in a file. Received: {pages} pages. Split it first.")
        colours = image.bands - image.hasalpha()
        depth = _DEPTHS.get(image.format)
        if depth is None or colours not in (1, 3) or image.interpretation not in _SPACES:
            raise Refused(
                "Expected a grey or RGB image of 8 or 16 bits. Received: "
                f"{colours} channels, {image.interpretation}, {image.format}. Convert it first."
            )
        image = image.autorot()
        array = image.numpy().reshape(image.height, image.width, image.bands)
    except pyvips.Error as error:
        raise Refused(f"No image, or damaged or cut short: {_reason(error)}") from None
    planes = array[..., :colours].astype(np.float32) / (2**depth - 1)
    alpha = array[..., colours] if image.hasalpha() else None
    return Picture(planes, alpha, depth, image)


@functools.cache
def _only_known_formats():
    """Whatever a file is named, libvips would try its many other formats, such as SVG, on it."""
    pyvips.operation_block_set("VipsForeignLoad", True)
    for name in _LOADERS:
        pyvips.operation_block_set(name, False)
    logging.getLogger("pyvips").setLevel(logging.ERROR)  # what is worth saying is in the exception


def _reason(error):
    """The lines of an error of libvips, without those that name its functions."""
    lines = [line.strip() for line in str(error).splitlines()]
    return "; ".join(line for line in lines if line and "unable to call" not in line) or "libvips"


def write(path, planes, like):
    """Writes a picture with the depth, transparency and metadata of another.

    Colour profile, EXIF, XMP, IPTC and resolution are carried over; the orientation, which has been
    applied, is left out. Where the new picture is larger, the transparency is enlarged with it.

    Args:
        path: A new file, `*.png`, `*.tif` or `*.tiff`.
        planes: `(height, width, 1 or 3)`; what is outside [0, 1] is clipped.
        like: The `Picture` that it was made from.
    """
    top = 2**like.depth - 1
    kind = np.uint8 if like.depth == 8 else np.uint16
    array = np.rint(np.clip(planes, 0, 1) * top).astype(kind)
    if like.alpha is not None:
        alpha = like.alpha
        if alpha.shape != array.shape[:2]:
            enlarged = resize(alpha[..., None].astype(np.float32) / top, array.shape[:2])
            alpha = np.rint(np.clip(enlarged[..., 0], 0, 1) * top).astype(kind)
        array = np.concatenate([array, alpha[..., None].astype(kind)], axis=-1)
    space = {(1, 8): "b-w", (3, 8): "srgb", (1, 16): "grey16", (3, 16): "rgb16"}
    image = pyvips.Image.new_from_array(array).copy(
        interpretation=space[planes.shape[-1], like.depth],
        xres=like.header.xres,
        yres=like.header.yres,
    )
    has_exif = "exif-data" in like.header.get_fields()
    for field in like.header.get_fields():
        if field in _CARRIED or field.startswith("exif-"):
            image.set_type(like.header.get_typeof(field), field, like.header.get(field))
    if has_exif:  # the block of EXIF still has the one that was applied
        image.set_type(pyvips.GValue.gint_type, "orientation", 1)
    options = _OPTIONS[os.path.splitext(path)[1].lower()]
    try:
        image.write_to_file(os.fspath(path), keep=_KEPT[has_exif], **options)
    except pyvips.Error as error:
        raise OSError(f"Cannot be written: {_reason(error)}") from None


def resize(planes, size):
    """Float planes `(height, width, channels)` at another size, by bicubic interpolation."""
    image = pyvips.Image.new_from_array(np.ascontiguousarray(planes, np.float32))
    image = image.resize(size[1] / image.width, vscale=size[0] / image.height, kernel="cubic")
    return image.numpy().reshape(*size, planes.shape[-1])


def luminance(planes):
    """The luma Y' of BT.601, `(height, width, 1)`, of RGB; grey is left alone."""
    if planes.shape[-1] == 1:
        return planes
    return (planes @ _LUMA)[..., None]


def with_luminance(planes, luma):
    """The colours of `planes` with another luminance, `(height, width, 1)`, maybe a larger one.

    In YCbCr: Cb and Cr are kept, so that R, G and B change by the same amount.
    """
    chroma = planes - luminance(planes)
    if chroma.shape[:2] != luma.shape[:2]:
        chroma = resize(chroma, luma.shape[:2])
    return luma + chroma

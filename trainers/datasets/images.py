"""Images in memory: their decoding and conversion, and the set of a split."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps

SPLITS = ("train", "validation", "test")
_SIXTEEN_BIT = ("I;16", "I;16B", "I;16L", "I;16N")
_WIDE = ("PNG", "PPM")  # formats of at most 16 bits, which may come in Pillow's mode of 32 bits


class UnusablePicture(ValueError):
    """A picture that is sound, but that there is no one way to read as 8 bits."""


class Picture(NamedTuple):
    """A picture of a data set.

    Attributes:
        name: For messages and tables.
        array: uint8, `(height, width, channels)`.
        shrunk_from: `(height, width)` before `max_side` shrank it; `None` if it did not.
    """

    name: str
    array: np.ndarray
    shrunk_from: tuple[int, int] | None = None


def check_channels(channels: int) -> None:
    """Raises a `ValueError` unless `channels` is 1 (grey) or 3 (RGB)."""
    if channels not in (1, 3):
        raise ValueError(
            f"`channels` must be 1 (grey) or 3 (RGB). Received: channels={channels!r}."
        )


def check_max_side(max_side: int | None) -> None:
    """Raises a `ValueError` unless `max_side` is None or a positive integer."""
    if max_side is not None and (not isinstance(max_side, int) or max_side < 1):
        raise ValueError(
            "`max_side` must be None (keep every size) or a positive number of pixels. "
            f"Received: max_side={max_side!r}."
        )


def to_array(image: Image.Image, channels: int, max_side: int | None = None) -> np.ndarray:
    """Converts a Pillow image of any mode.

    Grey is the luma of ITU-R BT.601, `0.299 R + 0.587 G + 0.114 B`. 16-bit grey is scaled by
    255/65535 and rounded (Pillow itself brings 16-bit colour to 8 bits by dropping the low byte),
    floating-point grey on [0, 1] by 255. Transparent pixels are laid over white. The camera's
    orientation tag (EXIF) is applied.

    Args:
        image: the picture.
        channels: 1 or 3.
        max_side: if the longer side has more pixels than this, the picture is shrunk to it with an
            antialiasing (Lanczos) filter, keeping its proportions. Smaller ones are left alone.

    Returns:
        A uint8 array `(height, width, channels)`.

    Raises:
        UnusablePicture: If its values are integers with a sign or of 32 bits, or floating-point
            numbers outside [0, 1]: what is white is not known.
    """
    return to_picture("", image, channels, max_side).array


def to_picture(
    name: str, image: Image.Image, channels: int, max_side: int | None = None
) -> Picture:
    """As `to_array`, with a name, and the size that the picture had."""
    check_channels(channels)
    check_max_side(max_side)
    wide = image.format in _WIDE
    image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode == "I" and not wide:
        image = _eight_bits(np.asarray(image))
    elif image.mode in (*_SIXTEEN_BIT, "I"):
        levels = np.asarray(image).astype(np.int64)
        image = Image.fromarray(np.clip((levels + 128) // 257, 0, 255).astype(np.uint8))
    elif "A" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    image, shrunk_from = image.convert("L" if channels == 1 else "RGB"), None
    if max_side is not None and max(image.size) > max_side:
        shrunk_from = (image.height, image.width)
        scale = max_side / max(image.size)
        size = tuple(max(1, round(side * scale)) for side in image.size)
        image = image.resize(size, Image.Resampling.LANCZOS)
    array = np.array(image, np.uint8).reshape(image.height, image.width, channels)
    return Picture(name, array, shrunk_from)


def _eight_bits(values):
    """A grey image of 8 bits from one of 32."""
    integers = values.dtype.kind != "f"
    kind = "integers with a sign or of 32 bits" if integers else "floating-point numbers"
    least, most = values.min(), values.max()
    # Within half a level of [0, 1]; not a number is nowhere.
    if integers or not -0.5 <= 255.0 * least <= 255.0 * most <= 255.5:
        raise UnusablePicture(
            f"holds {kind} from {least:g} to {most:g}, of which it is not known what is white; "
            "make it one of 8 or 16 bits without a sign, or of floating-point numbers on [0, 1]"
        )
    return Image.fromarray(np.clip(np.rint(255.0 * values), 0, 255).astype(np.uint8))


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """The images of one split, in memory.

    Args:
        names: a name for each, for messages and tables.
        images: uint8 arrays `(height, width, channels)`, all of the same number of channels.
        shrunk_from: of each the size before it was shrunk, see `Picture`; None if none was.

    Raises:
        ValueError: no image, not a name for each, or an array of another kind.
    """

    names: tuple[str, ...]
    images: tuple[np.ndarray, ...]
    shrunk_from: tuple[tuple[int, int] | None, ...] | None = None

    def __post_init__(self):
        if not self.images or len(self.names) != len(self.images):
            raise ValueError(
                "Expected at least one image and a name for each. "
                f"Received: {len(self.images)} images and {len(self.names)} names."
            )
        for name, image in zip(self.names, self.images, strict=True):
            kind = (getattr(image, "dtype", type(image)), getattr(image, "shape", ()))
            if kind[0] != np.uint8 or len(kind[1]) != 3 or 0 in kind[1]:
                raise ValueError(
                    "Expected uint8 arrays (height, width, channels), none empty. "
                    f"Received: {name!r} with dtype {kind[0]} and shape {kind[1]}."
                )
            if image.shape[-1] != self.channels:
                raise ValueError(
                    f"All images must have the same number of channels: {self.names[0]!r} has "
                    f"{self.channels}, {name!r} has {image.shape[-1]}."
                )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def channels(self) -> int:
        """1 for grey, 3 for RGB."""
        return self.images[0].shape[-1]

    def size(self, number: int) -> str:
        """The size of an image in words, with that which it had before it was shrunk.

        Example:

        >>> images = ImageSet(("a",), (np.zeros((15, 256, 1), np.uint8),), ((240, 4096),))
        >>> images.size(0)
        '15 x 256, 240 x 4096 before `max_side` shrank it'
        """
        words = "{} x {}".format(*self.images[number].shape)
        before = self.shrunk_from and self.shrunk_from[number]
        return (
            f"{words}, {before[0]} x {before[1]} before `max_side` shrank it" if before else words
        )

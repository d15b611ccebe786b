"""A person's own folder of pictures.

Every file is decoded and checked before anything is returned, so that a corrupt picture stops a
run in its first seconds and not in its third hour.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import warnings
from collections.abc import Iterable

from PIL import Image

from trainers.datasets import alike, splits
from trainers.datasets.images import (
    Picture,
    UnusablePicture,
    check_channels,
    check_max_side,
    to_picture,
)
from trainers.process.files import files_below, printable

ENDINGS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp")
ENDINGS += (".pgm", ".ppm", ".pbm", ".pnm")
# Pictures of formats that are not read; whoever has some is told so.
OTHER_ENDINGS = tuple(
    ".gif .heic .heif .avif .jxl .jp2 .j2k .svg .psd .xcf .exr .hdr .pfm .tga .pcx .ico .dng .cr2"
    " .cr3 .nef .arw .orf .rw2 .raf .raw .dcm .nii .fits .npy .npz".split()
)
MAX_PIXELS = 178_956_970  # what Pillow takes for an attack
_SHOWN = 5  # unusable pictures that an error names


class DataWarning(UserWarning):
    """Something about a folder of pictures that its owner may not know."""


def _existing(data_dir: str | os.PathLike) -> pathlib.Path:
    folder = pathlib.Path(data_dir).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ValueError(
            f"`data_dir` must be a folder of pictures. Received: data_dir={str(data_dir)!r}, "
            f"which {what}."
        )
    return folder


def _names(data_dir) -> list[str]:
    """The pictures in a folder; a warning says which pictures are passed over."""
    found = files_below(_existing(data_dir), (*ENDINGS, *OTHER_ENDINGS))
    ending_of = {name: os.path.splitext(name)[1].lower() for name in found}
    names = [name for name in found if ending_of[name] in ENDINGS]
    counts = collections.Counter(ending_of[name] for name in found if name not in set(names))
    first = {ending_of[name]: printable(name) for name in reversed(found)}
    others = ", ".join(f"{n} {ending} ({first[ending]})" for ending, n in counts.most_common())
    if not names:
        raise ValueError(
            f"No picture found in data_dir={str(data_dir)!r}: looked there and in the folders "
            f"below it for files ending in {', '.join(ENDINGS)} (in any case)."
            + (f" Of other formats there are {others}: convert them first." if others else "")
        )
    if others:
        warnings.warn(
            f"Passed over in data_dir={str(data_dir)!r} are pictures of formats that are not read: "
            f"{others}. The {len(names)} others are taken. Convert those that should be used too.",
            DataWarning,
            stacklevel=1,
        )
    return names


@contextlib.contextmanager
def _opened(path, max_pixels):
    """A picture, of which no pixel has been read yet."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None  # ours has a name that is ours
    try:
        with Image.open(path) as image:
            pixels = image.width * image.height
            if pixels > max_pixels:
                raise UnusablePicture(
                    f"has {image.height} x {image.width} pixels, more than the {max_pixels} that "
                    "are allowed, lest a small file fill the memory. If it is sound, raise "
                    f"`max_pixels` to {pixels} (--config.data.max_pixels of a training, "
                    "--max_image_pixels of an evaluation)"
                )
            frames = getattr(image, "n_frames", 1)
            if frames > 1 and image.format != "MPO":  # a camera's, whose others are for 3D
                raise UnusablePicture(f"holds {frames} pictures: store each in a file of its own")
            yield image
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def read_folder(
    data_dir: str | os.PathLike,
    channels: int = 1,
    *,
    min_side: int = 1,
    max_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
    names: Iterable[str] | None = None,
) -> list[Picture]:
    """Reads every picture in a folder and the folders below it.

    Endings are `ENDINGS` in any case; names that begin with a dot and the folders of thumbnails
    that machines make are passed over, and pictures of other formats with a `DataWarning`. Grey,
    colour, palette, transparent, 16-bit and floating-point pictures are all brought to 8 bits and
    the channels asked for, see `trainers.datasets.images.to_array`. In a name that is not UTF-8 the
    bytes that are not are escaped.

    Args:
        data_dir: the folder.
        channels: 1 for grey (ITU-R BT.601 luma), 3 for RGB.
        min_side: the fewest pixels a side may have, for instance the patch size of the training.
        max_side: shrink larger pictures to this longer side, None to keep every size.
        max_pixels: a picture of more pixels than this is refused before it is decoded.
        names: read these only, see `named_splits`; None for all.

    Returns:
        A list of `Picture` (path relative to the folder, uint8 array `(height, width, channels)`,
        size before it was shrunk), sorted by path.

    Raises:
        ValueError: the folder is missing or holds no picture, or some pictures cannot be decoded
            or are too small or too large: the message names them.
    """
    check_channels(channels)
    check_max_side(max_side)
    if not isinstance(max_pixels, int) or max_pixels < 1:
        raise ValueError(
            f"`max_pixels` must be a positive integer. Received: max_pixels={max_pixels!r}."
        )
    folder = _existing(data_dir)
    names = _names(data_dir) if names is None else list(names)
    pictures, problems = [], []
    for name in names:
        shown = printable(name)
        try:
            with _opened(folder / name, max_pixels) as image:
                picture = to_picture(shown, image, channels, max_side)
        except UnusablePicture as error:
            problems.append(f"{shown}: {error}")
            continue
        except Exception as error:  # Decoders raise nearly every kind of exception.
            problems.append(
                f"{shown}: cannot be read; it is corrupt or cut short, or of a kind that Pillow "
                f"does not know ({error})"
            )
            continue
        if min(picture.array.shape[:2]) < min_side:
            problems.append(
                f"{shown}: {picture.array.shape[0]} x {picture.array.shape[1]} pixels, fewer than "
                f"the {min_side} needed on each side"
            )
        pictures.append(picture)
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ValueError(
            f"{len(problems)} of {len(names)} pictures in data_dir={str(data_dir)!r} cannot be "
            "used; mend them, or move them elsewhere:\n  " + "\n  ".join(problems[:_SHOWN]) + more
        )
    return pictures


def named_splits(data_dir: str | os.PathLike) -> dict[str, list[str]]:
    """The splits that the folders in a folder name, see `trainers.datasets.splits.of_names`.

    Args:
        data_dir: the folder.

    Returns:
        From "train", "validation" and "test", those that there are, to the paths of pictures.

    Raises:
        ValueError: the folder is missing or holds no picture; two folders side by side are of the
            same split, one of them is empty, or a picture is in none.
    """
    return _named_splits(data_dir, _names(data_dir))


def _named_splits(data_dir, names):
    folder = _existing(data_dir)
    inside = [path.name for path in folder.iterdir() if path.is_dir()]
    empty = [
        name
        for name in inside
        if name.lower() in splits.WORDS and not any(one.startswith(f"{name}/") for one in names)
    ]
    found = splits.of_names(names, empty)
    missing = [name for name in empty if splits.named(name) not in found]
    if missing:
        raise ValueError(
            f"The sub-folder for {', '.join(map(splits.named, missing))} in "
            f"data_dir={str(data_dir)!r} holds no file ending in {', '.join(ENDINGS)} (in any "
            "case)."
        )
    return found


def read_splits(
    data_dir: str | os.PathLike,
    channels: int = 1,
    seed: int = 0,
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    min_side: int = 1,
    max_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
) -> dict[str, list[Picture]]:
    """Reads a folder as training, validation and test pictures, no picture in two of them.

    If sub-folders name the splits, as in `train`, `val` and `test`, `DIV2K_train_HR` and
    `DIV2K_valid_HR` or `BSDS500/data/images/train`, those are the splits
    (`trainers.datasets.splits`). Otherwise the pictures are put in an order that depends on `seed`
    and their names only, and the fractions are cut from it, at least one picture each; files with
    equal pixels count as one picture and stay together. If sub-folders name the training pictures
    and no validation or no test, that is cut from the training pictures in this way. Pictures of
    two splits that look alike, such as thumbnails, are named in a `DataWarning`.

    Args:
        data_dir: the folder.
        channels: 1 for grey, 3 for RGB.
        seed: another seed, another split. Unused where the folder has all the sub-folders.
        validation_fraction: part of the pictures kept for validation.
        test_fraction: part of the pictures kept for testing.
        min_side: see `read_folder`.
        max_side: see `read_folder`.
        max_pixels: see `read_folder`.

    Returns:
        A dict of "train", "validation" and "test" to lists as `read_folder` returns.

    Raises:
        ValueError: as `read_folder` and `named_splits`; fewer than three pictures; sub-folders name
            splits but no training; the same pixels in two of the sub-folders.
    """
    if min(validation_fraction, test_fraction) <= 0 or validation_fraction + test_fraction >= 1:
        raise ValueError(
            "`validation_fraction` and `test_fraction` must be positive and leave something to "
            f"train on. Received: {validation_fraction} and {test_fraction}."
        )
    names = _names(data_dir)
    given = _named_splits(data_dir, names)
    if given and "train" not in given:
        raise ValueError(
            f"data_dir={str(data_dir)!r} has sub-folders for {' and '.join(sorted(given))} only. "
            "Expected one for train as well, or none of them to have the pictures split at random."
        )
    pictures = read_folder(
        data_dir,
        channels,
        min_side=min_side,
        max_side=max_side,
        max_pixels=max_pixels,
        names=names,
    )
    fractions = {"validation": validation_fraction, "test": test_fraction}
    cut = {split: part for split, part in fractions.items() if split not in given}
    try:
        found = splits.divide(pictures, given) if given else {"train": pictures}
        found |= splits.cut(found["train"], seed, cut) if cut else {}
    except ValueError as error:
        raise ValueError(f"In data_dir={str(data_dir)!r}: {error}") from None
    if given and cut:
        parts = " and ".join(f"{len(found[split])} for {split}" for split in cut)
        warnings.warn(
            f"data_dir={str(data_dir)!r} has sub-folders for {' and '.join(sorted(given))} only: "
            f"{parts} are cut at random from the training pictures.",
            DataWarning,
            stacklevel=1,
        )
    _warn_of_likeness(data_dir, found)
    return found


def _warn_of_likeness(data_dir, found):
    pairs = list(alike.across(found))
    if pairs:
        shown = "; ".join(f"{b!r} of {a} and {d!r} of {c}" for a, b, c, d in pairs[:_SHOWN])
        warnings.warn(
            f"{len(pairs)} pairs of pictures in data_dir={str(data_dir)!r} look alike though they "
            f"are of two splits: {shown}{'; ...' if len(pairs) > _SHOWN else ''}. What is trained "
            "on a thumbnail or a copy of a test picture has seen it: keep one of each pair.",
            DataWarning,
            stacklevel=1,
        )

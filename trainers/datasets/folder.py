"""A person's own folder of PNG or JPEG pictures.

Every file is decoded and checked before anything is returned, so that a corrupt picture stops a
run in its first seconds and not in its third hour.
"""

from __future__ import annotations

import hashlib
import os
import pathlib

import numpy as np
from PIL import Image

from trainers.datasets.images import SPLITS, check_channels, check_max_side, to_array
from trainers.process.files import files_below

ENDINGS = (".png", ".jpg", ".jpeg")
_ALIASES = {split: split for split in SPLITS} | {"val": "validation", "valid": "validation"}
_SHOWN = 5  # unusable pictures that an error names


def _existing(data_dir: str | os.PathLike) -> pathlib.Path:
    folder = pathlib.Path(data_dir).expanduser()
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise ValueError(
            f"`data_dir` must be a folder of pictures. Received: data_dir={str(data_dir)!r}, "
            f"which {what}."
        )
    return folder


def read_folder(
    data_dir: str | os.PathLike,
    channels: int = 1,
    *,
    min_side: int = 1,
    max_side: int | None = None,
) -> list[tuple[str, np.ndarray]]:
    """Reads every PNG and JPEG picture in a folder and the folders below it.

    Endings are .png, .jpg and .jpeg in any case; names that begin with a dot are passed over.
    Grey, colour, palette, transparent and 16-bit pictures are all brought to 8 bits and the
    channels asked for, see `trainers.datasets.images.to_array`.

    Args:
        data_dir: the folder.
        channels: 1 for grey (ITU-R BT.601 luma), 3 for RGB.
        min_side: the fewest pixels a side may have, for instance the patch size of the training.
        max_side: shrink larger pictures to this longer side, None to keep every size.

    Returns:
        A list of (path relative to the folder, uint8 array `(height, width, channels)`), sorted
        by path.

    Raises:
        ValueError: the folder is missing or holds no picture, or some pictures cannot be decoded
            or are too small: the message names them.
    """
    check_channels(channels)
    check_max_side(max_side)
    folder = _existing(data_dir)
    names = files_below(folder, ENDINGS)
    if not names:
        raise ValueError(
            f"No picture found in data_dir={str(data_dir)!r}: looked there and in the folders "
            f"below it for files ending in {', '.join(ENDINGS)} (in any case)."
        )
    pictures, problems = [], []
    for name in names:
        try:
            with Image.open(folder / name) as image:
                array = to_array(image, channels, max_side)
        except Exception as error:  # Decoders raise nearly every kind of exception.
            problems.append(f"{name}: cannot be read, is it corrupt or cut short? ({error})")
            continue
        if min(array.shape[:2]) < min_side:
            problems.append(
                f"{name}: {array.shape[0]} x {array.shape[1]} pixels, fewer than the "
                f"{min_side} needed on each side"
            )
        pictures.append((name, array))
    if problems:
        more = f"\n  and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise ValueError(
            f"{len(problems)} of {len(names)} pictures in data_dir={str(data_dir)!r} cannot be "
            "used; mend or remove them:\n  " + "\n  ".join(problems[:_SHOWN]) + more
        )
    return pictures


def read_splits(
    data_dir: str | os.PathLike,
    channels: int = 1,
    seed: int = 0,
    *,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.2,
    min_side: int = 1,
    max_side: int | None = None,
) -> dict[str, list[tuple[str, np.ndarray]]]:
    """Reads a folder as training, validation and test pictures, no picture in two of them.

    If the folder has the sub-folders `train`, `validation` (or `val`, `valid`) and `test`, those
    are the splits. Otherwise the pictures are put in an order that depends on `seed` and their
    names only, and the fractions are cut from it, at least one picture each; files with equal
    pixels count as one picture and stay together.

    Args:
        data_dir: the folder.
        channels: 1 for grey, 3 for RGB.
        seed: another seed, another split. Unused where the folder has the sub-folders.
        validation_fraction: part of the pictures kept for validation.
        test_fraction: part of the pictures kept for testing.
        min_side: see `read_folder`.
        max_side: see `read_folder`.

    Returns:
        A dict of "train", "validation" and "test" to lists as `read_folder` returns.

    Raises:
        ValueError: as `read_folder`; fewer than three pictures; some of the sub-folders are
            missing or empty; the same pixels in two of the sub-folders.
    """
    if min(validation_fraction, test_fraction) <= 0 or validation_fraction + test_fraction >= 1:
        raise ValueError(
            "`validation_fraction` and `test_fraction` must be positive and leave something to "
            f"train on. Received: {validation_fraction} and {test_fraction}."
        )
    folder = _existing(data_dir)
    given = sorted(f.name for f in folder.iterdir() if f.is_dir() and f.name.lower() in _ALIASES)
    if given and sorted(_ALIASES[name.lower()] for name in given) != sorted(SPLITS):
        raise ValueError(
            f"data_dir={str(data_dir)!r} has the sub-folders {', '.join(given)}. Expected one each "
            "for train, validation (or val, valid) and test, or none of them to have the pictures "
            "split at random."
        )
    pictures = read_folder(data_dir, channels, min_side=min_side, max_side=max_side)
    if given:
        return _from_sub_folders(data_dir, pictures)
    return _from_seed(data_dir, pictures, seed, validation_fraction, test_fraction)


def _digest(array: np.ndarray) -> bytes:
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).digest()


def _from_sub_folders(data_dir, pictures):
    splits = {split: [] for split in SPLITS}
    home = {}
    for name, array in pictures:
        split = _ALIASES.get(name.split("/")[0].lower()) if "/" in name else None
        if split is None:
            raise ValueError(
                f"{name!r} in data_dir={str(data_dir)!r} is in none of the sub-folders train, "
                "validation and test, so it would be left out: move or remove it."
            )
        other, other_split = home.setdefault(_digest(array), (name, split))
        if other_split != split:
            raise ValueError(
                f"{other!r} and {name!r} in data_dir={str(data_dir)!r} have the same pixels. A "
                "picture in two splits makes the test result worthless: remove one of them."
            )
        splits[split].append((name, array))
    empty = [split for split in SPLITS if not splits[split]]
    if empty:
        raise ValueError(
            f"The sub-folder for {', '.join(empty)} in data_dir={str(data_dir)!r} holds no file "
            f"ending in {', '.join(ENDINGS)} (in any case)."
        )
    return splits


def _from_seed(data_dir, pictures, seed, validation_fraction, test_fraction):
    groups: dict[bytes, list] = {}
    for picture in pictures:
        groups.setdefault(_digest(picture[1]), []).append(picture)
    # A hash and not NumPy's generators: the split must not change with a library's version.
    order = sorted(
        groups.values(), key=lambda group: hashlib.sha256(f"{seed}/{group[0][0]}".encode()).digest()
    )
    validation = max(1, round(validation_fraction * len(order)))
    test = max(1, round(test_fraction * len(order)))
    if len(order) - validation - test < 1:
        raise ValueError(
            "At least three different pictures are needed to have one each to train, validate and "
            f"test. Received: {len(order)} in data_dir={str(data_dir)!r}, of which "
            f"{validation} and {test} would go to validation and test."
        )
    cuts = {
        "train": order[validation + test :],
        "validation": order[:validation],
        "test": order[validation : validation + test],
    }
    return {
        split: sorted((picture for group in cut for picture in group), key=lambda p: p[0])
        for split, cut in cuts.items()
    }

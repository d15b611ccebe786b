"""Which split a picture is in: as the names of the folders around it say, or at random."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

import numpy as np

from trainers.datasets.images import SPLITS, Picture
from trainers.process.files import printable

WORDS = {
    **{split: split for split in SPLITS},
    **{"training": "train", "val": "validation", "valid": "validation", "testing": "test"},
}


def named(folder: str) -> str | None:
    """The split that the name of a folder says: the only one of its words that names one.

    Example:

    >>> named("DIV2K_valid_HR"), named("train2017"), named("TestSet"), named("valset")
    ('validation', 'train', 'test', 'validation')
    >>> named("trainval"), named("TrainVal"), named("contest")
    (None, None, None)
    """
    words = re.findall("[a-z]+", folder.lower()) + re.findall("[A-Z]?[a-z]+", folder)
    words = (re.sub("(set|data|images)$", "", word.lower()) for word in words)
    said = {WORDS[word] for word in words if word in WORDS}
    return said.pop() if len(said) == 1 else None


def of_names(names: Iterable[str], empty: Iterable[str] = ()) -> dict[str, list[str]]:
    """The splits of pictures in folders such as `train`, `DIV2K_valid_HR` or `images/test`.

    A folder whose sub-folders name two splits, at any depth, divides what is in it; at the top one
    sub-folder whose whole name is that of a split does so as well.

    Args:
        names: Paths of pictures, relative to a folder, with `/`.
        empty: Paths of folders without a picture.

    Returns:
        From splits to the names in them; empty if no folder names one.

    Raises:
        ValueError: If two folders side by side name the same split, or a picture is in none.

    Example:

    >>> of_names(["DIV2K_train_HR/1.png", "DIV2K_valid_HR/2.png"])
    {'train': ['DIV2K_train_HR/1.png'], 'validation': ['DIV2K_valid_HR/2.png']}
    >>> of_names(["holidays/train.png", "holidays/on the train/2.png"])
    {}
    """
    names = list(names)
    dividing = _dividing([*names, *(f"{folder}/" for folder in empty)])
    found: dict[str, list[str]] = {}
    for name in names:
        parts = name.split("/")
        splits = (
            dividing["/".join(parts[:depth])].get(parts[depth])
            for depth in range(len(parts) - 1)
            if "/".join(parts[:depth]) in dividing
        )
        split = next(splits, None)
        if split is None and dividing:
            there = (
                f"{above}/{child}".lstrip("/") for above in dividing for child in dividing[above]
            )
            raise ValueError(
                f"{name!r} is in none of the sub-folders for the splits, {', '.join(there)}, so it "
                "would be left out: move or remove it."
            )
        if split is not None:
            found.setdefault(split, []).append(name)
    return found


def _dividing(names):
    """From each folder that divides what is in it, to its sub-folders and their splits."""
    children: dict[str, set[str]] = {}
    for name in names:
        parts = name.split("/")
        for depth in range(len(parts) - 1):
            children.setdefault("/".join(parts[:depth]), set()).add(parts[depth])
    found = {}
    for above, inside in children.items():
        said = {child: named(child) for child in sorted(inside) if named(child)}
        whole = not above and any(child.lower() in WORDS for child in said)
        if not whole and len(set(said.values())) < 2:
            continue
        for child, split in said.items():
            other = next(one for one in said if said[one] == split)
            if other != child:
                raise ValueError(
                    f"Expected one sub-folder for each split. Received both {other!r} and "
                    f"{child!r} in {above or 'the folder'!r} for {split}: move one of them out."
                )
        found[above] = said
    return found


def divide(
    pictures: Iterable[Picture], given: Mapping[str, Iterable[str]]
) -> dict[str, list[Picture]]:
    """Pictures by the splits of their names.

    Args:
        pictures: All of them.
        given: From splits to paths of pictures, see `of_names`.

    Raises:
        ValueError: If pictures of two splits have the same pixels.
    """
    split_of = {printable(name): split for split, names in given.items() for name in names}
    found = {split: [] for split in given}
    home = {}
    for picture in pictures:
        split = split_of[picture.name]
        other, other_split = home.setdefault(_digest(picture.array), (picture.name, split))
        if other_split != split:
            raise ValueError(
                f"{other!r} and {picture.name!r} have the same pixels. A picture in two splits "
                "makes the test result worthless: remove one of them."
            )
        found[split].append(picture)
    return found


def cut(
    pictures: Iterable[Picture], seed: int, fractions: Mapping[str, float]
) -> dict[str, list[Picture]]:
    """Pictures divided at random; those with equal pixels count as one and stay together.

    Args:
        pictures: All of them.
        seed: Another seed, another order; it depends on the names, and on nothing else.
        fractions: Of the splits that are cut from the training pictures.

    Returns:
        From "train" and these splits to pictures, at least one each, sorted by name.

    Raises:
        ValueError: If there are too few.
    """
    groups: dict[bytes, list] = {}
    for picture in pictures:
        groups.setdefault(_digest(picture.array), []).append(picture)
    # A hash and not NumPy's generators: the split must not change with a library's version.
    order = sorted(
        groups.values(),
        key=lambda group: hashlib.sha256(f"{seed}/{group[0].name}".encode()).digest(),
    )
    counts = {split: max(1, round(part * len(order))) for split, part in fractions.items()}
    if len(order) - sum(counts.values()) < 1:
        least = ("two", "three")[len(counts) - 1]
        raise ValueError(
            f"At least {least} different pictures are needed, to have one each to train and for "
            f"{' and '.join(counts)}. Received: {len(order)}, of which "
            f"{' and '.join(map(str, counts.values()))} would go there."
        )
    found, start = {}, 0
    for split, count in counts.items():
        found[split] = order[start : start + count]
        start += count
    found["train"] = order[start:]
    return {
        split: sorted((picture for group in part for picture in group), key=lambda one: one.name)
        for split, part in found.items()
    }


def _digest(array: np.ndarray) -> bytes:
    return hashlib.sha256(repr(array.shape).encode() + array.tobytes()).digest()

"""Data sets by name: each a module that reads its pictures as splits.

A new one is a module with a function `read_splits`, and its line in `DATASETS`. The function takes
the keywords `channels`, `seed` and `max_side`, and arguments of its own, and returns a dictionary
of "train", "validation" and "test" to lists of `trainers.datasets.images.Picture`, or of pairs of
a name and a uint8 array `(height, width, channels)`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from trainers.datasets.images import SPLITS, ImageSet, check_channels, check_max_side
from trainers.process.errors import ConfigurationError, unknown_name

# Imported when it is asked for: a folder of pictures needs neither TFDS nor scikit-image.
DATASETS = {
    "folder": "trainers.datasets.folder",
    "photographs": "trainers.datasets.photographs",
}


def get(name: str) -> Callable[..., dict[str, list]]:
    """The function `read_splits` of the data set of a name.

    Raises:
        ConfigurationError: If the name is unknown, with the nearest known one.
    """
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    return importlib.import_module(DATASETS[name]).read_splits


def load(
    name: str = "photographs",
    *,
    channels: int = 1,
    seed: int = 0,
    max_side: int | None = None,
    **arguments: Any,
) -> dict[str, ImageSet]:
    """Loads the images of all three splits of a data set into memory.

    Args:
        name: one of `DATASETS`: `"photographs"`, those that scikit-image ships, or `"folder"`, a
            person's own pictures.
        channels: 1 for grey (ITU-R BT.601 luma), 3 for RGB.
        seed: decides how a data set without splits of its own is split.
        max_side: shrink larger images (antialiased) to this longer side.
        **arguments: of the data set, see its `read_splits`: `data_dir` of a folder.

    Returns:
        A dict of "train", "validation" and "test" to `ImageSet`, sorted by name.

    Raises:
        ConfigurationError: an unknown name, or arguments that the data set does not take.
        ValueError: a wrong argument, or missing or unusable pictures.

    Example:

    >>> images = load("photographs", max_side=64)
    >>> len(images["train"]), images["train"].channels
    (7, 1)
    """
    read = get(name)
    check_channels(channels)
    check_max_side(max_side)
    common = {"channels": channels, "seed": seed, "max_side": max_side}
    try:
        inspect.signature(read).bind(**common, **arguments)
    except TypeError as error:
        own = [key for key in inspect.signature(read).parameters if key not in common]
        raise ConfigurationError(
            f"The data set {name!r} takes the arguments {own}. Received {sorted(arguments)}: "
            f"{error}."
        ) from None
    splits = read(**common, **arguments)
    return {split: ImageSet(*zip(*splits[split], strict=True)) for split in SPLITS}

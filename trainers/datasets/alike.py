"""Pictures of two splits that look alike: one of them is the other, smaller or stored again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from PIL import Image

from trainers.datasets.images import SPLITS, Picture

_SIDE = 16  # of the thumbnails that are compared
_ALIKE = (
    0.995  # the correlation of two thumbnails; of two photographs, or of two digits 1, below 0.99
)
_FLAT = 4.0  # standard deviation in levels below which a thumbnail says nothing
_ROWS = 1024  # compared at once


def descriptor(array: np.ndarray) -> np.ndarray:
    """A thumbnail without mean, of norm one; zero if the picture is flat.

    Args:
        array: uint8, `(height, width, 1 or 3)`.

    Returns:
        float32, `(256,)`: inner products of two are correlations.
    """
    grey = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).convert("L")
    small = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float32).ravel()
    small -= small.mean()
    flat = small.std() < _FLAT
    return np.zeros_like(small) if flat else small / np.linalg.norm(small)


def across(splits: Mapping[str, Sequence[Picture]]) -> Iterator[tuple[str, str, str, str]]:
    """Pairs of pictures of two splits that look alike: the same proportions and thumbnails.

    Args:
        splits: From "train", "validation" and "test" to pictures.

    Yields:
        A split, the name of a picture of it, another split, and the name of one of that.

    Example:

    >>> picture = np.random.default_rng(0).integers(0, 256, (64, 48, 1), dtype=np.uint8)
    >>> smaller = np.asarray(Image.fromarray(picture[..., 0]).resize((24, 32)))[..., None]
    >>> list(across({"train": [Picture("a", picture)], "test": [Picture("b", smaller)]}))
    [('train', 'a', 'test', 'b')]
    """
    seen = {
        split: (
            np.stack([descriptor(picture.array) for picture in splits[split]]),
            np.log([picture.array.shape[1] / picture.array.shape[0] for picture in splits[split]]),
        )
        for split in SPLITS
        if splits.get(split)
    }
    for one, other in itertools.combinations(seen, 2):
        (a, wide_a), (b, wide_b) = seen[one], seen[other]
        for start in range(0, len(a), _ROWS):
            part = slice(start, start + _ROWS)
            alike = a[part] @ b.T > _ALIKE
            alike &= np.abs(wide_a[part, None] - wide_b) < 0.1
            for i, j in np.argwhere(alike):
                yield one, splits[one][start + i].name, other, splits[other][j].name

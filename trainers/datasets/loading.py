"""The three splits of a data set as images in memory."""

from __future__ import annotations

import os

from trainers.datasets.folder import SPLITS, read_splits
from trainers.datasets.images import ImageSet, check_channels, check_max_side, to_array


def load(
    data_dir: str | os.PathLike | None = None,
    channels: int = 1,
    seed: int = 0,
    cache_dir: str | os.PathLike | None = None,
    max_side: int | None = None,
) -> dict[str, ImageSet]:
    """Loads the images of all three splits into memory.

    Args:
        data_dir: a folder of pictures, see `trainers.datasets.folder.read_splits`; None for the
            photographs that scikit-image ships, see `trainers.datasets.photographs`.
        channels: 1 for grey (ITU-R BT.601 luma), 3 for RGB.
        seed: decides how a folder without split sub-folders is split.
        cache_dir: where the scikit-image photographs are prepared, None for `$DEQ_KERAS_DATA` or
            `~/.cache/deq_keras/datasets`. Unused with `data_dir`, which is read where it is.
        max_side: shrink larger images (antialiased) to this longer side.

    Returns:
        A dict of "train", "validation" and "test" to `ImageSet`, sorted by name.

    Raises:
        ValueError: a wrong argument, or a folder with missing or unusable pictures.
    """
    check_channels(channels)
    check_max_side(max_side)
    if data_dir is not None:
        splits = read_splits(data_dir, channels, seed, max_side=max_side)
    else:
        splits = _photographs(channels, cache_dir, max_side)
    return {split: ImageSet(*zip(*splits[split], strict=True)) for split in SPLITS}


def _photographs(channels, cache_dir, max_side):
    # Imported here: someone with a folder of pictures needs neither TFDS nor scikit-image.
    import tensorflow_datasets as tfds
    from PIL import Image

    from trainers.datasets import photographs

    builder = photographs.prepare(cache_dir)
    return {
        split: sorted(
            (
                (
                    example["name"].decode(),
                    to_array(Image.fromarray(example["image"]), channels, max_side),
                )
                for example in tfds.as_numpy(builder.as_dataset(split=split))
            ),
            key=lambda named: named[0],
        )
        for split in SPLITS
    }

"""Images of the reproduced experiments, on [-1, 1]: digits, and photographs of one size."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.inverse_problem import BadImages, bad_images
from trainers import datasets
from trainers.process.errors import ConfigurationError

HELD_OUT = 1000  # the last images of a file are those to test on


class Images(NamedTuple):
    """Images of an experiment.

    Attributes:
        train: Array `(count, height, width, 1)`, float32 on [-1, 1].
        test: The same, of other images.
        source: Where they are from, for people.
    """

    train: np.ndarray
    test: np.ndarray
    source: str


def digits(config):
    """The digits that `config.data` names: a file, or a data set of TensorFlow Datasets.

    Raises:
        ConfigurationError: If neither is named, or both.
        BadImages: If the file cannot be read, or holds something else.
    """
    data = config.data
    if bool(data.file) == bool(data.dataset):
        raise ConfigurationError(
            "Expected digits from either --data_file=FILE.npz or --dataset=mnist, which is "
            f"downloaded. Received file={data.file!r} and dataset={data.dataset!r}."
        )
    if data.file:
        everything = _read(data.file)
        if len(everything) <= HELD_OUT:
            raise BadImages(
                f"Expected more than {HELD_OUT} images in {data.file!r}, the last {HELD_OUT} of "
                f"them to test on. Received {len(everything)}."
            )
        train, test = everything[:-HELD_OUT], everything[-HELD_OUT:]
    else:
        train, test = (_download(data.dataset, split) for split in ("train", "test"))
    source = data.file or data.dataset
    return Images(_scaled(train[: data.train]), _scaled(test[: data.test]), source)


def _read(path):
    try:
        with np.load(Path(path).expanduser()) as content:
            images = content["image"]
    except KeyError:
        raise BadImages(f"Expected {path!r} to hold an array named 'image'. It does not.") from None
    except (OSError, ValueError) as error:
        raise BadImages(f"Expected {path!r} to be an .npz file of images: {error}") from None
    if images.ndim == 3:
        images = images[..., None]
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 1:
        raise BadImages(
            f"Expected 'image' in {path!r} of shape (count, height, width, 1) and dtype uint8. "
            f"Received shape {images.shape} and dtype {images.dtype}."
        )
    return images


def _download(name, split):
    import tensorflow_datasets as tfds  # it takes a second, and a file needs none of it

    try:
        loaded = tfds.load(name, split=split, batch_size=-1)
    except Exception as error:  # of its own kinds, and of whatever fetches the file
        reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        raise BadImages(
            f"TensorFlow Datasets cannot give {name!r}: {reason}. Without a network, take "
            "--data_file=FILE.npz with arrays `image` and `label`."
        ) from None
    return np.asarray(loaded["image"])


def photographs(config):
    """Parts of photographs, all of `config.data.size`, the first ones to train on.

    A person's own images are cut in their middle. Of those that scikit-image ships, which are few
    and larger, several parts are taken, training and test parts of different photographs.

    Raises:
        BadImages: If there are too few, or one is too small.
    """
    data = config.data
    if data.data_dir:
        with bad_images():
            splits = datasets.load("folder", data_dir=data.data_dir)
        named = sorted(
            (name, image)
            for split in splits.values()
            for name, image in zip(split.names, split.images, strict=True)
        )
        if len(named) < data.train + data.test:
            raise BadImages(
                f"Expected at least {data.train} + {data.test} images in {data.data_dir!r}. "
                f"Received {len(named)}."
            )
        parts = [_middle(name, image, data.size) for name, image in named]
        train, test = parts[: data.train], parts[data.train : data.train + data.test]
        return Images(_scaled(np.stack(train)), _scaled(np.stack(test)), data.data_dir)
    # Shrunk as for the demo: at their full size a part shows hardly anything.
    splits = datasets.load("photographs", max_side=2 * max(data.size))
    train = _parts(splits["train"].images, data.size, data.train)
    others = (*splits["test"].images, *splits["validation"].images)
    test = _parts(others, data.size, data.test)
    return Images(_scaled(train), _scaled(test), "photographs of scikit-image")


def _middle(name, image, size):
    if any(have < want for have, want in zip(image.shape, size, strict=False)):
        raise BadImages(
            f"Expected images of at least {size[0]} x {size[1]} pixels. Received {name!r} of "
            f"{image.shape[0]} x {image.shape[1]}."
        )
    top, left = ((have - want) // 2 for have, want in zip(image.shape, size, strict=False))
    return image[top : top + size[0], left : left + size[1]]


def _parts(images, size, count):
    """`count` parts of images: the first of each, then the second of each, and so on."""
    height, width = size
    of_each = [
        [
            image[i : i + height, j : j + width]
            for i in range(0, image.shape[0] - height + 1, height)
            for j in range(0, image.shape[1] - width + 1, width)
        ]
        for image in images
    ]
    rounds = range(max(map(len, of_each)))
    found = [parts[n] for n in rounds for parts in of_each if n < len(parts)]
    if len(found) < count:
        raise BadImages(
            f"Expected {count} parts of {height} x {width} pixels. The photographs have "
            f"{len(found)}: lower data.train and data.test, or take --data_dir=FOLDER."
        )
    return np.stack(found[:count])


def _scaled(images):
    return images.astype(np.float32) / 127.5 - 1.0

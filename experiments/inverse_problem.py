"""An inverse problem with its images: what is trained, tuned, validated and tested on."""

import contextlib
import functools
import hashlib

import tensorflow as tf

from experiments import evaluation, supervision
from trainers import datasets
from trainers.datasets import pipeline
from trainers.process import exits
from trainers.process.errors import ConfigurationError

# What a data set is asked for whatever it is; the other entries of the section are its own.
_COMMON = ("name", "channels", "max_side", "patch_size")


class BadImages(ValueError):
    """Images that are missing, cannot be read, or are too small."""

    exit_code = exits.BAD_DATA


@contextlib.contextmanager
def bad_images():
    """Around what reads images: a `ValueError` that is none of the configuration is of these."""
    try:
        yield
    except ConfigurationError:
        raise
    except ValueError as error:
        raise BadImages(str(error)) from None


def load_images(config):
    """The splits of the images that a configuration names; see `trainers.datasets.load`.

    Raises:
        ConfigurationError: If there is no data set of that name, or it takes other arguments.
        BadImages: If some cannot be used; they are named.
    """
    data = config.data
    own = {key: value for key, value in data.items() if key not in _COMMON}
    with bad_images():
        return datasets.load(
            data.name,
            channels=data.channels,
            seed=config.seed,
            max_side=data.max_side or None,
            **{key: value for key, value in own.items() if value not in ("", None)},
        )


def source(config):
    """Where the images come from, for people."""
    return config.data.data_dir or config.data.name


def fingerprint(images):
    """A number for the images of a training: other images, or another order, have another."""
    digest = hashlib.sha256()
    for split in ("train", "validation"):
        for name, image in zip(images[split].names, images[split].images, strict=True):
            digest.update(repr((split, name, image.shape)).encode())
            digest.update(image.tobytes())
    return digest.hexdigest()[:16]


def _cropped(images, task):
    """Images of sizes that the task allows: multiples of a number, or squares, from the middle."""
    if task.multiple == 1 and not task.square:
        return images
    cut = tuple(_crop(image, task) for image in images.images)
    return datasets.ImageSet(images.names, cut, images.shrunk_from)


def _crop(image, task):
    height, width = (n - n % task.multiple for n in image.shape[:2])
    if not task.square:
        return image[:height, :width]
    side = min(height, width)
    top, left = ((n - side) // 2 for n in image.shape[:2])
    return image[top : top + side, left : left + side]


class InverseProblem:
    """A task and the images for it.

    Args:
        task: An `experiments.tasks.Task`.
        config: The effective configuration: `seed`, and of the sections `data`, `train` and
            `evaluate` what is needed. With a `train.loss` that needs no clean images, batches of
            training and validation are `(input, (truth, target))`.
        images: Splits as given by `load_images`; for an evaluation, `test` alone.
    """

    def __init__(self, task, config, images):
        self.task, self.config = task, config
        self.images = {split: _cropped(part, task) for split, part in images.items()}
        self.channels = config.data.channels
        self.loss = supervision.loss(task, config)
        if config.data.patch_size % task.multiple:
            raise ConfigurationError(
                f"Expected data.patch_size to be a multiple of {task.multiple} for the task "
                f"{task.name!r}. Received {config.data.patch_size}."
            )

    def training(self, start_step=0, seed=0, input_context=None, clean=False):
        """Endless training batches from a step on; `seed` gives another sequence of them.

        With `clean` they are `(measurement, truth)`, whatever the loss.
        """
        return pipeline.training_batches(
            self.images["train"],
            self.task.measure,
            patch_size=self.config.data.patch_size,
            batch_size=self.config.train.batch_size,
            seed=self.config.seed + 1000 * seed,
            start_step=start_step,
            input_context=input_context,
            supervise=self._supervise(clean),
        )

    def _supervise(self, clean):
        return None if clean or self.loss is None else self.loss.prepare

    def describe(self, step, position):
        """The name of an image of `training()`: that of a step and a place in its batch, from 0."""
        number = step * self.config.train.batch_size + position
        return pipeline.image_of_example(self.images["train"], self.config.seed, number)

    def inputs(self, size=(None, None)):
        """The symbolic inputs of a Keras model for the measurements of images of a size."""
        return self.task.inputs(self.channels, size)

    @functools.cached_property
    def fixed_patches(self):
        """Training patches that never change: weights are tuned and losses compared on them."""
        batches = self.training(seed=1, clean=True)
        return list(batches.take(self.config.evaluate.training_batches))

    def all_fixed_patches(self):
        """`fixed_patches` as one batch `(measurement, truth)`."""
        return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *self.fixed_patches)

    def whole_training_images(self, count):
        """The first training images, whole, and their names: `(names, [(measurement, truth)])`.

        Their noise never changes, and is not that of the test images.
        """
        part = self.images["train"]
        some = datasets.ImageSet(part.names[:count], part.images[:count])
        batches = pipeline.evaluation_batches(
            some, self.task.measure, seed=self.config.seed + 1, batch_size=count
        )
        return some.names, list(batches)

    def validation(self, input_context=None, whole=False, clean=False):
        """Central patches of the validation images, or the whole images; `clean` as in training."""
        return pipeline.evaluation_batches(
            self.images["validation"],
            self.task.measure,
            seed=self.config.seed,
            crop=None if whole else self.config.data.patch_size,
            batch_size=self.config.train.batch_size,
            input_context=input_context,
            supervise=self._supervise(clean),
        )

    @functools.cached_property
    def test(self):
        """Test measurements, the same in every run."""
        return list(
            pipeline.evaluation_batches(
                self.images["test"], self.task.measure, seed=self.config.seed
            )
        )

    def check_sizes(self, split="test"):
        """Refuses images that are too small for their SSIM.

        Raises:
            BadImages: With the first of them.
        """
        images = self.images[split]
        for number, (name, image) in enumerate(zip(images.names, images.images, strict=True)):
            if min(image.shape[:2]) < evaluation.LEAST_SIDE:
                raise BadImages(
                    f"Expected test images of at least {evaluation.LEAST_SIDE} pixels on a side, "
                    f"to measure their SSIM. Received {name!r} of {images.size(number)}. Leave it "
                    "out, or raise data.max_side."
                )

"""An inverse problem with its images: the batches of it, and the layer of each method."""

import functools
import hashlib

import tensorflow as tf

import deq_keras as dk
from experiments import evaluation, models, tuning
from trainers.datasets import pipeline
from trainers.process import exits

METHODS = ("bilevel", "equilibrium")


class BadImages(ValueError):
    """Images that are missing, cannot be read, or are too small."""

    exit_code = exits.BAD_DATA


def load(config):
    """The splits of the images that a configuration names; see `trainers.datasets.pipeline.load`.

    Raises:
        BadImages: If some cannot be used; they are named.
    """
    data = config.data
    try:
        return pipeline.load(
            data.data_dir or None,
            channels=data.channels,
            seed=config.seed,
            max_side=data.max_side or None,
        )
    except ValueError as error:
        raise BadImages(str(error)) from None


def fingerprint(images):
    """A number for the images of a training: other images, or another order, have another."""
    digest = hashlib.sha256()
    for split in ("train", "validation"):
        for name, image in zip(images[split].names, images[split].images, strict=True):
            digest.update(repr((split, name, image.shape)).encode())
            digest.update(image.tobytes())
    return digest.hexdigest()[:16]


class Problem:
    """A task and the images for it.

    Args:
        task: An `experiments.tasks.Task`.
        config: The effective configuration: `seed`, and of the sections `data`, `prior`, `train`
            and `evaluate` what is needed.
        images: Splits as given by `load`; for an evaluation, `test` alone.
    """

    def __init__(self, task, config, images):
        self.task, self.config, self.images = task, config, images
        self.channels = config.data.channels

    # Data

    def training(self, start_step=0, seed=0, input_context=None):
        """Endless training batches from a step on; `seed` gives another sequence of them."""
        return pipeline.training_batches(
            self.images["train"],
            self.task.measure,
            patch_size=self.config.data.patch_size,
            batch_size=self.config.train.batch_size,
            seed=self.config.seed + 1000 * seed,
            start_step=start_step,
            input_context=input_context,
        )

    def describe(self, step, position):
        """The name of an image of `training()`: that of a step and a place in its batch, from 0."""
        number = step * self.config.train.batch_size + position
        return pipeline.image_of_example(self.images["train"], self.config.seed, number)

    @functools.cached_property
    def fixed_patches(self):
        """Training patches that never change: weights are tuned and losses compared on them."""
        return list(self.training(seed=1).take(self.config.evaluate.training_batches))

    def validation(self, input_context=None, whole=False):
        """Central patches of the validation images, or the whole images."""
        return pipeline.evaluation_batches(
            self.images["validation"],
            self.task.measure,
            seed=self.config.seed,
            crop=None if whole else self.config.data.patch_size,
            batch_size=self.config.train.batch_size,
            input_context=input_context,
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
        named = zip(self.images[split].names, self.images[split].images, strict=True)
        for name, image in named:
            if min(image.shape[:2]) < evaluation.LEAST_SIDE:
                raise BadImages(
                    f"Expected test images of at least {evaluation.LEAST_SIDE} pixels on a side, "
                    f"to measure their SSIM. Received {name!r} of {image.shape[0]} x "
                    f"{image.shape[1]}. Remove it, or raise data.max_side."
                )

    # Layers

    def bilevel(self, weight=0.1):
        """The bilevel model: the minimiser of an energy with a learned prior."""
        return self._variational(self._prior(tied=True), "bilevel", weight)

    def equilibrium(self, weight=0.1):
        """The equilibrium model: a learned map, at first the gradient step of the bilevel one."""
        solver = dk.solvers.get(self.config.train.equilibrium_solver)
        solver.tolerance = self.config.train.tolerance
        prior = self._prior(tied=False)
        return dk.layers.Equilibrium(
            dk.layers.GradientStep(self.task.operator(), prior, weight),
            solver=solver,
            adjoint=dk.adjoints.Implicit(
                dk.linear_solvers.GMRES(tolerance=self.config.train.adjoint_tolerance)
            ),
            name="equilibrium",
        )

    def total_variation(self):
        """Smoothed total variation, with nothing to learn but its weight."""
        prior = dk.priors.TotalVariation(self.config.total_variation.smoothing)
        return self._variational(prior, "total_variation")

    def model(self, layer, size=(None, None)):
        """The Keras model of a layer, for measurements of this task."""
        return models.model(layer, self.channels, self.task.with_data, size)

    def tune(self, layer):
        """Gives a layer the weight that is best for the fixed patches; see `experiments.tuning`."""
        together = lambda *parts: tf.concat(parts, axis=0)  # noqa: E731
        patches = tf.nest.map_structure(together, *self.fixed_patches)
        # A coarse grid first: small weights make ill-conditioned problems, and long solves.
        return tuning.tune_weight(layer, *patches, high=1.0, points=7, refinements=3)

    def _prior(self, tied):
        cls = dk.priors.FieldsOfExperts if tied else dk.priors.UntiedFieldsOfExperts
        return cls(**self.config.prior.to_dict())

    def _variational(self, prior, name, weight=0.1):
        return dk.layers.Variational(
            self.task.operator(),
            prior,
            weight,
            solver=dk.solvers.LBFGS(tolerance=self.config.train.tolerance),
            adjoint=dk.adjoints.Implicit(
                dk.linear_solvers.ConjugateGradient(tolerance=self.config.train.adjoint_tolerance)
            ),
            name=name,
        )

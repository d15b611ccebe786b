"""The stages of a comparison: each trains or tunes one model and keeps it in the workspace.

A stage that an earlier run has finished is loaded, one that it has begun is continued.
"""

import functools
import math
import time

import tensorflow as tf

import deq_keras as dk
from trainers import evaluation, models, pipeline, trainer, tuning

# Beside the steps back and the converged share, which have columns of their own.
_REPORTED = ("forward_steps", "forward_residual", "backward_residual", "backward_converged")
_REPORTED += ("error_bound",)


class Stages:
    """The models of one task.

    Args:
        task: An `experiments.tasks.Task`.
        config: The effective configuration.
        images: Splits as given by `trainers.pipeline.load`.
        workspace: An `experiments.workspace.Workspace`.
    """

    def __init__(self, task, config, images, workspace):
        self.task, self.config, self.images, self.workspace = task, config, images, workspace
        self.channels = images["train"].channels

    def check(self):
        """Raises a `ValueError` for all that would otherwise go wrong after some training."""
        self.training()
        self.validation()
        smallest = (self.config.data.patch_size,) * 2
        for name, image in zip(self.images["test"].names, self.images["test"].images, strict=True):
            smallest = tuple(map(min, smallest, image.shape[:2]))
            if min(image.shape[:2]) < evaluation.LEAST_SIDE:
                raise ValueError(
                    f"Expected test images of at least {evaluation.LEAST_SIDE} pixels on a side, "
                    f"to measure their SSIM. Received {name!r} of {image.shape[0]} x "
                    f"{image.shape[1]}. Remove it, or raise data.max_side."
                )
        for layer in (
            self._total_variation_layer(),
            self._bilevel_layer(),
            self._equilibrium_layer(),
        ):
            models.model(layer, self.channels, self.task.with_data, smallest)

    # Data

    def training(self, start_step=0, seed=0):
        """Endless training batches from a step on; `seed` gives another sequence of them."""
        return pipeline.training_batches(
            self.images["train"],
            self.task.measure,
            patch_size=self.config.data.patch_size,
            batch_size=self.config.train.batch_size,
            seed=self.config.seed + 1000 * seed,
            start_step=start_step,
        )

    @functools.cached_property
    def fixed_patches(self):
        """Training patches that never change: weights are tuned and losses compared on them."""
        return list(self.training(seed=1).take(self.config.evaluate.training_batches))

    @functools.cached_property
    def test(self):
        """Test measurements, the same in every run."""
        return list(
            pipeline.evaluation_batches(
                self.images["test"], self.task.measure, seed=self.config.seed
            )
        )

    def validation(self):
        """Central patches of the validation images."""
        return pipeline.evaluation_batches(
            self.images["validation"],
            self.task.measure,
            seed=self.config.seed,
            crop=self.config.data.patch_size,
            batch_size=self.config.train.batch_size,
        )

    # Models

    def total_variation(self):
        """Total variation with its weight tuned on training patches; `(layer, record)`."""
        layer = self._total_variation_layer()
        models.model(layer, self.channels, self.task.with_data)
        begin = time.perf_counter()
        record = self.workspace.once(
            (self.task.name, "total_variation"),
            lambda: {**self._tune(layer), "seconds": time.perf_counter() - begin},
        )
        layer.cell.log_weight.assign(math.log(record["weight"]))
        return layer, record

    def bilevel(self):
        """The bilevel model after its first training; `(layer, record)`."""
        return self._train("bilevel", self._bilevel_layer(), self._tune, self.config.train.steps, 0)

    def bilevel_further(self, bilevel):
        """The bilevel model trained on, as long as the equilibrium model is."""
        layer = self._bilevel_layer()
        return self._train_on(
            "bilevel_further", layer, lambda: layer.set_weights(_weights(bilevel))
        )

    def equilibrium(self, bilevel):
        """The equilibrium model, started from the bilevel one: at first it is the same map."""
        layer = self._equilibrium_layer()
        return self._train_on("equilibrium", layer, lambda: models.start_from(layer, bilevel))

    # How

    def _equilibrium_layer(self):
        solver = dk.solvers.get(self.config.train.equilibrium_solver)
        solver.tolerance = self.config.train.tolerance
        return dk.layers.Equilibrium(
            dk.layers.GradientStep(self.task.operator(), self._prior(tied=False)),
            solver=solver,
            adjoint=dk.adjoints.Implicit(
                dk.linear_solvers.GMRES(tolerance=self.config.train.adjoint_tolerance)
            ),
            name="equilibrium",
        )

    def _total_variation_layer(self):
        prior = dk.priors.TotalVariation(self.config.total_variation.smoothing)
        return self._variational(prior, "total_variation")

    def _bilevel_layer(self):
        return self._variational(self._prior(tied=True), "bilevel")

    def _prior(self, tied):
        cls = dk.priors.FieldsOfExperts if tied else dk.priors.UntiedFieldsOfExperts
        return cls(**self.config.prior.to_dict())

    def _variational(self, prior, name):
        return dk.layers.Variational(
            self.task.operator(),
            prior,
            solver=dk.solvers.LBFGS(tolerance=self.config.train.tolerance),
            adjoint=dk.adjoints.Implicit(
                dk.linear_solvers.ConjugateGradient(tolerance=self.config.train.adjoint_tolerance)
            ),
            name=name,
        )

    def _tune(self, layer):
        together = lambda *parts: tf.concat(parts, axis=0)  # noqa: E731
        patches = tf.nest.map_structure(together, *self.fixed_patches)
        # A coarse grid first: small weights make ill-conditioned problems, and long solves.
        return tuning.tune_weight(layer, *patches, high=1.0, points=7, refinements=3)

    def _train_on(self, name, layer, start):
        train = self.config.train
        return self._train(
            name,
            layer,
            lambda layer: start() or {},
            train.further_steps,
            train.steps,
            train.further_learning_rate,
        )

    def _train(self, name, layer, prepare, steps, first_step, learning_rate=None):
        """Train a layer once and for all; `(layer, record)`."""
        model = models.model(layer, self.channels, self.task.with_data)
        folder = self.workspace.folder(self.task.name, name)
        weights, start_weights = folder / "final.weights.h5", folder / "start.weights.h5"

        def prepared():
            begin = time.perf_counter()
            start = prepare(layer)
            trainer.save_weights(model, start_weights)
            return {**start, "seconds": time.perf_counter() - begin}

        def work():
            # A run that is resumed before the first checkpoint goes on from these weights.
            start = self.workspace.once((self.task.name, name, "start"), prepared)
            _load(model, start_weights)
            models.compiled(model, learning_rate or self.config.train.learning_rate, steps)
            history = trainer.fit(
                model,
                lambda step: self.training(first_step + step),
                steps=steps,
                steps_per_record=math.gcd(steps, 10),
                directory=folder,
                validation_data=self.validation(),
                description=f"{self.task.name}: {name.replace('_', ' ')}",
            )
            trainer.save_weights(model, weights)
            seconds = start["seconds"] + sum(row["seconds"] for row in history)
            return {"start": start, "history": history, "seconds": seconds}

        record = self.workspace.once((self.task.name, name), work)
        _load(model, weights)
        return layer, record


def _load(model, path):
    try:
        model.load_weights(path)
    except (OSError, KeyError, ValueError) as error:
        raise OSError(
            f"{str(path)!r} cannot be read. Remove {str(path.parent)!r} to train anew. ({error})"
        ) from None


def _weights(layer):
    return [variable.numpy() for variable in layer.weights]


def diagnostics(record, name):
    """What the layer reported in the last record of a training, a mean over its steps.

    Steps and relative residuals of the solves and of their adjoint equations, the shares of images
    that converged, and `error_bound`, the certified bound on the root mean square error of a pixel:
    `None` where nothing is certified.
    """
    last = record["history"][-1]
    return {
        "backward_steps": last[f"{name}_backward_steps"],
        "training_converged": last[f"{name}_converged"],
        **{f"training_{key}": last.get(f"{name}_{key}") for key in _REPORTED},
    }


def evaluate(stages, layer):
    """A row of the results table for a layer (`None`: the measurement), and its reconstructions."""
    summary, images, estimates = evaluation.evaluate(
        layer, stages.test, stages.images["test"].names
    )
    summary["train_loss"] = evaluation.loss_on(layer, stages.fixed_patches)
    parameters = None
    if layer is not None:
        parameters = sum(math.prod(variable.shape) for variable in layer.trainable_variables)
    return {**summary, "parameters": parameters, "images": images}, estimates

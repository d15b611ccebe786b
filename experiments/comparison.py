"""Comparison of the models of a task: each is tuned or trained, kept, and evaluated.

What an earlier run has finished is loaded, what it has begun is continued.
"""

import math
import time

from experiments import evaluation, models
from experiments.inverse_problem import InverseProblem
from experiments.methods import FURTHER
from trainers.callbacks.model_solver import LayerSolver
from trainers.callbacks.progress import Progress
from trainers.process import files
from trainers.training import Options, Trainer

# Beside the steps back and the converged share, which have columns of their own.
_REPORTED = ("forward_steps", "forward_residual", "backward_residual", "backward_converged")
_REPORTED += ("error_bound",)


class Comparison(InverseProblem):
    """A task, its images, and the models that are compared on them.

    Args:
        task: An `experiments.tasks.Task`.
        config: The effective configuration.
        images: Splits as given by `inverse_problem.load_images`.
        workspace: An `experiments.workspace.Workspace`.
    """

    def __init__(self, task, config, images, workspace):
        super().__init__(task, config, images)
        self.workspace = workspace

    def check(self):
        """Raises a `ValueError` for all that would otherwise go wrong after some training."""
        self.training()
        self.validation()
        self.check_sizes()
        sides = [(self.config.data.patch_size,) * 2]
        sides += [image.shape[:2] for image in self.images["test"].images]
        smallest = tuple(map(min, zip(*sides, strict=True)))
        for make in (models.total_variation, models.bilevel, models.equilibrium):
            models.model(make(self.task, self.config), self.inputs(smallest))

    def total_variation_tuned(self):
        """Total variation with its weight tuned on training patches; `(layer, record)`."""
        layer = models.total_variation(self.task, self.config)
        models.model(layer, self.inputs())
        begin = time.perf_counter()
        record = self.workspace.once(
            (self.task.name, "total_variation"),
            lambda: {**models.tune(layer, self), "seconds": time.perf_counter() - begin},
        )
        layer.cell.log_weight.assign(math.log(record["weight"]))
        return layer, record

    def bilevel_first(self):
        """The bilevel model after its first training; `(layer, record)`."""
        return self._train("bilevel", models.bilevel, lambda layer: models.tune(layer, self))

    def bilevel_further(self, bilevel):
        """The bilevel model trained on, as long as the equilibrium model is."""
        return self._train(
            FURTHER.key,
            models.bilevel,
            lambda layer: layer.set_weights([variable.numpy() for variable in bilevel.weights]),
            further=True,
        )

    def equilibrium_further(self, bilevel):
        """The equilibrium model, started from the bilevel one: at first it is the same map."""
        return self._train(
            "equilibrium",
            models.equilibrium,
            lambda layer: models.start_from(layer, bilevel),
            further=True,
        )

    def _train(self, name, make, prepare, further=False):
        """Train a layer once and for all; `(layer, record)`."""
        layer = make(self.task, self.config)
        model = models.model(layer, self.inputs())
        folder = self.workspace.folder(self.task.name, name)
        weights, start_weights = folder / "final.weights.h5", folder / "start.weights.h5"
        train = self.config.train
        steps = train.further_steps if further else train.steps
        rate = train.further_learning_rate if further else train.learning_rate
        first_step = train.steps if further else 0

        def prepared():
            begin = time.perf_counter()
            start = prepare(layer) or {}
            files.save_weights(model, start_weights)
            return {**start, "seconds": time.perf_counter() - begin}

        def work():
            # A run that is resumed before the first checkpoint goes on from these weights.
            start = self.workspace.once((self.task.name, name, "start"), prepared)
            files.load_weights(model, start_weights)
            trainer = Trainer(
                lambda: models.compiled(model, rate, steps), folder, options=Options(keep=2)
            )
            progress = Progress(steps, f"{self.task.name}: {name.replace('_', ' ')}")
            record = math.gcd(steps, 10)
            try:
                history = trainer.fit(
                    lambda context, step: self.training(first_step + step),
                    epochs=steps // record,
                    steps_per_epoch=record,
                    validation=self.validation(),
                    callbacks=[progress],
                    verbose=0,
                )
            finally:
                progress.close()
            files.save_weights(model, weights)
            seconds = start["seconds"] + sum(row["seconds"] for row in history)
            return {"start": start, "history": history, "seconds": seconds}

        record = self.workspace.once((self.task.name, name), work)
        files.load_weights(model, weights)
        return layer, record

    def evaluate(self, layer):
        """What a layer does on the test images; of the measurement itself if it is `None`.

        Returns:
            `(row, estimates, curves)`: a row of the results table; the reconstructions as arrays;
            of the first image `residual` and `psnr_time`, empty for the measurement.
        """
        solver = None if layer is None else LayerSolver(layer)
        names = self.images["test"].names
        row, images, estimates = evaluation.evaluate(
            solver, self.test, names, picture=self.task.picture
        )
        row["train_loss"] = evaluation.loss_on(solver, self.fixed_patches, self.task.picture)
        row |= {"parameters": None, "images": images}
        if layer is None:
            return row, estimates, {}
        row["parameters"] = sum(math.prod(v.shape) for v in layer.trainable_variables)
        measurement, truth = self.test[0]
        curves = {
            "residual": evaluation.residual_curve(solver, measurement),
            "psnr_time": evaluation.quality_against_time(solver, measurement, truth),
        }
        return row, estimates, curves


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

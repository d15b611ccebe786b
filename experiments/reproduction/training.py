"""One run of a grid: trained, evaluated, and what its solves have cost in accuracy."""

import functools
import gc

import keras
import numpy as np
import tensorflow as tf

from experiments.reproduction import models, original
from trainers.callbacks.model_solver import ModelSolver
from trainers.process.errors import NotFinite
from trainers.training import Options, Trainer

_REPORTED = ("forward_steps", "backward_steps", "forward_residual", "backward_residual")
_REPORTED += ("converged", "backward_converged")
SPLITS = ("train", "test")
SHOWN = 4  # test images of which the reconstructions are kept


def execute(run, config, images, workspace):
    """Trains a run unless an earlier call has finished it; what is begun is continued.

    Args:
        run: An `experiments.reproduction.grid.Run`.
        config: The configuration of the experiment.
        images: The `experiments.reproduction.images.Images` to train and to test on.
        workspace: An `experiments.workspace.Workspace`. A folder of the run's name gets the
            checkpoints, `prior.npz`, the trained weights, and `pictures.npz`.

    Returns:
        The record of the run, a JSON object; see `experiments.reproduction.page.write_page`.
    """
    return workspace.once(_place(run), lambda: _Execution(run, config, images, workspace)())


def kept(run, workspace):
    """The record of a run that is finished, else `None`."""
    return workspace.kept(_place(run))


def _place(run):
    """The folder of a run in a workspace."""
    return "runs", run.name


def epochs(run, config):
    """Number of epochs that a run is trained."""
    further = run.settings["start"] in ("bilevel", "bilevel_further")
    return config.train.further_epochs if further else config.train.epochs


def batch_size(config, images):
    """Number of images in a batch: all of them if there are no more."""
    return min(config.train.batch_size, len(images.train))


def steps_per_epoch(config, images):
    """Number of batches in an epoch, all of the same size."""
    return len(images.train) // batch_size(config, images)


class Measurements:
    """The images of an experiment as pairs of a measurement and the truth.

    The noise of training is another in each step, that of evaluation is always the same: a function
    of the seed. (The authors' code draws new noise for each evaluation as well.)

    Args:
        settings, config, images: As for `execute`.
    """

    def __init__(self, settings, config, images):
        self.images = images
        self.noise, self.seed = settings["noise"], config.seed
        self.batch_size = batch_size(config, images)
        self.steps_per_epoch = steps_per_epoch(config, images)
        self.operator = models.get(config.experiment).operator(settings)

    def training(self, context=None, start_step=0):
        """Endless batches from a step on; each epoch sees every image once, in another order."""
        truth = tf.constant(self.images.train)

        def batch(step):
            epoch, number = step // self.steps_per_epoch, step % self.steps_per_epoch
            seed = tf.stack([tf.constant(self.seed, tf.int64), epoch])
            order = tf.random.experimental.stateless_shuffle(
                tf.range(len(self.images.train)), seed, alg="philox"
            )
            chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
            one = tf.ensure_shape(tf.gather(truth, chosen), (self.batch_size, *truth.shape[1:]))
            return self._measured(one, tf.stack([tf.constant(self.seed + 1, tf.int64), step])), one

        return tf.data.Dataset.counter(start_step).map(batch).prefetch(2)

    def fixed(self, split):
        """`(measurement, truth)` of all images of `"train"` or `"test"`."""
        truth = tf.constant(getattr(self.images, split))
        return self._measured(truth, (self.seed, -1 if split == "train" else -2)), truth

    def _measured(self, truth, seed):
        clean = self.operator(truth)
        noise = tf.random.stateless_normal(tf.shape(clean), seed, alg="philox")
        # All of the measurement, as in the paper: pixels that are not seen as well.
        return clean + self.noise * noise

    def batched(self, split):
        """The pairs of `fixed` as batches."""
        return tf.data.Dataset.from_tensor_slices(self.fixed(split)).batch(self.batch_size)


class _Execution:
    def __init__(self, run, config, images, workspace):
        self.run, self.config, self.workspace = run, config, workspace
        self.folder = workspace.folder(*_place(run))
        self.data = Measurements(run.settings, config, images)
        self.shape = images.train.shape[1:]

    def __call__(self):
        keras.utils.clear_session()
        gc.collect()
        keras.utils.set_random_seed(self.config.seed)
        try:
            return self._record()
        finally:
            keras.utils.clear_session()
            gc.collect()

    def _record(self):
        settings, data = self.run.settings, self.data
        trainer = Trainer(self._build, self.folder / "training", options=Options(keep=1))
        model = _Compiled(trainer.model)
        before = self.workspace.once((*_place(self.run), "before"), lambda: self._before(model))
        failed, history = None, []
        try:
            history = trainer.fit(
                data.training,
                epochs=epochs(self.run, self.config),
                steps_per_epoch=data.steps_per_epoch,
                validation=data.batched("test"),
                verbose=0,
            )
        except NotFinite as error:
            failed = str(error)
        prior = models.layer_of(trainer.model).cell.prior
        np.savez(self.folder / "prior.npz", *prior.get_weights())
        final = None if failed else {**self._after(model), **before["initial"]}
        if final and not (np.isfinite(final["train_loss"]) and np.isfinite(final["test_loss"])):
            failed, final = "The solves end in numbers that are not finite.", None
        return {
            "id": self.run.name,
            "settings": settings,
            "measurement": {f"{split}_loss": _mse(*data.fixed(split)) for split in SPLITS},
            "epochs": [{"epoch": 0, **before["losses"]}, *map(_row, history)],
            "final": final,
            "original": self._original(),
            "parameters": int(sum(np.prod(w.shape) for w in trainer.model.trainable_weights)),
            "seconds": sum(row["seconds"] for row in history),
            "failed": failed,
        }

    def _original(self):
        """The losses of the authors' code, if it was trained and tested on as many images."""
        counts = tuple(len(getattr(self.data.images, split)) for split in SPLITS)
        known = self.config.experiment == "mnist" and counts == original.COUNTS
        return original.losses(self.run.settings) if known else []

    def _build(self):
        settings = self.run.settings
        model = models.build(settings, self.config, self.shape)
        if self.run.after is not None:
            self._start_from(model, self.workspace.path / "runs" / self.run.after / "prior.npz")
        experiment = models.get(self.config.experiment)
        rate = experiment.learning_rate(self.config, settings, self.data.steps_per_epoch)
        model.compile(keras.optimizers.Adam(rate), "mse", jit_compile=False)
        return model

    def _start_from(self, model, path):
        """Gives a model the weights of a trained one; a free synthesis that of a tied one."""
        with np.load(path) as content:
            weights = list(content.values())
        learned = models.layer_of(model).cell.prior
        if len(weights) == len(learned.get_weights()):
            learned.set_weights(weights)
            return
        tied = models.get(self.config.experiment).prior({**self.run.settings, "model": "bilevel"})
        tied.set_weights(weights)
        learned.adopt(tied)

    def _before(self, model):
        losses = {f"{split}_loss": self._evaluate(model, split)["loss"] for split in SPLITS}
        found = self._accuracy(model)
        return {"losses": losses, "initial": {f"initial_{k}": v for k, v in found.items()}}

    def _after(self, model):
        train, test = (self._evaluate(model, split) for split in SPLITS)
        accuracy = self._accuracy(model)  # gives the exact model these weights
        # Where a batch cannot be solved exactly, others would take long as well.
        known = accuracy["gradient_error"] is not None
        exact = self._evaluate(self.exact, "test") if known else {}
        measurement, truth = (x[:SHOWN].numpy() for x in self.data.fixed("test"))
        prior = models.layer_of(model.model).cell.prior
        experts = models.get(self.config.experiment).pictures(prior)
        np.savez(
            self.folder / "pictures.npz",
            truth=truth,
            measurement=measurement,
            estimate=model.solve(measurement).value,
            **{f"filters_{key}": value for key, value in experts.items()},
        )
        distance = None
        if "C" in experts:
            a, c = experts["A"], experts["C"]
            distance = float(np.linalg.norm(c - a) / np.linalg.norm(a))
        return {
            "train_loss": train["loss"],
            "test_loss": test["loss"],
            "psnr": float(10 * np.log10(4.0 / test["loss"])),
            "forward_steps": test["steps"],
            "converged": test["converged"],
            "exact_test_loss": exact["loss"] if exact.get("converged") == 1.0 else None,
            "distance": distance,
            **accuracy,
        }

    def _evaluate(self, model, split):
        """The mean squared error over a split, and what the solves say."""
        found, count = [], 0
        for measurement, truth in self.data.batched(split):
            solution = model.solve(measurement)
            squares = np.square(solution.value - truth.numpy()).mean(axis=(1, 2, 3))
            steps, converged = np.asarray(solution.steps), np.asarray(solution.converged)
            found.append([np.sum(squares), np.sum(steps), np.sum(converged)])
            count += len(squares)
        loss, steps, converged = np.sum(found, axis=0) / count
        return {"loss": float(loss), "steps": float(steps), "converged": float(converged)}

    @functools.cached_property
    def exact(self):
        """The model that is solved exactly; its weights are those it was given last."""
        settings = self.run.settings
        return _Compiled(models.build(settings, self.config, self.shape, "exact", "float64"))

    def _accuracy(self, model):
        """How wrong the gradient of a batch is, as its solves have left it; `None` if unknown."""
        mine, theirs = (models.layer_of(m.model).cell.prior for m in (model, self.exact))
        theirs.set_weights(mine.get_weights())
        batch = [x[: self.data.batch_size] for x in self.data.fixed("train")]
        true, reliable = self.exact.gradient(*batch)
        found, _ = model.gradient(*batch)
        error = cosine = None
        size, length = np.linalg.norm(true), np.linalg.norm(found)
        # Where all experts are silent the gradient is zero, and no error is relative to it.
        if reliable and np.isfinite(length) and size > 0 and length > 0:
            error = float(np.linalg.norm(found - true) / size)
            cosine = float(found @ true / (length * size))
        return {"gradient_error": error, "gradient_cosine": cosine}


class _Compiled:
    """A model whose solves and gradients are traced once, whatever its weights."""

    def __init__(self, model):
        self.model = model
        self.solver = ModelSolver(model)
        self.dtype = models.layer_of(model).variable_dtype

        def gradient(measurement, truth):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(model(measurement, training=True) - truth))
            return tape.gradient(loss, model.trainable_variables)

        self._gradient = tf.function(gradient, autograph=False)

    def solve(self, measurement):
        """The `deq_keras.solvers.Solution` of a batch of measurements."""
        return self.solver.solve(tf.cast(measurement, self.dtype))

    def gradient(self, measurement, truth):
        """The gradient of the loss as one vector, and whether all solves have converged."""
        metrics = models.layer_of(self.model).metrics
        kept = [[variable.numpy() for variable in metric.variables] for metric in metrics]
        for metric in metrics:
            metric.reset_state()
        parts = self._gradient(*(tf.cast(x, self.dtype) for x in (measurement, truth)))
        shares = [float(m.result()) for m in metrics if m.name.endswith("converged")]
        for metric, values in zip(metrics, kept, strict=True):
            for variable, value in zip(metric.variables, values, strict=True):
                variable.assign(value)
        flat = np.concatenate([np.ravel(part).astype(np.float64) for part in parts])
        return flat, all(share == 1.0 for share in shares)


def _row(row):
    """A row of a training's history in the words of the record."""
    return {
        "epoch": row["epoch"],
        "train_loss": row["loss"],
        "test_loss": row["val_loss"],
        "seconds": row["seconds"],
        **{name: row.get(f"reconstruction_{name}") for name in _REPORTED},
    }


def _mse(measurement, truth):
    return float(tf.reduce_mean(tf.square(measurement - truth)))

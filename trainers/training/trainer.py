"""Training of a compiled Keras model on one or many devices and machines, with nothing lost.

Keras's `fit` does not train over several machines (keras issue 20585), so the loop is ours; the
model, its optimizer, loss and metrics, the callbacks and the progress bar are Keras's. The batches
are a function of the step (`trainers.datasets.pipeline`), all the rest of a run is in its
checkpoints, and a run that was stopped anywhere goes on from the last one and comes out the same,
on a CPU to the last bit.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from deq_keras.layers.diagnostics import Diagnostic
from trainers.cluster import agreement
from trainers.process.errors import ConfigurationError, NotFinite, PeerLost, StorageError
from trainers.process.files import make_writable
from trainers.process.heartbeat import beat
from trainers.process.signals import interruptible
from trainers.training.checkpoints import Checkpoints, differences
from trainers.training.feed import Feed
from trainers.training.loop import Loop
from trainers.training.monitor import Monitor, check_callback, entries, resolve
from trainers.training.options import Options
from trainers.training.position import Position
from trainers.training.state import ReplicaState
from trainers.training.step import Step

Batches = Callable[[tf.distribute.InputContext, int], tf.data.Dataset] | tf.data.Dataset
Validation = Callable[[tf.distribute.InputContext], tf.data.Dataset] | tf.data.Dataset

# How a worker learns that another has gone.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.DeadlineExceededError,
    tf.errors.CancelledError,
)


class Trainer:
    """Trains, keeps and evaluates a model under a `tf.distribute` strategy.

    Args:
        build: Makes and compiles the model. It is called in the scope of the strategy.
        workdir: Where `checkpoints/`, `best/` and `metrics.jsonl` are kept; what is found there is
            continued. All workers must see the same folder; only the chief writes.
        strategy: From `trainers.cluster.strategy.get`; `None` for the default one, one device.
        options: How to train, keep and choose.
        config: What matters for the result, as JSON has it. A checkpoint made with another one is
            refused, and so are workers with different ones.

    Attributes:
        model: The model.
        position: Where the training is, a `trainers.training.position.Position`.
        is_chief: Whether this worker writes.
        monitor: What says which epoch is the best, a `Monitor`; `None` before `prepare`.

    Raises:
        ConfigurationError: If the model cannot be trained here, or the workers do not agree.
        StorageError: If `workdir` cannot be written.

    Example:

    >>> import tempfile
    >>> import numpy as np
    >>> def build():
    ...     model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    ...     model.compile("sgd", "mse")
    ...     return model
    >>> pair = np.eye(2, dtype="float32"), np.ones((2, 1), "float32")
    >>> data = tf.data.Dataset.from_tensors(pair)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     trainer = Trainer(build, folder)
    ...     history = trainer.fit(data, epochs=2, steps_per_epoch=3, verbose=0)
    >>> [row["step"] for row in history]
    [3, 6]
    """

    def __init__(
        self,
        build: Callable[[], keras.Model],
        workdir: str | os.PathLike,
        *,
        strategy: tf.distribute.Strategy | None = None,
        options: Options | None = None,
        config: dict[str, Any] | None = None,
    ):
        self.strategy = strategy or tf.distribute.get_strategy()
        self.options, self.workdir = options or Options(), Path(workdir)
        self.feed = Feed(self.strategy)
        self.is_chief = self.feed.worker == 0
        with self.peers():
            self._agree({"config": config or {}, **self.options.as_dict()}, "configuration")
        with self.strategy.scope(), self.options.policy():
            self.model = build()
            if not isinstance(self.model, keras.Model):
                raise ConfigurationError(
                    f"Expected `build` to return a Keras model. Received: {self.model!r}."
                )
            self.stepper = Step(self.model, self.strategy, self.options)
        self._checkpoints = Checkpoints(
            self.workdir, self.stepper.shared_variables(), self.options.keep, config or {}
        )
        self._state: ReplicaState | None = None
        self.position = Position()
        self.monitor: Monitor | None = None
        self._saved: tuple[int, int] | None = None

    # Training

    def fit(
        self,
        batches: Batches,
        *,
        epochs: int,
        steps_per_epoch: int | None = None,
        validation: Validation | None = None,
        measure: Callable[[], dict[str, Any]] | None = None,
        callbacks: tuple | list = (),
        verbose: str | int = "auto",
    ) -> list[dict[str, Any]]:
        """Train up to `epochs` epochs, from wherever `workdir` says the training was.

        Args:
            batches: `(input_context, start_step)` to a dataset of this worker's batches from a step
                on, one after the other for its replicas, as `training_batches` of
                `trainers.datasets.pipeline` gives it; or a `tf.data.Dataset` of global batches,
                which is repeated. If it has an attribute `describe`, that is `(step, position in
                the global batch)` to a name of the image, for messages.
            epochs: Epochs of the whole training.
            steps_per_epoch: Steps of an epoch; by default one pass over a dataset of known length.
            validation: `(input_context)` to the finite dataset of this worker's part, or a dataset
                of batches, evaluated after each epoch; images may be of different sizes.
            measure: Called after each epoch and its validation, with the same weights: what it
                returns, names to numbers, joins the logs. All workers call it, each for itself, so
                it must be the same everywhere: of the weights and of fixed images, say.
            callbacks: Keras callbacks. They run on all workers, for they may change the training;
                those that write files run on the chief only: Keras's own, and any with an attribute
                `chief_only = True`. What they remember is in the checkpoints.
            verbose: As in Keras: "auto" or 1 a progress bar, 2 a line an epoch, 0 nothing.

        Returns:
            A row for each epoch: `epoch`, `step`, `seconds`, `skipped` and the logs of Keras, with
            `None` where there is no finite number.

        Raises:
            Interrupted: On SIGINT or SIGTERM to any worker, when the state has been saved.
            NotFinite: If more than `max_skipped` steps had a gradient that was not finite, or if a
                weight is not finite.
            PeerLost: If another worker has gone.
            StorageError: If a checkpoint cannot be read or written.
            ConfigurationError: If a checkpoint, or an argument, does not fit.
        """
        data = (batches, epochs, steps_per_epoch, validation, measure)
        loop = Loop(self, *data, callbacks, verbose)
        with self.peers(), interruptible() as received:
            return loop.run(received)

    def prepare(
        self, batches: Batches, validation: Validation | None = None, callbacks: tuple | list = ()
    ) -> None:
        """Refuse what cannot be monitored, as `fit` (see there) does before it writes anything."""
        with self.peers():
            if self._state is None:
                self.stepper.prepare(next(self.feed.training(batches, 0))[0])
                self._state = ReplicaState(self.model, self.strategy)
                self._state.separate_streams()
            known = entries(self.results(), self.model.metrics, validation is not None)
        self.monitor = resolve(self.options.monitor, self.options.mode, known)
        for callback in callbacks:
            check_callback(callback, known)

    def resume(self) -> list[dict[str, Any]]:
        """Go to the last checkpoint, or make the first one; what the callbacks remembered there."""
        if self.is_chief:
            make_writable(self.workdir)
        host = self._checkpoints.load()
        self._agree({"step": host and host["position"]["step"]}, "checkpoint")
        if host is None:
            self.position = Position()
            self.save([])
            return []
        self.position = Position(**host["position"])
        self._saved = (self.position.step, self.position.epoch)
        self._state.write(host["replicas"])
        return host["callbacks"]

    def save(self, callback_states: list[dict[str, Any]], best: bool = False) -> None:
        """Write a checkpoint, unless this position has one. All workers must call it."""
        step = self.position.step
        if self._saved == (step, self.position.epoch):
            return
        for variable in self.model.trainable_variables:
            if not tf.reduce_all(tf.math.is_finite(variable.value)):
                raise NotFinite(
                    f"The weight {variable.path!r} became NaN or infinite by step {step}. The last "
                    "checkpoint is kept. Lower the learning rate, or look at the residuals: a "
                    "solver that did not converge has a wrong gradient."
                )
        replicas = self._state.read()
        if self.is_chief:
            host = {
                "position": vars(self.position),
                "replicas": replicas,
                "callbacks": callback_states,
            }
            # The best one first: if it cannot be written, the run goes on from the one before.
            for which in ("best", "latest") if best else ("latest",):
                self._checkpoints.save(step, host, which)
        self._saved = (step, self.position.epoch)
        beat()

    # Evaluation

    def restore(self, which: str = "latest") -> None:
        """Load the weights of a checkpoint: the averaged ones if there are any.

        Args:
            which: `"latest"` or `"best"`.

        Raises:
            StorageError: If there is none, or none can be read.
            ConfigurationError: If it does not fit.
        """
        host = self._checkpoints.load(which)
        if host is None:
            raise StorageError(
                f"There is no {which} checkpoint in {str(self.workdir)!r}. Was it trained there?"
            )
        self.position = Position(**host["position"])
        self.take_averages()

    def evaluate(self, validation: Validation) -> dict[str, float]:
        """The loss and the metrics over all images of all workers, exactly.

        Those of a training that is under way are as they were before.

        Args:
            validation: See `fit`. All workers must call it.
        """
        with self.peers():
            kept = self._state and self._state.read()
            self.model.reset_metrics()
            for data in self.feed.evaluation(validation):
                self.stepper.prepare(data)
                self.stepper.evaluate(data)
                beat()
            results = self.results()
            if kept is not None:
                self._state.write(kept)
        return results

    def results(self) -> dict[str, float]:
        """The metrics so far, over all replicas. All workers must call it.

        What a layer has not measured is left out: steps in validation, say, or a bound on errors
        where nothing is certified.
        """
        found = {name: float(value) for name, value in self.model.get_metrics_result().items()}
        silent = {m.name for m in self.model.metrics if isinstance(m, Diagnostic)}
        return {k: v for k, v in found.items() if k not in silent or not math.isnan(v)}

    @contextlib.contextmanager
    def averaged(self):
        """Meanwhile the weights are the averaged ones if `Options.average` is set."""
        if self.options.average is None:
            yield
            return
        raw = [tf.identity(variable.value) for variable in self.model.trainable_variables]
        self.take_averages()
        yield
        for variable, value in zip(self.model.trainable_variables, raw, strict=True):
            variable.assign(value)

    def take_averages(self) -> None:
        """Put the averaged weights in the place of the weights, if there are any."""
        if self.stepper.optimizer.use_ema:
            self.stepper.optimizer.finalize_variable_values(self.model.trainable_variables)

    # Other workers

    @contextlib.contextmanager
    def peers(self):
        """The loss of another worker as `PeerLost`."""
        try:
            yield
        except _LOST as error:
            if self.feed.workers == 1:
                raise
            raise PeerLost(
                f"Worker {self.feed.worker} lost another worker: {str(error).splitlines()[0]}. "
                "Start all of them again: they go on from the last checkpoint."
            ) from None

    def _agree(self, content, what):
        said = agreement.gathered(self.strategy, content)[:: self.feed.local]
        for worker, other in enumerate(said):
            if changes := list(differences(said[0], other)):
                # Whoever ends while another still receives would seem to be lost.
                with contextlib.suppress(*_LOST):
                    agreement.any_of(self.strategy, True)
                raise ConfigurationError(
                    f"Worker {worker} has another {what} than worker 0: {'; '.join(changes[:5])} "
                    f"there. All must be started with the same one, and see the same working "
                    f"directory ({str(self.workdir)!r} on worker {self.feed.worker}). Nothing was "
                    "written."
                )

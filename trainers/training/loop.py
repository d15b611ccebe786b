"""The epochs and steps of a training, with Keras's callbacks and its progress bar."""

from __future__ import annotations

import signal
import time

import keras
import tensorflow as tf

from trainers.callbacks.metrics_log import MetricsLog
from trainers.cluster import agreement
from trainers.process.errors import ConfigurationError, Interrupted, NotFinite
from trainers.process.files import finite
from trainers.process.heartbeat import beat
from trainers.training.diagnosis import diagnose, one_by_one
from trainers.training.state import callback_state, restore_callback

# These write files, which one worker does. Others run on all, for they may change the training.
_WRITERS = (
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.RemoteMonitor,
    keras.callbacks.TensorBoard,
)


class Loop:
    """One call of `trainers.training.Trainer.fit`, which see for the arguments."""

    def __init__(
        self, trainer, batches, epochs, steps_per_epoch, validation, measure, callbacks, verbose
    ):
        self.trainer, self.batches = trainer, batches
        self.validation, self.measure = validation, measure
        self.options, self.model = trainer.options, trainer.model
        self.epochs, self.steps = epochs, _steps(batches, steps_per_epoch)
        if not isinstance(epochs, int) or epochs < 1 or self.steps < 1:
            raise ConfigurationError(
                "Expected `epochs` and `steps_per_epoch` to be integers >= 1. Received: "
                f"epochs={epochs!r}, steps_per_epoch={self.steps!r}."
            )
        for callback in callbacks:
            if isinstance(callback, keras.callbacks.BackupAndRestore):
                raise ConfigurationError(
                    "Expected no BackupAndRestore callback: the trainer keeps and restores the "
                    "whole state by itself. Leave it out."
                )
        chief, self.given = trainer.is_chief, callbacks  # all workers check all of them
        self.callbacks = [c for c in callbacks if chief or not _writes(c)]
        self.run_callbacks = keras.callbacks.CallbackList(
            self.callbacks,
            add_progbar=chief and verbose != 0,
            model=self.model,
            verbose=1 if verbose == "auto" else verbose,
            epochs=epochs,
            steps=self.steps,
        )

    def run(self, received):
        """Train; `received` says whether a signal has come. The history."""
        trainer = self.trainer
        self.received = received
        trainer.prepare(self.batches, self.validation, self.given)
        states = trainer.resume()
        position = trainer.position
        expected = position.epoch * self.steps + position.batch
        if position.step != expected and not position.stopped:
            raise ConfigurationError(
                f"Expected steps_per_epoch={position.step // max(position.epoch, 1)}, as the "
                f"checkpoints in {str(trainer.workdir)!r} have it. Received: {self.steps}."
            )
        place = trainer.workdir, position.step, position.epoch
        self.log = MetricsLog(*place) if trainer.is_chief else None
        self.feed = trainer.feed.training(self.batches, position.step, self.options.accumulation)
        self.model.stop_training = False
        self.run_callbacks.on_train_begin()
        if not position.batch:
            self._restore(states)
        try:
            while position.epoch < self.epochs and not position.stopped:
                self._epoch(states)
            self.trainer.take_averages()
            self.run_callbacks.on_train_end(position.history[-1] if position.history else {})
        finally:
            if self.log is not None:
                self.log.close()
        return position.history

    def _epoch(self, states):
        trainer, position = self.trainer, self.trainer.position
        begin = time.perf_counter()
        resumed = position.batch > 0
        if not resumed:
            self.model.reset_metrics()
            position.begin_epoch()
        self.run_callbacks.on_epoch_begin(position.epoch)
        if resumed:
            # They were written after they had seen the beginning of this epoch.
            self._restore(states)
        # All workers have the same callbacks and logs, and so stop together.
        while position.batch < self.steps and not self.model.stop_training:
            self._step()
        logs = trainer.results()
        with trainer.averaged():
            if self.validation is not None:
                results = trainer.evaluate(self.validation)
                logs.update({f"val_{name}": value for name, value in results.items()})
            if self.measure is not None:
                logs.update({name: float(value) for name, value in self.measure().items()})
                beat()
        position.epoch += 1
        position.begin_epoch()
        row = {"epoch": position.epoch, "step": position.step}
        row.update(seconds=time.perf_counter() - begin, skipped=position.skipped)
        position.history.append(finite({**row, **logs}))
        self._write({**row, **logs})
        self.run_callbacks.on_epoch_end(position.epoch - 1, logs)
        position.stopped = bool(self.model.stop_training)
        self._save(best=position.is_best(logs, trainer.monitor))
        if agreement.any_of(trainer.strategy, self.received.signum is not None):
            self._interrupt()

    def _step(self):
        trainer, position = self.trainer, self.trainer.position
        begin = time.perf_counter()
        self.run_callbacks.on_train_batch_begin(position.batch)
        parts = next(self.feed)
        outcome = trainer.stepper.train(parts, self.received.signum is not None)
        position.step += 1
        position.batch += 1
        beat()
        row = {"step": position.step, "loss": outcome.loss}
        row.update(gradient_norm=outcome.gradient_norm, learning_rate=outcome.learning_rate)
        row.update(seconds=time.perf_counter() - begin)
        self._write(row if outcome.finite else {**row, "skipped": True})
        if outcome.finite:
            position.count(outcome.loss, outcome.images)
        else:
            self._skip(parts, outcome)
        self.run_callbacks.on_train_batch_end(position.batch - 1, {"loss": position.mean_loss})
        if position.batch == self.steps:
            return  # the end of the epoch saves, and asks again
        every = self.options.save_every
        if outcome.stop or (every and position.step % every == 0):
            self._save()
        if outcome.stop:
            self._interrupt()

    def _skip(self, parts, outcome):
        """A step was left out: count it, say why, and end the training if there are too many."""
        if outcome.rescaled:
            return  # half precision overflowed, and its scale was lowered
        position, allowed = self.trainer.position, self.options.max_skipped
        position.skipped += 1
        what = diagnose(self.model, self._images(parts, outcome.images))
        message = f"The gradient of step {position.step} is not finite. {what}"
        if position.skipped > allowed:
            raise NotFinite(
                f"{message} {position.skipped} steps were not, and max_skipped={allowed}. The last "
                "checkpoint is kept. Lower the learning rate, or look at the residuals: a solver "
                "that did not converge has a wrong gradient."
            )
        print(f"{message} It is left out.", flush=True)

    def _images(self, parts, images):
        """Each image of this worker with its name."""
        feed = self.trainer.feed
        local = feed.strategy.experimental_local_results
        groups = []
        for replica in range(feed.local):
            for part in parts:
                batch, count = tf.nest.map_structure(lambda x, r=replica: local(x)[r], part)
                groups.append(tf.nest.map_structure(lambda x, n=int(count): x[:n], batch))
        first = images * feed.worker * feed.local // feed.replicas
        describe = getattr(self.batches, "describe", None)
        return one_by_one(groups, self.trainer.position.step - 1, first, describe)

    def _interrupt(self):
        raise Interrupted(self.received.signum or signal.SIGTERM)

    def _save(self, best=False):
        self.trainer.save([callback_state(callback) for callback in self.callbacks], best)

    def _restore(self, states):
        # By name: the chief, whose states they are, has callbacks that the others lack.
        left = list(states)
        for callback in self.callbacks:
            name = type(callback).__name__
            place = next((n for n, state in enumerate(left) if state["name"] == name), None)
            if place is not None:
                restore_callback(callback, left.pop(place))

    def _write(self, row):
        if self.log is not None:
            self.log.write(row)


def _writes(callback):
    return getattr(callback, "chief_only", False) or isinstance(callback, _WRITERS)


def _steps(batches, steps):
    if steps is not None:
        return steps
    size = batches.cardinality().numpy() if isinstance(batches, tf.data.Dataset) else -1
    if size < 0:
        raise ConfigurationError(
            "Expected `steps_per_epoch`, for the length of the data is not known. Received: None."
        )
    return int(size)

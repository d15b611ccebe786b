"""Fit a compiled Keras model for a number of steps, so that it can be stopped and resumed.

Keras does the training and shows it; what is added here is that nothing is lost. The state (weights
and optimizer) is saved after every record of some steps, a record is one epoch of `fit`, and the
batches are a function of the step (`trainers.pipeline`), so a run that was stopped anywhere goes on
from its last record and sees the batches that it would have seen.
"""

import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf
from tqdm import tqdm


class Interrupted(BaseException):
    """Training was stopped by a signal; what was saved is enough to go on.

    Like `KeyboardInterrupt` it is no `Exception`: what handles errors must not take it for one.

    Attributes:
        signum: The signal.
    """

    def __init__(self, signum: int):
        super().__init__(f"Stopped by {signal.Signals(signum).name}.")
        self.signum = signum


@contextlib.contextmanager
def interruptible(at_once: bool = False) -> Iterator[Callable[[], None]]:
    """Turn SIGINT and SIGTERM into an `Interrupted` at a point where nothing is lost.

    Args:
        at_once: Nothing is lost anywhere: raise it from the signal itself.

    Yields:
        A function to call at such points: it raises `Interrupted` if a signal has come. A second
        signal is obeyed at once.
    """
    received: list[int] = []

    def note(signum, frame):
        if received or at_once:
            raise Interrupted(signum)
        received.append(signum)

    def check():
        if received:
            raise Interrupted(received[0])

    previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)


class Progress(keras.callbacks.Callback):
    """One progress bar, with the time left, over all steps of a training and not over an epoch."""

    def __init__(self, steps: int, initial: int, description: str):
        super().__init__()
        self.steps, self.initial, self.description = steps, initial, description

    def on_train_begin(self, logs=None):
        self.bar = tqdm(
            total=self.steps,
            initial=self.initial,
            desc=self.description,
            unit="step",
            dynamic_ncols=True,
        )

    def on_train_batch_end(self, batch, logs=None):
        self.bar.set_postfix_str(f"loss {logs['loss']:.3e}", refresh=False)
        self.bar.update()

    def close(self):
        """End the bar, whatever has happened."""
        if hasattr(self, "bar"):
            self.bar.close()


class _Keeper(keras.callbacks.Callback):
    """After each record: save the state, append to the history; stop on signals and on NaN."""

    def __init__(self, history: list, path: Path, manager, check: Callable[[], None], size: int):
        super().__init__()
        self.history, self.path, self.manager = history, path, manager
        self.check, self.size = check, size

    def on_epoch_begin(self, epoch, logs=None):
        self.begin = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None):
        loss = logs["loss"]
        if not abs(loss) < float("inf"):
            self.fail(f"The loss became {loss}", len(self.history) * self.size + batch + 1)
        self.check()

    def fail(self, what, step):
        raise FloatingPointError(
            f"{what} in step {step}. The state of the last record is kept. Lower the learning "
            "rate, or look at the residuals in the history: a solver that did not converge has a "
            "wrong gradient."
        )

    def on_epoch_end(self, epoch, logs=None):
        # The loss of a step is that before its update: the last one has not been seen yet.
        step = (epoch + 1) * self.size
        for variable in self.model.trainable_variables:
            if not tf.reduce_all(tf.math.is_finite(variable.value)):
                self.fail(f"The weight {variable.path!r} became NaN or infinite", step)
        row = {"step": step, "seconds": time.perf_counter() - self.begin}
        row.update({name: float(value) for name, value in logs.items()})
        self.history.append(_finite(row))  # as it will be read back
        write_json(self.path, self.history)
        self.manager.save(checkpoint_number=epoch + 1)
        self.check()


def fit(
    model: keras.Model,
    make_batches: Callable[[int], tf.data.Dataset],
    *,
    steps: int,
    directory: str | os.PathLike,
    steps_per_record: int = 10,
    validation_data: tf.data.Dataset | None = None,
    description: str = "training",
    callbacks: tuple = (),
) -> list[dict[str, float]]:
    """Train a compiled model up to `steps` steps, from wherever `directory` says it was.

    Args:
        model: A compiled and built Keras model.
        make_batches: From a step to the dataset of all batches from that step on, as
            `trainers.pipeline.training_batches(..., start_step=step)` gives it.
        steps: Number of optimizer steps, a multiple of `steps_per_record`.
        directory: Where checkpoints and `history.json` are kept. What is found there is continued.
        steps_per_record: Steps of one Keras epoch: metrics are averaged over it, and the state is
            saved after it. A resumed run repeats at most that many steps.
        validation_data: Evaluated after each record.
        description: Label of the progress bar.
        callbacks: Further Keras callbacks.

    Returns:
        The history: for each record a dictionary of `step`, `seconds` and the logs of Keras, with
        `None` where there is no finite number.

    Raises:
        Interrupted: On SIGINT or SIGTERM.
        FloatingPointError: If the loss or a weight is NaN or infinite.
        OSError: If what `directory` holds cannot be continued. Of two checkpoints one is enough.
        ValueError: If `steps` is not a multiple of `steps_per_record`.
    """
    if steps < 1 or steps % steps_per_record:
        raise ValueError(
            "Expected `steps` to be a positive multiple of `steps_per_record`. "
            f"Received steps={steps}, steps_per_record={steps_per_record}."
        )
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    model.optimizer.build(model.trainable_variables)
    variables = [*model.variables, *model.optimizer.variables]
    checkpoint = tf.train.Checkpoint(values=[variable.value for variable in variables])
    manager = tf.train.CheckpointManager(checkpoint, str(directory / "checkpoints"), max_to_keep=2)
    records = _restore(checkpoint, manager.checkpoints)
    path = directory / "history.json"
    history = _read_history(path, records, steps_per_record)
    if records * steps_per_record >= steps:
        return history
    start = records * steps_per_record
    progress = Progress(steps, start, description)
    with interruptible() as check:
        keeper = _Keeper(history, path, manager, check, steps_per_record)
        try:
            model.fit(
                make_batches(start),
                epochs=steps // steps_per_record,
                initial_epoch=records,
                steps_per_epoch=steps_per_record,
                validation_data=validation_data,
                callbacks=[progress, keeper, *callbacks],
                shuffle=False,
                verbose=0,
            )
        finally:
            progress.close()
    return history


def _restore(checkpoint, paths):
    """Restore the newest state that can be read; the number of its record, 0 if there is none."""
    problems = []
    for path in reversed(paths):
        try:
            checkpoint.restore(path).assert_consumed()
            return int(path.rsplit("-", 1)[1])
        except (tf.errors.OpError, AssertionError, IndexError, ValueError) as error:
            problems.append(f"{path}: {str(error).splitlines()[0]}")
    if problems:
        raise OSError(
            "The checkpoints are damaged, or belong to another model. Remove "
            f"{str(Path(paths[0]).parent.parent)!r} to train anew. {'; '.join(problems)}"
        )
    return 0


def _read_history(path, records, size):
    """The rows of so many records; another one may be there, whose checkpoint was not written."""
    try:
        history = json.loads(path.read_text("utf-8"))[:records] if records else []
        steps = [row["step"] for row in history]
    except (OSError, ValueError, TypeError, KeyError):
        steps = None
    if steps != [size * (record + 1) for record in range(records)]:
        raise OSError(
            f"Expected {str(path)!r} to have a row for each of the {records} records of {size} "
            "steps that the checkpoints beside it have. It is damaged, or `steps_per_record` was "
            f"another one. Remove {str(path.parent)!r} to train anew."
        )
    return history


def save_weights(model: keras.Model, path: str | os.PathLike) -> None:
    """Write a model's weights to `path` (`*.weights.h5`) so that the file is never half there."""
    path = Path(path)
    partial = path.with_name("partial-" + path.name)
    model.save_weights(partial)
    os.replace(partial, path)


def write_json(path: str | os.PathLike, content: Any) -> None:
    """Write JSON so that the file is never half there; NaN and infinity become `null`."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(_finite(content), indent=1, allow_nan=False) + "\n", "utf-8")
    os.replace(partial, path)


def _finite(content):
    if isinstance(content, dict):
        return {str(key): _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    if hasattr(content, "item"):
        content = content.item()
    if isinstance(content, float) and not abs(content) < float("inf"):
        return None
    return content

"""TensorBoard of a training: curves, reconstructions, filters, the solver's work."""

import os
import socket
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from deq_keras.plot import pictures
from trainers.callbacks.model_solver import ModelSolver, solving_layers
from trainers.process.errors import StorageError

_CHANNELS = (1, 3)  # of what can be shown as a picture


class TensorBoard(keras.callbacks.Callback):
    """Writes what `tensorboard --logdir=...` shows, with the steps of the whole training.

    - `step/`: loss (the mean of the epoch so far) and learning rate of each step;
    - `epoch/`: all that Keras logs, validation and the diagnostics of the layers included;
    - `reconstruction/`: measurement, reconstruction and truth of some fixed images, side by side;
    - `filters/`: the learned filters, each on its own symmetric scale about grey;
    - `solver/`: histograms of steps and (decimal logarithms of) residuals of those images' solves.

    Continued from a checkpoint, a training does again the steps after it, if it had done some: what
    was written of them is declared void, as TensorBoard knows it, so that each step counts once.

    It reads the weights as this process has them and never a metric, so one of many workers can do
    it alone.

    Args:
        folder: Where the event files are kept.
        step: A function that returns the number of steps done, of the whole training.
        examples: A batch `(measurement, truth)` of fixed images, or `None` for no pictures.
        pictures: How many of them are shown; all are in the histograms.
        every: Number of epochs after which pictures, filters and histograms are written.
        show: A function from measurements to the images `(batch, height, width, channels)` that are
            shown of them; by default the measurement itself, without the operator's data.

    Raises:
        StorageError: In training, if the files cannot be written.

    Example:

    >>> examples = next(iter(validation))
    >>> board = TensorBoard("runs/mine/tensorboard", lambda: trainer.position.step, examples)
    """

    chief_only = True

    def __init__(self, folder, step, examples=None, pictures=3, every=1, show=None):
        super().__init__()
        self.folder, self.step, self.examples = Path(folder), step, examples
        self.pictures, self.every, self.show = pictures, every, show or _itself
        self._writer = self._solver = None

    def get_state(self):
        """Nothing: what is written depends on the step alone."""
        return {}

    def set_state(self, state):
        """Nothing: see `get_state`."""

    def on_train_begin(self, logs=None):
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._void_after(int(self.step()))
            self._writer = tf.summary.create_file_writer(str(self.folder))
        except (OSError, tf.errors.OpError) as error:
            raise _failed(self.folder, error) from None
        self._solver = ModelSolver(self.model)

    def on_train_batch_end(self, batch, logs=None):
        rate = self.model.optimizer.learning_rate
        scalars = {"loss": (logs or {}).get("loss"), "learning_rate": rate}
        self._write(lambda step: _scalars("step", scalars, step))

    def on_epoch_end(self, epoch, logs=None):
        def write(step):
            # NaN: nothing was measured, of the adjoint equation in validation, say.
            measured = {key: value for key, value in (logs or {}).items() if value == value}
            _scalars("epoch", measured, step)
            if (epoch + 1) % self.every == 0:
                for name, kernel in learned_filters(self.model):
                    tf.summary.image(f"filters/{name}", filter_grid(kernel)[None], step)
                if self.examples is not None:
                    self._write_examples(step)

        self._write(write)
        self._flush()

    def on_train_end(self, logs=None):
        if self._writer is not None:
            self._flush()
            self._writer.close()
            self._writer = None

    def _write_examples(self, step):
        measurement, truth = self.examples
        solution, each = self._solver.solve_each(measurement)
        estimates = solution.value.numpy()
        measured = np.asarray(self.show(measurement))
        for number in range(min(self.pictures, len(estimates))):
            panels = [measured[number], estimates[number], np.asarray(truth)[number]]
            tf.summary.image(f"reconstruction/{number}", pictures.side_by_side(panels)[None], step)
        for name, found in each.items():
            steps = tf.cast(found.steps, tf.float32)
            tf.summary.histogram(f"solver/{name}/steps", steps, step)
            residual = tf.cast(found.residual, tf.float32)
            residual = tf.math.log(tf.maximum(residual, 1e-30)) / np.log(10.0)
            tf.summary.histogram(f"solver/{name}/log10_residual", residual, step)

    def _write(self, write):
        try:
            with self._writer.as_default():
                write(int(self.step()))
        except (OSError, tf.errors.OpError) as error:
            raise _failed(self.folder, error) from None

    def _flush(self):
        self._write(lambda step: self._writer.flush())

    def _void_after(self, step):
        """Tells TensorBoard to forget what earlier files say of later steps.

        That is a "session log" of TensorFlow 1, for which `tf.summary` has no function; the first
        of a folder voids nothing. Files are read in the order of their names, which begin with the
        second: this one must sort after the earlier and before the new one.
        """
        earlier = [p.name.split(".")[3] for p in self.folder.glob("events.out.tfevents.*.*")]
        while str(int(time.time())) in earlier:
            time.sleep(0.1)
        start = tf.compat.v1.SessionLog(status=tf.compat.v1.SessionLog.START)
        event = tf.compat.v1.Event
        name = f"events.out.tfevents.{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.0"
        with tf.io.TFRecordWriter(str(self.folder / name)) as file:
            file.write(
                event(wall_time=time.time(), file_version="brain.Event:2").SerializeToString()
            )
            begun = event(wall_time=time.time(), step=step + 1, session_log=start)
            file.write(begun.SerializeToString())


def filter_grid(kernel):
    """Filters side by side in a picture on [0, 1]: grey is zero, each on its own scale.

    Args:
        kernel: `(height, width, channels, filters)`, with 1 or 3 channels.

    Returns:
        Array `(rows, columns, channels)`, with a white line between the tiles.
    """
    tiles = pictures.filter_tiles(kernel)
    return np.where(np.isnan(tiles), 1.0, 0.5 + 0.5 * tiles).astype(np.float32)


def _scalars(group, values, step):
    for name, value in values.items():
        if value is not None:
            # Under a strategy a variable is not a number, but it has a value here.
            tf.summary.scalar(f"{group}/{name}", tf.convert_to_tensor(value), step)


def _itself(measurement):
    return tf.nest.flatten(measurement)[0]


def learned_filters(model):
    """The kernels of the layers that solve: pairs of a name and an array.

    Of a prior they are its `pictures()`; of other cells all weights
    `(height, width, channels, filters)` with 1 or 3 channels.
    """
    for layer in solving_layers(model):
        prior = getattr(getattr(layer, "cell", None), "prior", None)
        if hasattr(prior, "pictures"):
            kernels = {k: tf.transpose(v, [1, 2, 3, 0]) for k, v in prior.pictures().items()}
        else:
            kernels = {variable.path: variable for variable in layer.trainable_variables}
        for name, kernel in kernels.items():
            if len(kernel.shape) == 4 and kernel.shape[2] in _CHANNELS:
                yield f"{layer.name}/{name}", tf.convert_to_tensor(kernel).numpy()


def _failed(folder, error):
    why = (str(error).splitlines() or [type(error).__name__])[0]
    return StorageError(f"Cannot write the logs of TensorBoard to {str(folder)!r}: {why}")

"""The page of a training, kept up to date while it goes on."""

import time
from pathlib import Path

import keras

from experiments.report.training import read_metrics, write_training_report
from trainers.callbacks import metrics_log
from trainers.process.errors import StorageError

NAME = "training.html"
_SHARE = 0.05  # of the time may go into writing it


def write(workdir, folder=None):
    """Writes the page of a working directory of `experiments.train` from its `metrics.jsonl`.

    Args:
        workdir: The working directory.
        folder: Where the page is written; there, if it is `None`.

    Returns:
        The path of the page, `None` if no epoch was logged.

    Raises:
        StorageError: If it cannot be written.
    """
    workdir = Path(workdir)
    steps, epochs = read_metrics(workdir / metrics_log.NAME)
    if not epochs:
        return None
    path = Path(folder or workdir) / NAME
    try:
        return write_training_report(path, workdir.resolve().name, steps, epochs)
    except OSError as error:
        raise StorageError(f"{str(path)!r} cannot be written: {error.strerror}.") from None


class TrainingPage(keras.callbacks.Callback):
    """Writes the page after an epoch, and at the end.

    Where epochs are so short that drawing would take a good part of the time, not after each.

    Args:
        workdir: The working directory of the training.
    """

    chief_only = True

    def __init__(self, workdir):
        super().__init__()
        self.workdir = workdir
        self._due = 0.0

    def get_state(self):
        """Nothing: the page is made from the log alone."""
        return {}

    def set_state(self, state):
        """Nothing: see `get_state`."""

    def on_epoch_end(self, epoch, logs=None):
        begin = time.perf_counter()
        if begin < self._due:
            return
        write(self.workdir)
        end = time.perf_counter()
        self._due = end + (end - begin) / _SHARE

    def on_train_end(self, logs=None):
        write(self.workdir)

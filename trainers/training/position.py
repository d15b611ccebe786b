"""Position of a training: where it is, and what it has seen so far."""

import dataclasses
from typing import Any

from trainers.process.errors import unknown_name
from trainers.training.monitor import Monitor


@dataclasses.dataclass
class Position:
    """Where a training is; it is kept in every checkpoint.

    Attributes:
        step: Number of steps done.
        epoch: Number of epochs done.
        batch: Number of steps done of the epoch that is under way.
        skipped: Number of steps left out because their gradient was not finite.
        loss_sum: The sum of the losses of the images of this epoch.
        images: Their number.
        history: A row for each epoch done.
        best: The best value of the monitored entry, `None` before there is one.
        best_epoch: The epoch it is of.
        stopped: Whether a callback has ended the training.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    skipped: int = 0
    loss_sum: float = 0.0
    images: int = 0
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    best: float | None = None
    best_epoch: int = 0
    stopped: bool = False

    def begin_epoch(self) -> None:
        """No image of this epoch has been seen."""
        self.batch, self.loss_sum, self.images = 0, 0.0, 0

    def count(self, loss: float, images: int) -> None:
        """A step was made."""
        self.loss_sum += loss * images
        self.images += images

    @property
    def mean_loss(self) -> float:
        """The mean loss of this epoch so far."""
        return self.loss_sum / self.images if self.images else float("nan")

    def is_best(self, logs: dict[str, float], monitor: Monitor) -> bool:
        """Note an epoch that was done; whether it is the best so far.

        Raises:
            ConfigurationError: If the monitored entry is not in the logs: of a layer that reports
                in training only, say.
        """
        if monitor.name not in logs:
            raise unknown_name("entry of the logs to monitor", monitor.name, logs)
        value = logs[monitor.name]
        if not monitor.is_better(value, self.best):
            return False
        self.best, self.best_epoch = value, self.epoch
        return True

"""`metrics.jsonl`: a line for each step and each epoch, the same if a run was stopped or not."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from trainers.process.errors import StorageError
from trainers.process.files import finite

NAME = "metrics.jsonl"


class MetricsLog:
    """Appends to `metrics.jsonl`; what a stopped run wrote after its last checkpoint is taken back.

    A line of a step has `step`, `loss` (on its global batch, before the update), `gradient_norm`,
    `learning_rate` and `seconds`, and `skipped` if the step was left out. A line of an epoch begins
    with `epoch` and has what `Trainer.fit` returns. Numbers are written exactly; `null` stands for
    those that are not finite.

    Args:
        folder: Where the file is.
        step: The step after which the training goes on.
        epoch: The number of epochs done by then.

    Raises:
        StorageError: If it cannot be written.
    """

    def __init__(self, folder: Path, step: int = 0, epoch: int = 0):
        self.path = folder / NAME
        partial = self.path.with_name(NAME + ".partial")
        with self._reported():
            old = self.path.read_bytes() if self.path.exists() else b""
            partial.write_bytes(b"".join(_before(old, step, epoch)))
            os.replace(partial, self.path)
            self._file = self.path.open("a", encoding="utf-8", buffering=1)

    def write(self, row: dict[str, Any]) -> None:
        """Add a line."""
        with self._reported():
            self._file.write(json.dumps(finite(row), allow_nan=False) + "\n")

    def close(self) -> None:
        """Close the file."""
        with self._reported():
            self._file.close()

    @contextlib.contextmanager
    def _reported(self):
        try:
            yield
        except OSError as error:
            raise StorageError(
                f"{str(self.path)!r} cannot be written: {error.strerror}. The checkpoints are "
                "still there. Make room, or make it writable, and run the same command again."
            ) from None


def _before(content, step, epoch):
    """The whole lines of what was done up to a step."""
    for line in content.splitlines(keepends=True):
        try:
            row = json.loads(line)
            done = row["epoch"] <= epoch if "epoch" in row else row["step"] <= step
        except (ValueError, TypeError, KeyError):
            continue  # it was being written when the run was killed
        if done and line.endswith(b"\n"):
            yield line

"""What says which epoch is the best: an entry of the logs, and which of its values are better."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import keras

from trainers.process.errors import ConfigurationError, unknown_name

MODES = ("auto", "min", "max")
_DIRECTIONS = {"up": "max", "down": "min"}


class Monitor(NamedTuple):
    """An entry of the logs of an epoch.

    Attributes:
        name: Its name.
        mode: `"min"` if less of it is better, `"max"` if more is.
    """

    name: str
    mode: str

    def is_better(self, value: float, best: float | None) -> bool:
        """Whether a finite value is better than the best so far; `None`: there is none."""
        if not abs(value) < float("inf"):
            return False
        return best is None or (value < best if self.mode == "min" else value > best)


def entries(
    names: Iterable[str], metrics: Iterable[keras.metrics.Metric], validated: bool
) -> dict[str, str | None]:
    """The entries of the logs of an epoch with their modes, `None` where no one has said it.

    Args:
        names: What `model.get_metrics_result()` has.
        metrics: `model.metrics`. One that says its direction, as Keras's and
            `deq_keras.metrics.PSNR` do, is believed; of a loss less is better.
        validated: Whether there are the same of the validation images.

    Example:

    >>> entries(["loss", "psnr"], [deq_keras.metrics.PSNR()], validated=True)
    {'loss': 'min', 'psnr': 'max', 'val_loss': 'min', 'val_psnr': 'max'}
    """
    metrics = [inner for metric in metrics for inner in getattr(metric, "metrics", [metric])]
    found = {name: _mode(name, metrics) for name in names}
    return {**found, **({f"val_{name}": mode for name, mode in found.items()} if validated else {})}


def resolve(name: str, mode: str, known: Mapping[str, str | None]) -> Monitor:
    """The monitor that a name and a mode ask for.

    Args:
        name: An entry. `"val_loss"` is `"loss"` where nothing is validated.
        mode: `"min"`, `"max"`, or `"auto"`: as the metric says.
        known: The `entries`.

    Raises:
        ConfigurationError: If there is no such entry, if the mode contradicts its metric, or is
            `"auto"` where the metric does not say its direction.

    Example:

    >>> resolve("psnr", "auto", {"loss": "min", "psnr": "max"})
    Monitor(name='psnr', mode='max')
    """
    if name == "val_loss" and name not in known:
        name = "loss"
    if name not in known:
        raise unknown_name("entry of the logs to monitor", name, known)
    own = known[name]
    if mode == "auto" and own is None:
        raise ConfigurationError(
            f"Expected the mode 'min' or 'max' for {name!r}, whose metric does not say which is "
            "better. Received mode='auto'."
        )
    if mode != "auto" and own is not None and mode != own:
        better = {"min": "less", "max": "more"}[own]
        raise ConfigurationError(
            f"Expected the mode {own!r} for {name!r}, of which {better} is better. Received "
            f"mode={mode!r}: leave it at 'auto'."
        )
    return Monitor(name, own if mode == "auto" else mode)


def check_callback(callback: keras.callbacks.Callback, known: Mapping[str, str | None]) -> None:
    """Refuses a callback of Keras that would watch what is not there, or for the wrong direction.

    Raises:
        ConfigurationError: See `resolve`. Keras itself goes on with a warning, or none.
    """
    watching = (
        keras.callbacks.EarlyStopping,
        keras.callbacks.ReduceLROnPlateau,
        keras.callbacks.ModelCheckpoint,
    )
    if not isinstance(callback, watching) or not getattr(callback, "save_best_only", True):
        return
    try:
        if callback.monitor not in known:
            raise unknown_name("entry of the logs to monitor", callback.monitor, known)
        resolve(callback.monitor, callback.mode, known)
    except ConfigurationError as error:
        raise ConfigurationError(f"{type(callback).__name__}: {error}") from None


def _mode(name, metrics):
    # Keras puts the name of an output before that of its metric, and a number behind it.
    own = [
        metric
        for metric in metrics
        if re.fullmatch(rf"(.+_)?{re.escape(metric.name)}(_\d+)?", name)
        if getattr(metric, "_direction", None) in _DIRECTIONS
    ]
    if own:
        return _DIRECTIONS[max(own, key=lambda metric: len(metric.name))._direction]
    return "min" if name == "loss" or name.endswith("_loss") else None

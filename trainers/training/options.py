"""Options of a training: how to train, what to keep, and how to choose the best epoch."""

import contextlib
import dataclasses
import math

import keras

from trainers.process.errors import ConfigurationError
from trainers.training.monitor import MODES

PRECISIONS = ("float32", "float64", "mixed_bfloat16", "mixed_float16")


@dataclasses.dataclass(frozen=True)
class Options:
    """How to train, keep and choose; see `trainers.training.Trainer`.

    Attributes:
        accumulation: Each replica computes the gradient of its batch in this number of parts, one
            after the other: less memory, the same gradient.
        clip_norm: Scale the gradient, of the whole global batch, down to this Euclidean norm over
            all weights. `None`: as it is.
        average: Decay of an exponential moving average of the weights, such as 0.999, which
            validation and `restore` then use. `None`: the weights themselves.
        precision: The dtype policy that the model is built with: one of `PRECISIONS`.
        max_skipped: A step whose gradient is not finite is left out, and counted; this many
            are allowed, and the next one ends the training.
        keep: Number of checkpoints kept, in addition to the best one.
        save_every: A checkpoint after this many steps, in addition to that after each epoch.
        monitor: The entry of the logs that says which epoch is the best. One that is not there is
            refused before the first step; `"val_loss"` is `"loss"` where nothing is validated.
        mode: `"min"` or `"max"`: what is better; `"auto"`: as the metric says, and less of a loss.
            One that contradicts the metric is refused.

    Raises:
        ConfigurationError: If a value is out of its range.
    """

    accumulation: int = 1
    clip_norm: float | None = None
    average: float | None = None
    precision: str = "float32"
    max_skipped: int = 10
    keep: int = 3
    save_every: int | None = None
    monitor: str = "val_loss"
    mode: str = "auto"

    def __post_init__(self):
        for name, least in (("accumulation", 1), ("max_skipped", 0), ("keep", 1)):
            self._check(name, _is_count(getattr(self, name), least), f"an integer >= {least}")
        every = self.save_every
        self._check("save_every", every is None or _is_count(every, 1), "an integer >= 1 or None")
        clip, average = self.clip_norm, self.average
        self._check("clip_norm", clip is None or 0 < clip < math.inf, "finite and > 0, or None")
        self._check("average", average is None or 0 < average < 1, "between 0 and 1, or None")
        self._check("precision", self.precision in PRECISIONS, f"one of {PRECISIONS}")
        self._check("mode", self.mode in MODES, f"one of {MODES}")
        self._check("monitor", isinstance(self.monitor, str), "the name of an entry of the logs")

    def as_dict(self):
        """The options by name."""
        return dataclasses.asdict(self)

    @contextlib.contextmanager
    def policy(self):
        """Layers that are made meanwhile have the precision."""
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(self.precision)
        try:
            yield
        finally:
            keras.config.set_dtype_policy(before)

    def _check(self, name, good, expected):
        if not good:
            raise ConfigurationError(
                f"Expected `{name}` to be {expected}. Received: {name}={getattr(self, name)!r}."
            )


def _is_count(value, least):
    return isinstance(value, int) and not isinstance(value, bool) and value >= least

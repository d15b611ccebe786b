"""Errors that can end a training, each with the exit code of the program."""

import difflib
import signal
from collections.abc import Iterable

from trainers.process import exits


class ConfigurationError(ValueError):
    """A configuration, a cluster or a checkpoint that does not fit; nothing was changed."""

    exit_code = exits.CONFIG


def unknown_name(kind: str, name: str, known: Iterable[str]) -> ConfigurationError:
    """The error for an unknown name, with the nearest of the known ones.

    Args:
        kind: What is chosen by the name, for the message: `"task"`.
        name: The name received.
        known: The names that there are.

    Example:

    >>> print(unknown_name("task", "denoisin", ["denoising", "inpainting"]))
    Unknown task 'denoisin'. Did you mean 'denoising'? Expected one of ['denoising', 'inpainting'].
    """
    known = sorted(known)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ConfigurationError(f"Unknown {kind} {name!r}.{hint} Expected one of {known}.")


class AddressTaken(ConfigurationError):
    """Another program listens at this worker's address: perhaps not for long."""

    exit_code = exits.UNAVAILABLE


class StorageError(OSError):
    """What should be kept cannot be written or read; the last good checkpoint is still there."""

    exit_code = exits.IO_ERROR


class PeerLost(RuntimeError):
    """Another worker did not come up, or has gone; the last checkpoint is still there."""

    exit_code = exits.UNAVAILABLE


class NotFinite(FloatingPointError):
    """The gradients, or the weights, are not finite numbers any more."""

    exit_code = exits.BAD_DATA


class Interrupted(BaseException):
    """Training was stopped by a signal; what was saved is enough to go on.

    Like `KeyboardInterrupt` it is not an `Exception`: what handles errors must let it pass.

    Attributes:
        signum: The signal.
    """

    exit_code = exits.STOPPED

    def __init__(self, signum: int):
        super().__init__(f"Stopped by {signal.Signals(signum).name}.")
        self.signum = signum

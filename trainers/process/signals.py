"""SIGINT and SIGTERM as an exception, at a point where nothing is lost."""

import contextlib
import signal
from collections.abc import Iterator

from trainers.process.errors import Interrupted


class Received:
    """The signal that has come, if one has. Called, it raises `Interrupted` for it."""

    def __init__(self):
        self.signum: int | None = None

    def __call__(self) -> None:
        if self.signum is not None:
            raise Interrupted(self.signum)


@contextlib.contextmanager
def interruptible(at_once: bool = False) -> Iterator[Received]:
    """Turn SIGINT and SIGTERM into an `Interrupted` at a point where nothing is lost.

    Args:
        at_once: Nothing is lost anywhere: raise it from the signal itself.

    Yields:
        A `Received`, to call at such points: it raises `Interrupted` if a signal has come. A second
        signal is obeyed at once.
    """
    received = Received()

    def note(signum, frame):
        if received.signum is not None or at_once:
            raise Interrupted(signum)
        received.signum = signum

    previous = {s: signal.signal(s, note) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)

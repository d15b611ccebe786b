"""Requests that are made again while a server is not there, for a bounded time."""

import sys
import time

from experiments.restoration.errors import Unavailable

_FIRST, _LONGEST = 0.1, 3.0  # seconds between two tries


class Patience:
    """How long a server is waited for.

    Once it has not come back within that time, the next requests are tried once, so that a server
    that has gone does not hold up each image anew; the first answer restores the patience.

    Args:
        timeout: Seconds from the first try of a request to its answer.
        where: The server, for the messages.
        once: Whether there is no second try.
    """

    def __init__(self, timeout, where, once=False):
        self.timeout = timeout
        self.where = where
        self._once = once
        self._lost = False

    def extend(self, timeout):
        """From now on requests have so many seconds, and are made again."""
        self.timeout, self._once = timeout, False

    def __call__(self, request):
        """The answer of `request(seconds)`, which has so many seconds left.

        Raises:
            Unavailable: It raised that, until the time was over.
        """
        end, pause, said = time.monotonic() + self.timeout, _FIRST, False
        while True:
            try:
                answer = request(max(end - time.monotonic(), _FIRST))
                self._lost = False
                return answer
            except Unavailable as error:
                if self._once or self._lost or time.monotonic() + pause >= end:
                    self._lost = True
                    raise Unavailable(f"{self.where}: {error}") from None
                if not said:
                    print(f"Waiting for {self.where}: {error}", file=sys.stderr)
                    said = True
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST)

"""The process that one framework runs in: builds training steps and times them on request.

    python -m benchmarks.worker

Messages are pickles on the standard streams (see `remote.Remote`, the other end). The environment
that limits the threads is set by the parent, before anything is imported here.
"""

import importlib
import os
import pickle
import re
import resource
import sys
import time
from pathlib import Path


class Server:
    """Answers the requests of a `Remote`; each public method is one.

    A contestant is a module of `benchmarks.peers` with a function
    `build(problem, options) -> (step, finish)`: `step()` runs one whole training step, waits for
    it and returns what it found; `finish(raw)` turns that into a dictionary of arrays, untimed.
    """

    def __init__(self):
        self._steps = {}
        self._resident = 0

    def build(self, key, contestant, problem, options):
        """Make a step, known as `key` from now on, and run it once: compilation is not timed."""
        module = importlib.import_module(f"benchmarks.peers.{contestant}")
        step, finish = module.build(problem, options)
        finish(step())
        self._steps[key] = step, finish

    def run(self, key, repeats=1):
        """`(seconds of each repetition, result of the last)`."""
        step, finish = self._steps[key]
        seconds = []
        for _ in range(repeats):
            begin = time.perf_counter()
            raw = step()
            seconds.append(time.perf_counter() - begin)
        return seconds, finish(raw)

    def drop(self, key):
        """Forget a step."""
        self._steps.pop(key, None)

    def call(self, contestant, function, *args):
        """Any other function of a contestant."""
        module = importlib.import_module(f"benchmarks.peers.{contestant}")
        return getattr(module, function)(*args)

    def mark(self):
        """Start measuring memory from here: the resident size, and a peak of now."""
        try:  # Linux only; elsewhere the peak of the whole life is all there is
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:
            pass
        self._resident = _resident()

    def peak(self):
        """Bytes by which the peak of the resident size exceeds the size at the last `mark`."""
        return max(0, _peak() - self._resident)


def _resident():
    """Resident bytes now, or the peak so far where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return _peak()
    return pages * os.sysconf("SC_PAGE_SIZE")


def _peak():
    """Peak of the resident bytes since the process began, or since it was reset."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def serve(server, requests, replies):
    """Answer requests until the parent closes the stream."""
    while True:
        try:
            method, args = pickle.load(requests)
        except EOFError:
            return
        try:
            reply = (True, getattr(server, method)(*args))
        except Exception as error:  # whatever it is, the parent decides what it means
            reply = (False, f"{type(error).__name__}: {_reason(error)}")
        pickle.dump(reply, replies)
        replies.flush()


def _reason(error):
    """The message of an error, without what Keras wraps around it."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "\n".join(x for x in lines if not x.startswith("Exception encountered")) or "no message"


def main(server):
    """Serve on the standard streams."""
    # What libraries print must not get between the messages.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(server, sys.stdin.buffer, replies)


if __name__ == "__main__":
    main(Server())

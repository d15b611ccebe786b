"""Output of the workers: whole lines, each with its worker's name, from all of them at once."""

import os
import re
import select
import selectors
import threading
import time
from pathlib import Path

STDOUT, STDERR = 1, 2
BAR_SECONDS = 1.0  # a progress bar is shown that often: each time takes a line
LONGEST_LINE = 1 << 20  # bytes; a longer one is cut


class Console:
    """The launcher's own standard output and error, shared by threads.

    A stream that nobody reads any more is given up, and training goes on without it.
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._gone = set()
        self._since = None

    @property
    def blocked(self):
        """Whether somebody who should read our output does not (Ctrl-S, a pager)."""
        since = self._since
        return since is not None and time.monotonic() - since > 1.0

    def write(self, descriptor, data):
        """Write bytes, however long it takes."""
        with self._lock:
            self._write(descriptor, data)

    def say(self, text):
        """A line of the launcher itself. Who watches must not wait: it is dropped if blocked."""
        if self._lock.acquire(timeout=0.5):
            try:
                if STDERR not in self._gone and select.select([], [STDERR], [], 0.5)[1]:
                    self._write(STDERR, f"[launch] {text}\n".encode(errors="backslashreplace"))
            except OSError:
                self._gone.add(STDERR)
            finally:
                self._lock.release()

    def _write(self, descriptor, data):
        view = memoryview(data)
        self._since = time.monotonic()
        try:
            while view and descriptor not in self._gone:
                try:
                    view = view[os.write(descriptor, view) :]
                except BlockingIOError:  # we were given one that does not wait
                    select.select([], [descriptor], [])
        except OSError:
            self._gone.add(descriptor)
        finally:
            self._since = None


class Lines:
    """Cuts a stream of bytes, whatever they are, into lines.

    `\\n` and `\\r\\n` end a line. So does `\\r`, after which a progress bar writes itself anew, but
    of those lines only one in `BAR_SECONDS` is shown, and the last.

    Args:
        clock: Function that gives the time in seconds.
    """

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self._partial = b""
        self._bar = None  # the newest state of a bar, if it has not been shown
        self._returned = False  # whether the last line ended in \r
        self._shown = float("-inf")

    def feed(self, data):
        """The lines that end in these bytes, without their ends."""
        *pieces, self._partial = re.split(rb"([\r\n])", self._partial + data)
        lines = []
        for text, end in zip(pieces[::2], pieces[1::2], strict=True):
            if end == b"\n":
                if text or not self._returned:
                    lines.append(text)
                elif self._bar is not None:
                    lines.append(self._bar)
                self._bar = None
            elif text.strip():
                self._bar = text
                if self._clock() - self._shown >= BAR_SECONDS:
                    self._shown, self._bar = self._clock(), None
                    lines.append(text)
            self._returned = end == b"\r"
        if len(self._partial) > LONGEST_LINE:
            lines.append(self._partial)
            self._partial = b""
        return lines

    def flush(self):
        """What is left when the stream has ended."""
        rest = self._partial or self._bar
        self._partial, self._bar = b"", None
        return [rest] if rest else []


class Pump(threading.Thread):
    """A thread that carries what the workers of one attempt print to the console.

    Args:
        console: A `Console`.
        workers: List of `Worker`.
        log_dir: Folder for a file a worker, with the bytes as they are; `None` for none.
    """

    def __init__(self, console, workers, log_dir=None):
        super().__init__(name="output of the workers", daemon=True)
        self._console, self._files = console, {}
        self._deadline = float("inf")
        self._selector = selectors.DefaultSelector()
        for worker in workers:
            if log_dir is not None:
                path = Path(log_dir) / f"worker-{worker.index}.log"
                self._files[worker.index] = path.open("ab", buffering=0)
            pipes = {STDOUT: worker.process.stdout, STDERR: worker.process.stderr}
            for descriptor, pipe in pipes.items():
                data = (worker.index, descriptor, Lines())
                self._selector.register(pipe, selectors.EVENT_READ, data)

    def run(self):
        """Until all pipes have ended, or the time that `finish` gave."""
        while self._selector.get_map() and time.monotonic() < self._deadline:
            for key, _ in self._selector.select(timeout=0.1):
                index, descriptor, lines = key.data
                data = os.read(key.fd, 1 << 16)
                self._log(index, data)
                self._show(index, descriptor, lines.feed(data) if data else lines.flush())
                if not data:
                    self._selector.unregister(key.fileobj)
                    key.fileobj.close()
        for key in list(self._selector.get_map().values()):  # held open by an escaped process
            index, descriptor, lines = key.data
            self._show(index, descriptor, lines.flush())
            self._selector.unregister(key.fileobj)
            key.fileobj.close()
        self._selector.close()
        for file in self._files.values():
            file.close()

    def finish(self, seconds=2.0):
        """Wait until all that the workers have printed is shown, if it can be."""
        self._deadline = time.monotonic() + seconds
        self.join(seconds + 0.5)

    def _show(self, index, descriptor, lines):
        if lines:
            text = b"".join(b"[worker %d] %s\n" % (index, line) for line in lines)
            self._console.write(descriptor, text)

    def _log(self, index, data):
        try:
            if index in self._files:
                self._files[index].write(data)
        except OSError as error:  # a full disk must not stop the pipe, and so the worker
            file = self._files.pop(index)
            file.close()
            self._console.say(f"{file.name} is not written any more: {error.strerror}")

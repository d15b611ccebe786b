"""One process of a training: how it is started, whether it lives and beats, how it ended."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from trainers.launch.watchdog import kill_group
from trainers.process import exits
from trainers.process.cores import THREADS, threads_of_each
from trainers.process.heartbeat import HEARTBEAT

EXIT_NAMES = {code: name for name, code in vars(exits).items() if isinstance(code, int)}
_STUB = str(Path(__file__).with_name("stub.py"))


def free_addresses(count):
    """`count` different addresses of 127.0.0.1 that nobody listens on.

    Another program may take one before the worker does. The worker fails then, and the next
    attempt has other ports.
    """
    with ExitStack() as stack:  # all are held at the same time, so that none is given twice
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{sock.getsockname()[1]}" for sock in sockets]


def environment(addresses, index, heartbeat, threads=None):
    """The environment of a worker.

    Args:
        addresses: Those of all workers.
        index: Number of this worker.
        heartbeat: Name of the file that it touches after every step.
        threads: Number of its threads. If `None`, variables that are set already stay, and for
            the others the cores of this machine are divided.
    """
    values = dict(os.environ)
    values["TF_CONFIG"] = json.dumps(
        {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
    )
    values[HEARTBEAT] = str(heartbeat)
    values.setdefault("PYTHONUNBUFFERED", "1")  # what it has printed is not lost when it is killed
    for name in THREADS:
        if threads is not None or not values.get(name):
            values[name] = str(threads or threads_of_each(len(addresses)))
    return values


class Worker:
    """A process in a session and process group of its own, with pipes for what it prints.

    Args:
        index: Number of the worker.
        command: Program and arguments.
        env: Its environment, which names its heartbeat file.

    Attributes:
        code: `None` while it runs, then the exit code, or minus the signal it died by.
        ended: Monotonic time when its end was noticed.
        killed: Whether it was ended by `kill`.
    """

    def __init__(self, index, command, env):
        self.index = index
        self.code = self.ended = None
        self.killed = False
        self._heartbeat, self._beat, self._silence = env[HEARTBEAT], None, 0.0
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", _STUB, str(os.getpid()), *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            start_new_session=True,
        )
        self.pid = self.process.pid

    def poll(self):
        """`code`. What a worker that has ended left running in its process group is killed."""
        if self.code is None and self._is_dead():
            # Before it is reaped: until then, the number cannot belong to somebody else.
            kill_group(self.pid)
            self.code = self.process.wait()
            self.ended = time.monotonic()
        return self.code

    def _is_dead(self):
        if not hasattr(os, "waitid"):
            return self.process.poll() is not None
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def terminate(self):
        """Ask it to save and end. Only the worker itself: its helpers are needed for saving."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self):
        """SIGKILL to it and its process group, if it runs."""
        if self.poll() is None:
            self.killed = True
            kill_group(self.pid)

    def silence(self, elapsed):
        """Seconds without a heartbeat; 0 for a worker that has given none yet.

        Args:
            elapsed: Seconds since the last call, without those when this machine slept. They are
                added up, for clocks are set and the time of the file is that of another clock.
        """
        try:
            beat = os.stat(self._heartbeat).st_mtime_ns
        except FileNotFoundError:
            return 0.0
        self._silence = self._silence + elapsed if beat == self._beat else 0.0
        self._beat = beat
        return self._silence

    def is_stopped(self):
        """Whether SIGSTOP or the like holds it. Known on Linux only."""
        try:
            # The name of the program, in parentheses, may itself contain any character.
            state = Path(f"/proc/{self.pid}/stat").read_bytes().rpartition(b")")[2].split()[0]
        except (OSError, IndexError):
            return False
        return state in (b"T", b"t")

    def fate(self):
        """How it ended, in words."""
        if self.code is None:
            return f"worker {self.index} runs"
        if self.code < 0:
            try:
                name = signal.Signals(-self.code).name
            except ValueError:
                name = f"signal {-self.code}"
            return f"worker {self.index} was ended by {name}"
        name = EXIT_NAMES.get(self.code)
        return f"worker {self.index} ended with exit code {self.code}" + (f" ({name})" * bool(name))

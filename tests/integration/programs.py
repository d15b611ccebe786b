"""Programs of `experiments` as people start them: processes, with pipes for what they say."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600  # seconds, on a machine that does much else


class Program:
    """A program of `experiments`.

    Args:
        name: Its name there.
        arguments: What comes first on each command line of it.
    """

    def __init__(self, name, arguments=()):
        self.command = [sys.executable, "-m", f"experiments.{name}", *arguments]

    def start(self, *arguments, **environment):
        """The process."""
        return subprocess.Popen(
            [*self.command, *map(str, arguments)],
            cwd=ROOT,
            env={**os.environ, "PYTHONUTF8": "1", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )

    def run(self, *arguments, **environment):
        """`(exit code, stdout, stderr)` of a run that ends by itself."""
        return _finish(self.start(*arguments, **environment))

    def interrupt(self, signum, landmark, *arguments):
        """As `run`, of one that is sent a signal as soon as a file is there."""
        process = self.start(*arguments)
        deadline = time.monotonic() + PATIENCE
        while not landmark.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signum)
        return _finish(process)


def _finish(process):
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, output, errors

"""A small process that outlives the launcher, to end what the launcher could not end.

On Linux the workers die with the launcher by themselves, but what they have started does not, and
elsewhere neither. The watchdog holds the reading end of a pipe; when the launcher is gone, however
it went, the pipe ends, and the watchdog kills the process groups that are still registered.
"""

import os
import shutil
import signal
import subprocess
import sys


class Watchdog:
    """The launcher's side of the watchdog, a context manager.

    Args:
        folder: Temporary folder, removed in the end.
    """

    def __init__(self, folder):
        self.folder = folder

    def __enter__(self):
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C in the terminal is not for it
        )
        return self

    def __exit__(self, *exception):
        self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def add(self, group):
        """Kill this process group if the launcher dies."""
        self._tell(f"+{group}\n")

    def remove(self, group):
        """The group has ended; its number may belong to others now."""
        self._tell(f"-{group}\n")

    def _tell(self, line):
        try:
            self._process.stdin.write(line.encode())
        except BrokenPipeError:
            pass  # somebody has killed it; the workers still die with the launcher


def kill_group(group):
    """SIGKILL to all processes of a group, if there are any."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):  # the second is what macOS says of zombies
        pass


def main(folder):
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    groups = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    for group in groups:
        kill_group(group)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1])

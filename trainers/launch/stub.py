"""Stub of a worker, before it becomes the command: it asks to die with the launcher.

Run as a file by `worker.py`, with the launcher's process id and the command. A `preexec_fn` would
do the same, but it is not safe in a process that has threads.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of linux/prctl.h
USAGE = 2  # as in trainers/process/exits.py, which cannot be imported from here


def main(launcher, command):
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != launcher:  # it died before we asked
            os.kill(os.getpid(), signal.SIGKILL)
    # Python ignores these, and what is ignored stays so in the command.
    for name in ("SIGPIPE", "SIGXFSZ"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"Error: {command[0]!r} cannot be run: {error.strerror}", file=sys.stderr)
        return USAGE


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))

"""Runs a command and turns its exit code into one that the Kubeflow training operator understands.

    python docker/retryable.py [--pause=SECONDS] -- COMMAND

With `restartPolicy: ExitCode` the operator takes 1 to 127 for final and 128 to 255 for worth
another try. The codes of `trainers/process/exits.py` follow `sysexits.h` instead and lie below
128, so a run that was stopped and has saved its state (75) would count as failed for good. Here

| the command ended with | becomes | and the operator |
|---|---|---|
| 0 | 0 | is done |
| a code in `exits.FINAL` | the same | fails the job |
| `exits.STOPPED` | 143, as of SIGTERM | starts the pod again |
| any other code | 138, as of SIGUSR1: the operator's code for "try again" | starts the pod again |
| a signal n | 128 + n | starts the pod again |

The operator neither counts these restarts nor waits between them. So a crash is reported only
after a pause, 10 seconds unless given. SIGTERM and SIGINT are passed on, also as process 1 of a
container.
"""

import argparse
import signal
import subprocess
import sys
import threading

from trainers.process import exits

RETRY = 128 + signal.SIGUSR1
STOPPED = 128 + signal.SIGTERM
FORWARDED = (signal.SIGTERM, signal.SIGINT)


def translate(code):
    """The operator's exit code for one of `subprocess`, where a signal n is -n."""
    if code == 0 or code in exits.FINAL:
        return code
    if code < 0:
        return 128 - code
    if code == exits.STOPPED:
        return STOPPED
    return max(code, RETRY)


def run(command, pause):
    """Runs a command to its end, passing on signals; returns the translated exit code."""
    process = None
    received = []
    stopping = threading.Event()

    def forward(number, frame):
        received.append(number)
        stopping.set()
        if process is not None:
            process.send_signal(number)

    for number in FORWARDED:
        signal.signal(number, forward)
    process = subprocess.Popen(command)
    for number in received:  # between the handler and the line above
        process.send_signal(number)
    code = translate(process.wait())
    if code >= 128 and code != STOPPED:
        stopping.wait(pause)
    return code


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pause", type=float, default=10.0, help="seconds after a crash")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="after --")
    options = parser.parse_args(arguments)
    try:
        return run(options.command, options.pause)
    except OSError as error:
        parser.error(f"cannot run {options.command[0]!r}: {error}")


if __name__ == "__main__":
    sys.exit(main())

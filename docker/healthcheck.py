"""Tells a container runtime whether the training in this container still makes steps.

    python healthcheck.py

A training process touches the file named by DEQ_KERAS_HEARTBEAT after every step. The check fails
(exit code 1) if that file is older than DEQ_KERAS_HEARTBEAT_LIMIT seconds, 900 unless set: the
longest time that a step, a validation or a checkpoint may take. Without the variable or the file
it succeeds: the first step is still to come, or the container runs something else.
"""

import os
import sys
import time


def age(path):
    """Seconds since the file was touched; None if there is none."""
    try:
        return time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return None


def main():
    path = os.environ.get("DEQ_KERAS_HEARTBEAT")
    text = os.environ.get("DEQ_KERAS_HEARTBEAT_LIMIT", "900")
    try:
        limit = float(text)
    except ValueError:
        return f"DEQ_KERAS_HEARTBEAT_LIMIT must be a number of seconds. Received: {text!r}"
    seconds = age(path) if path else None
    if seconds is not None and seconds > limit:
        return f"The last step ended {seconds:.0f} s ago; at most {limit:.0f} s were expected."
    return None


if __name__ == "__main__":
    sys.exit(main())

"""The sign of life that a training gives to a launcher, or to the health check of a container."""

import os

HEARTBEAT = "DEQ_KERAS_HEARTBEAT"  # of the environment: names the file that is touched


def beat() -> None:
    """Touch the file that `HEARTBEAT` names, if it names one."""
    if path := os.environ.get(HEARTBEAT):
        with open(path, "ab"):
            os.utime(path)

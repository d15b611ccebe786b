"""Provenance of results: what every `results.json` says first."""

import datetime
import platform
import sys

import keras
import numpy as np
import tensorflow as tf

import deq_keras as dk


def provenance(program):
    """When, by which command and with which versions results are made, for JSON.

    Args:
        program: The name of the program in `experiments`.
    """
    return {
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": f"python -m experiments.{program} " + " ".join(sys.argv[1:]),
        "versions": {
            "deq_keras": dk.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }

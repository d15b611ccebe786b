"""The cores that this process may use, and the threads of processes that divide them."""

from __future__ import annotations

import os

# What TensorFlow and OpenMP read when they start.
THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")


def allowed() -> list[int]:
    """The numbers of the cores that this process may use, ascending."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def threads_of_each(processes: int) -> int:
    """How many threads each of some processes has: together no more than there are cores.

    Example:

    >>> threads_of_each(10_000)
    1
    """
    return max(1, len(allowed()) // processes)

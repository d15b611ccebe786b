"""Frameworks in processes of their own, all with the same number of threads.

TensorFlow, PyTorch and JAX each keep a pool of threads, and two pools in one process (or a shared
OpenMP library) slow each other down. So every contestant gets a process, which sleeps while
another one is measured; the parent hands out the turns, so runs can still be interleaved.
"""

import os
import pickle
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "NPROC",  # the size of XLA's pool
)


class RemoteError(RuntimeError):
    """What a worker could not do, in its words."""


def environment(threads):
    """The environment of a worker with so many threads, on the CPU."""
    count = dict.fromkeys(THREADS, str(threads))
    return {
        **os.environ,
        **count,
        "TF_NUM_INTEROP_THREADS": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "CUDA_VISIBLE_DEVICES": "-1",
        "JAX_PLATFORMS": "cpu",
        "EQX_ON_ERROR": "nan",  # a solver that fails is a result, not the end of the worker
        "KERAS_BACKEND": "tensorflow",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }


class Remote:
    """A worker process; methods are those of `worker.Server`.

    Args:
        threads: Number of threads, and of cores that the process may use (where the system can
            say so: the pools of some frameworks follow the cores alone).
        log: File that the worker's messages go to, or `None` to drop them.
    """

    def __init__(self, threads, log=None):
        self._log = open(log, "ab") if log else subprocess.DEVNULL
        command = [sys.executable, "-m", "experiments.benchmark.worker"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment(threads),
        )
        if hasattr(os, "sched_setaffinity"):
            cores = sorted(os.sched_getaffinity(0))[:threads]
            os.sched_setaffinity(self._process.pid, cores)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __getattr__(self, method):
        if method.startswith("_"):
            raise AttributeError(method)

        def request(*args):
            try:
                pickle.dump((method, args), self._process.stdin)
                self._process.stdin.flush()
                fine, value = pickle.load(self._process.stdout)
            except (EOFError, BrokenPipeError):
                status = self._process.wait()
                raise RemoteError(f"The worker died with status {status}.") from None
            if not fine:
                raise RemoteError(value)
            return value

        return request

    def close(self):
        """End the worker."""
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        if self._log is not subprocess.DEVNULL:
            self._log.close()

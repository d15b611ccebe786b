"""Frameworks in processes of their own, all with the same number of threads.

TensorFlow, PyTorch and JAX each keep a pool of threads, and two pools in one process (or a shared
OpenMP library) slow each other down. So every contestant gets a process, which sleeps while
another one is measured; the parent hands out the turns, so runs can still be interleaved.
"""

import os
import pickle
import select
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
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
    """The environment of a worker with a number of threads, on the CPU."""
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
        module: The program; another one than `worker` has a server of its own.
        cores: The cores, if not the first ones.
        variables: More variables of its environment.
    """

    def __init__(self, threads, log=None, module="worker", cores=None, variables=None):
        self._log = open(log, "ab") if log else subprocess.DEVNULL
        command = [sys.executable, "-m", f"benchmarks.{module}"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**environment(threads), **(variables or {})},
        )
        if hasattr(os, "sched_setaffinity"):
            cores = cores or sorted(os.sched_getaffinity(0))[:threads]
            os.sched_setaffinity(self._process.pid, cores)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __getattr__(self, method):
        if method.startswith("_"):
            raise AttributeError(method)

        def request(*args):
            self.send(method, *args)
            return self.receive()

        return request

    def send(self, method, *args):
        """Ask for something, and go on; `receive` has the answer."""
        try:
            pickle.dump((method, args), self._process.stdin)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._died() from None

    def receive(self, seconds=None):
        """The answer to `send`, waited for no longer than `seconds`."""
        if not select.select([self._process.stdout], [], [], seconds)[0]:
            self._process.kill()
            raise RemoteError(f"The worker did not answer within {seconds:g} s.")
        try:
            fine, value = pickle.load(self._process.stdout)
        except (EOFError, pickle.UnpicklingError):
            raise self._died() from None
        if not fine:
            raise RemoteError(value)
        return value

    def fileno(self):
        """What `select` asks for: whether an answer is there."""
        return self._process.stdout.fileno()

    def _died(self):
        return RemoteError(f"The worker died with status {self._process.wait()}.")

    def kill(self):
        """End the worker at once."""
        self._process.kill()

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

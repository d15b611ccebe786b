"""Runs in parallel processes, each with its share of the cores."""

import contextlib
import multiprocessing
import os
import signal
from concurrent import futures
from concurrent.futures.process import BrokenProcessPool

import tensorflow as tf
from ml_collections import ConfigDict

from experiments.reproduction import models, training
from experiments.workspace import Workspace
from trainers.process.cores import THREADS, threads_of_each
from trainers.process.errors import StorageError

_POLL = 2.0  # seconds


def execute_all(runs, config, workspace, jobs, show):
    """Executes runs, those that others start from first.

    What is finished is kept in the folder of its run: after any stop the same call goes on from
    there, and a run that was under way from its last epoch.

    Args:
        runs: `experiments.reproduction.grid.Run`s.
        config: The configuration of the experiment, a nested dictionary.
        workspace: An `experiments.workspace.Workspace`.
        jobs: Number of processes.
        show: Called every few seconds with the records so far, a dictionary.

    Returns:
        Dictionary from the name of a run to its record, in the order of `runs`.

    Raises:
        StorageError: If a process was killed, for want of memory, say.
    """
    found = {run.name: training.kept(run, workspace) for run in runs}
    records = {name: record for name, record in found.items() if record is not None}
    waiting = [run for run in runs if run.name not in records]
    if not waiting:
        return records
    # A process of its own even for one: a fork would share TensorFlow's threads.
    context = multiprocessing.get_context("spawn")
    threads = dict.fromkeys(THREADS, str(threads_of_each(jobs)))
    with _environment({"KERAS_BACKEND": "tensorflow", **threads}):
        pool = futures.ProcessPoolExecutor(jobs, context, _prepare)
        try:
            pending = {}
            while waiting or pending:
                for run in [r for r in waiting if r.after is None or r.after in records]:
                    waiting.remove(run)
                    pending[pool.submit(_execute, run, config, os.fspath(workspace.path))] = run
                finished, _ = futures.wait(pending, _POLL, futures.FIRST_COMPLETED)
                for future in finished:
                    records[pending.pop(future).name] = future.result()
                show(records)
        except BrokenProcessPool:
            _end(pool)
            raise StorageError(
                "A process was killed, perhaps for want of memory. Start the same command with "
                "fewer --jobs: it goes on where it was."
            ) from None
        except BaseException:
            _end(pool)
            raise
        pool.shutdown()
    return {run.name: records[run.name] for run in runs}


def _end(pool):
    """Ends all processes: they save the state of their trainings."""
    pool.shutdown(wait=False, cancel_futures=True)
    for child in multiprocessing.active_children():
        child.terminate()
    for child in multiprocessing.active_children():
        child.join()


@contextlib.contextmanager
def _environment(variables):
    """Meanwhile the environment has these variables, for processes that are started."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _prepare():
    """What a process does first."""
    # Of Ctrl-C the parent takes care: it ends the processes, and trainings save their state.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tf.get_logger().setLevel("ERROR")


def _execute(run, config, workdir):
    """One run, in a process of the pool."""
    config = ConfigDict(config)
    images = models.get(config.experiment).load(config)
    return training.execute(run, config, images, Workspace(workdir, config.to_dict()))

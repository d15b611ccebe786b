"""Launcher of the workers of a training: they are watched, started again, stopped, ended."""

import os
import shutil
import signal
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from trainers.launch.output import Console, Pump
from trainers.launch.watchdog import Watchdog
from trainers.launch.worker import Worker, environment, free_addresses
from trainers.process.exits import CONFIG, FINAL, STOPPED, UNAVAILABLE, USAGE

POLL = 0.05  # seconds between two looks at the workers
SETTLE = 2.0  # seconds for the others to end by themselves, so that the first cause is known
ECHO = 0.2  # seconds in which a repeated signal is the same one, passed on by a wrapper as well


class Verdict(NamedTuple):
    """How an attempt ended: an exit code, whether to start again, and why, in words."""

    code: int
    again: bool
    text: str


class Launcher:
    """Runs the workers of one training on this machine until they have finished.

    Args:
        command: List of a program and its arguments, run by every worker.
        num_workers: Number of workers.
        max_restarts: How often all of them may be started again.
        hang_timeout: Seconds without a heartbeat after which a worker is hung. Those that never
            gave one are not watched in this way. 0 for never.
        grace: Seconds between SIGTERM and SIGKILL.
        threads: Threads of a worker; `None` for what the environment says, or the cores of this
            machine divided by the number of workers.
        log_dir: Folder for a file a worker with what it prints.

    Example:
        `Launcher(["python", "train.py"], 2).run()` gives the exit code.
    """

    def __init__(
        self,
        command,
        num_workers,
        *,
        max_restarts=3,
        hang_timeout=300.0,
        grace=30.0,
        threads=None,
        log_dir=None,
    ):
        command = [command] if isinstance(command, (str, os.PathLike)) else list(command)
        if not command:
            raise ValueError("`command` must be a program and its arguments. Received: none.")
        bounds = {"num_workers": (num_workers, 1), "max_restarts": (max_restarts, 0)}
        bounds |= {"hang_timeout": (hang_timeout, 0), "grace": (grace, 0)}
        bounds |= {"threads": (1 if threads is None else threads, 1)}
        for name, (value, least) in bounds.items():
            if not value >= least:
                raise ValueError(f"`{name}` must be >= {least}. Received: {name}={value!r}.")
        self.command = [os.fspath(part) for part in command]
        self.num_workers = num_workers
        self.max_restarts = max_restarts
        self.hang_timeout = hang_timeout
        self.grace = grace
        self.threads = threads
        self.log_dir = log_dir
        self._console = Console()
        self._signals = []  # those received, and when

    def run(self):
        """Start the workers, watch them, start them again.

        Signals are handled if this is the main thread; call `stop` in others.

        Returns:
            The exit code. 0: all have finished. 75: they were stopped and have saved. Else that of
            the worker to blame, or 128 plus the signal that it, or the launcher, received.
        """
        if os.environ.get("TF_CONFIG"):
            self._console.say(
                "Error: expected no TF_CONFIG in the environment, for every worker gets its own. "
                f"Received TF_CONFIG={os.environ['TF_CONFIG']!r}. Is this a launch inside a "
                "launch, or in a cluster that starts the workers itself? Then run the command "
                "alone; else `unset TF_CONFIG`."
            )
            return CONFIG
        if shutil.which(self.command[0]) is None:
            self._console.say(
                "Error: expected a program that can be executed after the flags. Received "
                f"{self.command[0]!r}, which is not in PATH, or not a file, or not executable. "
                "A script is run by its interpreter, as in `-- python train.py`."
            )
            return USAGE
        if self.log_dir is not None:
            Path(self.log_dir).mkdir(parents=True, exist_ok=True)
        self._signals = []
        with (
            tempfile.TemporaryDirectory(
                prefix="deq_keras_launch_", ignore_cleanup_errors=True
            ) as folder,
            self._handlers(),
            Watchdog(folder) as watchdog,
        ):
            restarts = 0
            while True:
                verdict = self._attempt(Path(folder) / str(restarts), watchdog)
                if not verdict.again or self._signals or restarts == self.max_restarts:
                    break
                restarts += 1
                self._console.say(f"{verdict.text}; restart {restarts} of {self.max_restarts}")
        if verdict.again and self._signals:  # it came when all had ended
            signum = signal.Signals(self._signals[0][0])
            verdict = Verdict(128 + signum, False, f"{verdict.text}; stopped by {signum.name}")
        elif verdict.again:
            text = f"{verdict.text}; no restart is left of {self.max_restarts}"
            verdict = verdict._replace(text=text)
        if verdict.text:
            self._console.say(verdict.text)
        return verdict.code

    def stop(self, signum=signal.SIGTERM, frame=None):
        """What a signal does: the first asks the workers to save and end, a second kills them."""
        now = time.monotonic()
        if not self._signals or now - self._signals[-1][1] > ECHO:
            self._signals.append((signum, now))

    @contextmanager
    def _handlers(self):
        before = {}
        if threading.current_thread() is threading.main_thread():
            # Where it is ignored, by inheritance, the exit codes of children are lost.
            before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                if signum != signal.SIGHUP or signal.getsignal(signum) != signal.SIG_IGN:  # nohup
                    before[signum] = signal.signal(signum, self.stop)
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)

    def _attempt(self, folder, watchdog):
        """All workers from their start to their end."""
        folder.mkdir()
        addresses = free_addresses(self.num_workers)
        workers, pump = [], None
        try:
            for index in range(self.num_workers):
                heartbeat = folder / f"heartbeat-{index}"
                env = environment(addresses, index, heartbeat, self.threads)
                workers.append(Worker(index, self.command, env))
                watchdog.add(workers[-1].pid)
            pump = Pump(self._console, workers, self.log_dir)
            pump.start()
            return self._watch(workers)
        finally:
            self._kill(workers)
            for worker in workers:
                if worker.code is not None:
                    watchdog.remove(worker.pid)
            if pump is not None:
                pump.finish()

    def _watch(self, workers):
        """Until all have finished, or one has failed, or we are told to stop."""
        before = time.monotonic()
        while not self._signals:
            running = [worker for worker in workers if worker.poll() is None]
            if any(worker.code for worker in workers):
                return self._after_failure(workers)
            if not running:
                return Verdict(0, False, "")
            # When this machine or this process slept, or nobody read what the workers print, they
            # could not beat.
            now = time.monotonic()
            elapsed = 0.0 if self._console.blocked else min(now - before, 1.0)
            before = now
            silences = {worker: worker.silence(elapsed) for worker in running}
            if self.hang_timeout and max(silences.values()) > self.hang_timeout:
                # Those who wait for it are silent as well.
                hung = max(running, key=lambda worker: (worker.is_stopped(), silences[worker]))
                held = ", it is stopped" if hung.is_stopped() else ""
                text = f"worker {hung.index} hangs (no heartbeat in {silences[hung]:.3g} s{held})"
                return Verdict(128 + signal.SIGKILL, True, text)
            time.sleep(POLL)
        return self._after_signal(workers)

    def _after_failure(self, workers):
        self._wait(workers, SETTLE, lambda: any(w.code in FINAL for w in workers))
        ended = [worker for worker in workers if worker.code is not None]
        ended.sort(key=lambda worker: worker.ended)
        final = [worker for worker in ended if worker.code in FINAL]
        if final:
            self._end(workers, min(SETTLE, self.grace))
            text = f"{final[0].fate()}: it would do so again, so there is no restart"
            return Verdict(final[0].code, False, text)
        if self._signals:
            return self._after_signal(workers)
        if any(worker.code == STOPPED for worker in ended):
            self._end(workers, self.grace)
            return Verdict(STOPPED, False, "stopped: run the same command again to go on")
        failed = [worker for worker in ended if worker.code]
        # Who lost another worker is not to blame if one ended in another way.
        first = min(failed, key=lambda worker: worker.code == UNAVAILABLE)
        held = [
            f"; worker {w.index} is stopped" for w in workers if w not in ended and w.is_stopped()
        ]
        # The others may wait in a collective operation for ever; their last checkpoint is sound.
        code = first.code if first.code > 0 else 128 - first.code
        return Verdict(code, True, first.fate() + "".join(held))

    def _after_signal(self, workers):
        signum = signal.Signals(self._signals[0][0])
        for worker in workers:
            worker.terminate()
        self._console.say(
            f"{signum.name}: the workers have {self.grace:g} s to save and end; a second signal "
            "kills them"
        )
        self._wait(workers, self.grace, signals=2)
        self._kill(workers)
        codes = {worker.code for worker in workers}
        if codes == {0}:
            return Verdict(0, False, "all workers had finished")
        if codes <= {0, STOPPED}:
            return Verdict(STOPPED, False, "stopped: run the same command again to go on")
        fates = [
            f"worker {worker.index} did not end and was killed" if worker.killed else worker.fate()
            for worker in workers
            if worker.code not in (0, STOPPED)
        ]
        return Verdict(128 + signum, False, f"stopped by {signum.name}; {', '.join(fates)}")

    def _wait(self, workers, seconds, enough=lambda: False, signals=1):
        """Until all workers have ended, or `enough`, or that many signals came."""
        deadline = time.monotonic() + seconds
        while any([worker.poll() is None for worker in workers]):  # a list: look at all of them
            if enough() or len(self._signals) >= signals or time.monotonic() > deadline:
                break
            time.sleep(POLL)

    def _end(self, workers, seconds):
        for worker in workers:
            worker.terminate()
        self._wait(workers, seconds, signals=2)
        self._kill(workers)

    def _kill(self, workers):
        for worker in workers:
            worker.kill()
        self._wait(workers, 10.0, signals=float("inf"))
        for worker in workers:
            if worker.code is None:  # in the kernel, as on a file server that does not answer
                self._console.say(f"worker {worker.index} (process {worker.pid}) cannot be killed")

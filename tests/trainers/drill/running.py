"""Launchers with real workers, which train what `program` says, and what they leave."""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[3]


def command(workdir, runs, *arguments):
    main = [sys.executable, "-m", "tests.trainers.drill", workdir, runs, "multi_worker"]
    launch = [sys.executable, "-m", "trainers.launch", "--num_workers=2", "--threads=1"]
    flags = ["--max_restarts=20", "--hang_timeout=12", "--grace=20"]
    return list(map(str, [*launch, *flags, "--", *main, *arguments]))


@contextlib.contextmanager
def started(*arguments):
    """A launcher with its workers, all of which are gone afterwards."""
    process = subprocess.Popen(
        command(*arguments),
        cwd=ROOT,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()
        deadline = time.monotonic() + 10
        while left := processes(arguments[0]):
            assert time.monotonic() < deadline, f"left over: {left}"
            time.sleep(0.1)


def processes(workdir):
    """The command lines of the processes that run for a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if str(workdir) in line and "trainers.drill" in line:
                found.append(line)
    return found


def finish(*arguments, code=0, timeout=300):
    """Runs workers until they end; what they said."""
    with started(*arguments) as process:
        said, _ = process.communicate(timeout=timeout)
        assert process.returncode == code, said
        assert not processes(arguments[0])
    return said


def log(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def final(workdir):
    with np.load(workdir / "final.npz") as file:
        return dict(file)

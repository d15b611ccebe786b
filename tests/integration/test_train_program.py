"""`python -m experiments.train` as people start it: signals, exit codes, and the same end."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.experiments.conftest import make_pictures
from trainers import exits

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 600  # seconds, on a machine that does much else
TINY = (
    "--config.model=tests.experiments.own_model:small",
    "--config.data.patch_size=12",
    "--config.train.batch_size=2",
    "--config.train.epochs=40",
    "--config.train.steps_per_epoch=3",
    "--config.train.save_every=2",
    "--config.train.average=0.9",
    "--config.train.clip_norm=0.5",
)


def start(*arguments):
    """The program as a process, with pipes for what it says."""
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.train", *TINY, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def finish(process):
    """`(exit code, stdout, stderr)` of a process that ends by itself."""
    try:
        output, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    return process.returncode, output, errors


def interrupt(signum, landmark, *arguments):
    """Start the program, and send it a signal as soon as a file is there."""
    process = start(*arguments)
    deadline = time.monotonic() + PATIENCE
    while not landmark.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signum)
    return finish(process)


def numbers(folder):
    """All that was logged, without the times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def kernel(folder):
    with h5py.File(folder / "final.weights.h5") as file:
        found = []
        file["layers"].visititems(
            lambda _, item: found.append(item[()]) if isinstance(item, h5py.Dataset) else None
        )
    return found


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["none", "mirrored"])
def test_stopped_killed_and_started_again_it_is_the_same_training(tmp_path, strategy):
    data = make_pictures(tmp_path / "pictures")
    flags = (f"--data_dir={data}", f"--strategy={strategy}")
    code, output, errors = finish(start(f"--workdir={tmp_path / 'whole'}", *flags))
    assert code == 0, errors
    assert output.splitlines()[-1].startswith("Trained for 40 epochs, 120 steps.")
    folder = tmp_path / "stopped"
    command = (f"--workdir={folder}", *flags)
    for signum, step, expected in (
        (signal.SIGTERM, 2, exits.STOPPED),
        (signal.SIGKILL, 33, -signal.SIGKILL),
        (signal.SIGINT, 60, exits.STOPPED),
    ):
        landmark = folder / "checkpoints" / f"ckpt-{step}.index"
        code, _, errors = interrupt(signum, landmark, *command)
        assert code == expected, errors
        assert "Traceback" not in errors
        assert not (folder / "final.weights.h5").exists()
        if expected == exits.STOPPED:
            name = signal.Signals(signum).name
            assert errors.endswith(f"Stopped by {name}. Run the same command again to go on.\n")
    code, _, errors = finish(start(*command))
    assert code == 0, errors
    assert numbers(folder) == numbers(tmp_path / "whole")
    for one, other in zip(kernel(folder), kernel(tmp_path / "whole"), strict=True):
        np.testing.assert_array_equal(one, other)

"""Real processes on loopback: many are one, and what kills them costs a restart and no more.

Many are also the devices of one process. All this is in one file, for most of the time is
TensorFlow's start: what is compared is trained by the same processes, one after the other.
"""

import json
import random
import signal
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.drill import program
from tests.trainers.drill.running import final, finish, log, started
from trainers.process import exits

TOTAL = program.EPOCHS * program.STEPS
SAME = ("step", "epoch", "skipped", "loss", "psnr", "val_loss", "val_psnr", "learning_rate")


def assert_same(folder, rows, weights):
    """Losses, metrics and weights of two runs agree to 1e-5, relatively."""
    for new, old in zip(log(folder), rows, strict=True):
        assert new.keys() == old.keys()
        for name in old.keys() & set(SAME):
            assert new[name] == pytest.approx(old[name], rel=1e-5), name
    for name, new in final(folder).items():
        if name.startswith("model"):
            assert np.linalg.norm(new - weights[name]) <= 1e-5 * np.linalg.norm(weights[name])


class Hurt(NamedTuple):
    """A training that was stopped, and killed when it went on.

    Attributes:
        folder: Where it is, as `hurt`. Beside it are those that the last of its workers made after
            it, to which nothing happened, each under the name of its model.
        code: The exit code of the launcher that was stopped.
        said: What it printed.
        left: Whether it left final weights.
    """

    folder: Path
    code: int
    said: str
    left: bool


@pytest.fixture(scope="module")
def hurt(tmp_path_factory):
    """SIGTERM of all; then the same command, which loses a worker."""
    folder = tmp_path_factory.mktemp("hurt")
    runs = "hurt=conv,conv,bilevel"
    with started(folder, runs) as process:
        deadline = time.monotonic() + 120
        path = folder / "hurt" / "metrics.jsonl"
        while not path.exists() or len(path.read_text().splitlines()) < 4:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    left = (folder / "hurt" / "final.npz").exists()
    kill = {"kind": "KILL", "worker": 1, "step": TOTAL - 4, "delay": 0.01}
    drill(folder, runs, [kill], least=1)
    return Hurt(folder, process.returncode, said, left)


@pytest.fixture(scope="module")
def undisturbed(hurt, tmp_path_factory):
    """The folder of a run on two workers that nothing happened to, of a model."""
    others = tmp_path_factory.mktemp("undisturbed")

    def run(model):
        if (hurt.folder / model).exists():
            return hurt.folder / model
        if not (others / model).exists():
            finish(others, model)
        return others / model

    return run


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Log and weights of a run of a model on one device."""
    runs = {}

    def run(model):
        if model not in runs:
            folder = tmp_path_factory.mktemp(f"{model}-alone")
            program.train(folder, model, None)
            runs[model] = log(folder), final(folder)
        return runs[model]

    return run


# The two differ in the map that is solved, which has its own tests, not in how it is distributed.
MODELS = ["bilevel", pytest.param("equilibrium", marks=pytest.mark.slow)]


@pytest.mark.parametrize("model", MODELS)
def test_two_workers_are_one(undisturbed, alone, model):
    rows, weights = alone(model)
    assert_same(undisturbed(model), rows, weights)


@pytest.mark.slow  # step for step in tests/trainers/training/test_step.py
@pytest.mark.parametrize("model", MODELS)
def test_two_devices_are_one(mirrored, alone, tmp_path, model):
    rows, weights = alone(model)
    program.train(tmp_path, model, mirrored)
    assert_same(tmp_path, rows, weights)


# What kills them.


def assert_nothing_was_lost(workdir, expected):
    assert log(workdir) == log(expected)
    new, old = final(workdir), final(expected)
    assert new.keys() == old.keys()
    for name in old:
        np.testing.assert_array_equal(new[name], old[name], name)
    # No checkpoint is corrupt: TensorFlow compares each tensor with its checksum.
    paths = [path.with_suffix("") for path in workdir.glob("*/ckpt-*.index")]
    assert len(paths) == program.OPTIONS.keep + 1
    for path in paths:
        reader = tf.train.load_checkpoint(str(path))
        for name in reader.get_variable_to_shape_map():
            reader.get_tensor(name)


def plan(kinds, seed):
    """Faults at random moments, one after the other, of chief and worker; SAVE: of the chief."""
    draw = random.Random(seed)
    steps = sorted(draw.sample(range(2, TOTAL - 4), len(kinds)))
    faults = []
    for number, (kind, step) in enumerate(zip(kinds, steps, strict=True)):
        worker, delay = (number + seed) % 2, draw.uniform(0, 0.03)
        if kind == "SAVE":
            worker = 0
        faults.append({"kind": kind, "worker": worker, "step": step, "delay": delay})
    return faults


def drill(folder, runs, faults, least):
    path = folder / "faults.json"
    path.write_text(json.dumps(faults))
    said = finish(folder, runs, path, timeout=90 * (len(faults) + 1))
    happened = [json.loads(line) for line in Path(f"{path}.done").read_text().splitlines()]
    # The training may have ended before the last ones.
    assert happened == faults[: len(happened)], said
    assert len(happened) >= least, said
    assert said.count(" restart ") >= len(happened), said


def test_a_stop_of_all_has_a_code_of_its_own(hurt):
    assert hurt.code == exits.STOPPED, hurt.said
    assert "Run the same command again to go on." in hurt.said
    assert not hurt.left


def test_stopped_and_killed_it_is_the_same_training(hurt, undisturbed):
    assert_nothing_was_lost(hurt.folder / "hurt", undisturbed("conv"))


@pytest.mark.slow
def test_drill(undisturbed, tmp_path):
    # Of the chief, the worker, the chief: each kind once, for each costs two starts.
    kinds = ["SAVE", "KILL", "STOP"]
    drill(tmp_path, "conv", plan(kinds, 0), least=3)
    assert_nothing_was_lost(tmp_path / "conv", undisturbed("conv"))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "seed"), [("conv", 1), ("bilevel", 2), ("equilibrium", 3)])
def test_long_drill(undisturbed, tmp_path, model, seed):
    kinds = ["KILL", "SAVE"] * 5 + ["STOP", "KILL"]
    random.Random(seed).shuffle(kinds)
    drill(tmp_path, model, plan(kinds, seed), least=10)
    assert_nothing_was_lost(tmp_path / model, undisturbed(model))

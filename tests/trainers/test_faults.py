"""Real processes on loopback: what kills them costs a restart and no more."""

import json
import random
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tests.trainers.drill import program
from tests.trainers.drill.running import final, finish, log, started
from trainers.process import exits

TOTAL = program.EPOCHS * program.STEPS


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


def drill(folder, model, faults, expected, least):
    path = folder / "faults.json"
    path.write_text(json.dumps(faults))
    said = finish(folder, model, path, timeout=90 * (len(faults) + 1))
    happened = [json.loads(line) for line in Path(f"{path}.done").read_text().splitlines()]
    # The training may have ended before the last ones.
    assert happened == faults[: len(happened)], said
    assert len(happened) >= least, said
    assert said.count(" restart ") >= len(happened), said
    assert_nothing_was_lost(folder / model, expected)


def test_drill(undisturbed, tmp_path):
    kinds = ["SAVE", "KILL", "KILL", "STOP", "KILL"]  # of the chief, the worker and so on
    drill(tmp_path, "conv", plan(kinds, 0), undisturbed("conv"), least=5)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "seed"), [("conv", 1), ("bilevel", 2), ("equilibrium", 3)])
def test_long_drill(undisturbed, tmp_path, model, seed):
    kinds = ["KILL", "SAVE"] * 5 + ["STOP", "KILL"]
    random.Random(seed).shuffle(kinds)
    drill(tmp_path, model, plan(kinds, seed), undisturbed(model), least=10)


def test_sigterm_of_all_saves_and_has_a_code_of_its_own(undisturbed, tmp_path):
    with started(tmp_path, "conv") as process:
        deadline = time.monotonic() + 120
        path = tmp_path / "conv" / "metrics.jsonl"
        while not path.exists() or len(path.read_text().splitlines()) < 4:
            assert time.monotonic() < deadline
            assert process.poll() is None, process.communicate()[0]
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
        assert process.returncode == exits.STOPPED, said
        assert "Run the same command again to go on." in said
    assert not (tmp_path / "conv" / "final.npz").exists()
    finish(tmp_path, "conv")
    assert_nothing_was_lost(tmp_path / "conv", undisturbed("conv"))

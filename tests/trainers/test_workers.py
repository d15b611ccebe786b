"""Many are one: real processes on loopback, or two devices, train as one device does."""

import numpy as np
import pytest

from tests.trainers.drill import program
from tests.trainers.drill.running import final, log

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


@pytest.mark.parametrize("model", ["bilevel", "equilibrium"])
def test_two_workers_are_one(undisturbed, alone, model):
    rows, weights = alone(model)
    assert_same(undisturbed(model), rows, weights)


@pytest.mark.parametrize("model", ["bilevel", pytest.param("equilibrium", marks=pytest.mark.slow)])
def test_two_devices_are_one(mirrored, alone, tmp_path, model):
    rows, weights = alone(model)
    program.train(tmp_path, model, mirrored)
    assert_same(tmp_path, rows, weights)

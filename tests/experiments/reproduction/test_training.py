"""Runs of a grid: what is trained, kept and said of them."""

import numpy as np
import pytest
import tensorflow as tf

from experiments.configs.riccio2022 import mnist
from experiments.reproduction import grid, training
from experiments.reproduction.images import Images
from experiments.workspace import Workspace
from trainers.process.errors import NotFinite

SETTINGS = {"task": "denoising", "noise": 0.5, "tau": 0.1, "gamma": 0.5, "activation": "relu"}


def _images(train=24, test=7):
    rng = np.random.default_rng(0)
    parts = (rng.uniform(-1, 1, (n, 28, 28, 1)).astype(np.float32) for n in (train, test))
    return Images(*parts, "made up")


def _config():
    config = mnist.get_config()
    config.train.batch_size, config.train.epochs, config.train.further_epochs = 8, 2, 1
    return config


def _run(model, start="random", fidelity="ours", after=None):
    return grid.Run({**SETTINGS, "model": model, "start": start, "fidelity": fidelity}, after)


# A bilevel run, an equilibrium run that starts from it, and a published one.
BILEVEL = _run("bilevel")
EQUILIBRIUM = _run("equilibrium", "bilevel", after=BILEVEL.name)
PUBLISHED = _run("bilevel", fidelity="paper")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    return Workspace(tmp_path_factory.mktemp("runs"), _config().to_dict())


@pytest.fixture(scope="module")
def record_of(workspace):
    """The record of a run, which is executed when it is first asked for."""
    images = _images(train=8, test=8)  # a batch, and one graph for both
    records = {}

    def of(run):
        if run.name not in records:
            records[run.name] = training.execute(run, _config(), images, workspace)
        return records[run.name]

    return of


def test_the_record_of_a_run(record_of, workspace):
    record = record_of(BILEVEL)
    assert record["id"] == BILEVEL.name
    assert record["settings"] == BILEVEL.settings
    assert [row["epoch"] for row in record["epochs"]] == [0, 1, 2]
    assert record["parameters"] == 784 * 784 + 784
    assert record["measurement"]["test_loss"] == pytest.approx(0.25, rel=0.05)
    last, final = record["epochs"][-1], record["final"]
    assert last["converged"] == last["backward_converged"] == 1.0
    assert final["test_loss"] == pytest.approx(last["test_loss"], rel=1e-5)
    assert final["test_loss"] == pytest.approx(final["exact_test_loss"], rel=1e-3)
    assert final["psnr"] == pytest.approx(10 * np.log10(4 / final["test_loss"]))
    assert final["gradient_error"] < 1e-2
    with np.load(workspace.path / "runs" / record["id"] / "pictures.npz") as pictures:
        assert pictures["estimate"].shape == pictures["truth"].shape == (4, 28, 28, 1)
        assert pictures["filters_A"].shape == (64, 28, 28, 1)


@pytest.mark.slow
def test_an_equilibrium_model_starts_as_the_trained_bilevel_one(record_of):
    trained = record_of(BILEVEL)["final"]  # the equilibrium run needs its weights
    record = record_of(EQUILIBRIUM)
    start = record["epochs"][0]
    for split in ("train_loss", "test_loss"):
        assert start[split] == pytest.approx(trained[split], rel=1e-4)
    assert record["final"]["distance"] > 0
    assert len(record["epochs"]) == 2


@pytest.mark.slow
def test_what_the_published_solver_leaves(record_of):
    """Backward, its absolute ridge stops it: all 50 steps, and a gradient that is wrong."""
    record = record_of(PUBLISHED)
    for row in record["epochs"][1:]:
        assert row["backward_converged"] == 0.0
        assert row["backward_steps"] == 51  # and one product for the true residual
        assert row["backward_residual"] > 0.01
    assert record["final"]["gradient_error"] > 0.05
    assert record["final"]["gradient_cosine"] > 0.9
    start, own = (found["epochs"][0]["test_loss"] for found in (record, record_of(BILEVEL)))
    assert start == pytest.approx(own, rel=0.02), "the same weights, forward nearly converged"


def test_a_finished_run_is_read(record_of, workspace, monkeypatch):
    record = record_of(BILEVEL)
    monkeypatch.setattr(training, "Trainer", None)
    found = training.execute(BILEVEL, _config(), _images(), workspace)
    assert found == record


def test_a_run_that_ends_in_nan_is_a_result(tmp_path, monkeypatch):
    def fit(*args, **kwargs):
        raise NotFinite("The gradient was not finite in 11 steps.")

    monkeypatch.setattr(training.Trainer, "fit", fit)
    losses = {"train_loss": 0.3, "test_loss": 0.4}
    monkeypatch.setattr(
        training._Execution, "_before", lambda *args: {"losses": losses, "initial": {}}
    )
    config = _config()
    workspace = Workspace(tmp_path, config.to_dict())
    record = training.execute(_run("bilevel"), config, _images(), workspace)
    assert record["failed"] == "The gradient was not finite in 11 steps."
    assert record["final"] is None
    assert record["epochs"] == [{"epoch": 0, **losses}]


def test_measurements():
    config, images = _config(), _images()
    data = training.Measurements(_run("bilevel").settings, config, images)
    batches = list(data.training().take(6))
    for epoch in (batches[:3], batches[3:]):  # every image once
        seen = np.concatenate([truth for _, truth in epoch])
        order = [images.train.reshape(24, -1).tolist().index(x.ravel().tolist()) for x in seen]
        assert sorted(order) == list(range(24))
    noises = [np.ravel(y - x) for y, x in batches]
    assert np.std(noises) == pytest.approx(0.5, rel=0.02)
    assert not np.allclose(noises[0], noises[1])
    for (y, x), (z, w) in zip(data.training(start_step=4).take(2), batches[4:], strict=True):
        np.testing.assert_array_equal(y, z)
        np.testing.assert_array_equal(x, w)
    np.testing.assert_array_equal(data.fixed("test")[0], data.fixed("test")[0])
    assert not np.allclose(data.fixed("test")[0] - images.test, data.fixed("train")[0][:7])


def test_pixels_that_are_not_measured_hold_noise_alone():
    settings = {**_run("bilevel").settings, "task": "inpainting"}
    measurement, _ = training.Measurements(settings, _config(), _images()).fixed("train")
    top = measurement[:, :10].numpy()
    assert np.mean(top) == pytest.approx(0.0, abs=0.02)
    assert np.std(top) == pytest.approx(0.5, rel=0.02)


def test_fewer_images_than_a_batch():
    data = training.Measurements(_run("bilevel").settings, _config(), _images(train=5))
    assert data.steps_per_epoch == 1
    assert next(iter(data.training()))[1].shape == tf.TensorShape([5, 28, 28, 1])

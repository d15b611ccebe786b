"""`experiments.export`: models of trainings and comparisons, and what is wrong with a command."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from experiments import evaluate, export, models, tasks, train, trained
from experiments.configs import demo
from experiments.workspace import Workspace
from tests.experiments.conftest import make_pictures
from trainers.process import exits, files
from trainers.process.errors import ConfigurationError

# How ml_collections loads a configuration file.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")

OWN = (
    "--config.model=tests.experiments.own_model:small",
    "--config.data.patch_size=12",
    "--config.train.batch_size=2",
    "--config.train.steps_per_epoch=2",
    "--config.train.epochs=2",
    "--config.train.learning_rate=0.01",
    "--config.train.tensorboard=False",
    "--config.train.deterministic=False",  # cannot be undone in a process of many tests
)


@pytest.fixture(scope="module")
def run(run_program, tmp_path_factory):
    """The folder of a small training that was evaluated."""
    folder = tmp_path_factory.mktemp("small")
    pictures = make_pictures(folder / "pictures")
    workdir = f"--workdir={folder / 'run'}"
    assert run_program(train, workdir, f"--data_dir={pictures}", *OWN) == 0
    assert run_program(evaluate, workdir, "--pictures=0") == 0
    return folder / "run"


def test_a_training_becomes_the_next_version(program, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of folders are relative to it, as people give them
    flags = (f"--workdir={run}", "--output=models/small")
    code, output, errors = program(export, *flags, "--licence=CC0-1.0", "--max_pixels=5000")
    assert code == 0, errors
    path = tmp_path / "models" / "small" / "1"
    assert f"Model: {path.relative_to(tmp_path)}" in output
    card = json.loads((path / "assets.extra" / "model_card.json").read_text("utf-8"))
    means = json.loads((run / "evaluation" / "results.json").read_text("utf-8"))["means"]
    assert card["metrics"]["PSNR (dB)"] == pytest.approx(means["psnr"])
    assert card["task"] == "denoising"
    assert card["licence"] == "CC0-1.0"
    assert card["max_pixels"] == 5000
    assert card["configuration"]["data"]["patch_size"] == 12
    model = trained.load(run).model
    image = np.random.default_rng(0).uniform(size=(1, 9, 14, 1)).astype("float32")
    loaded = tf.saved_model.load(path)
    found = loaded.signatures["serving_default"](measurement=tf.constant(image))
    np.testing.assert_allclose(found["reconstruction"], model(image), atol=1e-6)


@pytest.mark.slow  # the conversion itself: tests/trainers/export/formats
def test_other_formats_are_files(program, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    flags = (f"--workdir={run}", "--output=small", "--format=litert", "--size=12,9")
    code, output, errors = program(export, *flags)
    assert code == 0, errors
    assert (tmp_path / "small.tflite").is_file()
    assert "Largest difference of a pixel" in output


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--output=models/3",), "the number of the version is added"),
        (("--output=",), "Expected --output to be the folder of a model"),
        (("--data_dir=pictures",), "an export needs no images"),
        (("--size=12,9",), "together with a --format other than"),
        (("--size=12", "--format=onnx"), "Expected --size=HEIGHT,WIDTH"),
        (("--task=denoising",), "Expected --task and --model for a comparison only"),
    ],
)
def test_wrong_flags_are_explained(program, run, tmp_path, flags, message):
    default = () if flags[0].startswith("--output") else (f"--output={tmp_path / 'models'}",)
    code, _, errors = program(export, f"--workdir={run}", *default, *flags)
    assert code == exits.CONFIG
    assert message in errors
    assert not list(tmp_path.rglob("saved_model.pb"))


def test_a_folder_without_a_run_is_refused(program, tmp_path):
    code, _, errors = program(export, f"--workdir={tmp_path}", f"--output={tmp_path / 'models'}")
    assert code == exits.CONFIG
    assert "Expected --workdir to be the folder of a training" in errors


@pytest.fixture
def comparison(tmp_path):
    """The folder of a comparison, as `experiments.comparison` leaves it, and its weights."""
    config = demo.get_config()
    config.tasks, config.prior.filters, config.prior.kernel_size = ("denoising",), 2, 3
    workspace = Workspace(tmp_path, config.to_dict())
    task, kept = tasks.get("denoising", config), {}
    for name, make in {
        "bilevel_further": models.bilevel,
        "equilibrium": models.equilibrium,
    }.items():
        layer = make(task, config, weight=0.3)
        model = models.model(layer, task.inputs(1))
        workspace.once(("denoising", name), lambda: {"seconds": 1.0})
        files.save_weights(model, tmp_path / "denoising" / name / "final.weights.h5")
        kept[name.removesuffix("_further")] = layer.get_weights()
    workspace.once(("denoising", "total_variation"), lambda: {"weight": 0.07})
    methods = {"bilevel": {"psnr": 29.5, "ssim": None}}
    files.write_json(tmp_path / "results.json", {"tasks": {"denoising": {"methods": methods}}})
    return tmp_path, kept


def test_models_of_a_comparison_have_its_weights_and_results(comparison):
    folder, kept = comparison
    for name, weights in kept.items():
        found = trained.load(folder, name=name)
        for one, other in zip(found.model.layers[-1].get_weights(), weights, strict=True):
            np.testing.assert_array_equal(one, other)
    assert trained.load(folder, name="bilevel").metrics["psnr"] == 29.5
    total_variation = trained.load(folder, task="denoising", name="total_variation")
    weight = float(tf.exp(total_variation.model.layers[-1].cell.log_weight))
    assert weight == pytest.approx(0.07)


def test_what_a_comparison_does_not_have_is_refused(comparison):
    folder, _ = comparison
    with pytest.raises(ConfigurationError, match="Did you mean 'bilevel'"):
        trained.load(folder, name="bilevl")
    with pytest.raises(ConfigurationError, match="Unknown task of this comparison"):
        trained.load(folder, task="inpainting", name="bilevel")
    (folder / "denoising" / "equilibrium" / "done.json").unlink()
    with pytest.raises(ConfigurationError, match="run experiments.compare"):
        trained.load(folder, name="equilibrium")


def test_samples_are_measurements_that_a_model_takes():
    config = demo.get_config()
    for name in tasks.TASKS:
        task = tasks.get(name, config)
        found = export.samples(task, 1)
        assert len(found) == 3
        for sample in found:
            parts = tf.nest.flatten(sample)
            inputs = tf.nest.flatten(task.inputs(1))
            assert len(parts) == len(inputs)
            for part, symbolic in zip(parts, inputs, strict=True):
                assert part.shape[0] == 2
                assert keras.backend.standardize_dtype(part.dtype) == symbolic.dtype

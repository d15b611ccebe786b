"""`experiments.train`: what its configuration says is what is done, and kept, and continued."""

import contextlib
import io
import json
import re
import shutil
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from ml_collections import ConfigDict

from experiments import configuration, models, tasks, train
from experiments.configs import (
    demo,
    train_convex,
    train_demo,
    train_denoiser,
    train_denoiser_energy,
    train_natural,
    train_weakly_convex,
)
from experiments.inverse_problem import InverseProblem, fingerprint, load_images
from experiments.training_page import TrainingPage
from tests.experiments.conftest import logged, make_pictures, weights
from trainers.callbacks.tensorboard import TensorBoard
from trainers.datasets.images import ImageSet
from trainers.process import exits
from trainers.training.monitor import Monitor

# How ml_collections loads a configuration file.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")

OWN = "--config.model=tests.experiments.own_model:small"
TINY = (
    OWN,
    "--config.data.patch_size=12",
    "--config.train.batch_size=2",
    "--config.train.steps_per_epoch=2",
    "--config.train.decay_steps=0",
    "--config.train.tensorboard=False",
    "--config.train.deterministic=False",  # cannot be undone in a process of many tests
)


def rows(folder):
    """The lines of steps, and those of epochs, without the times."""
    lines = logged(folder)
    return [x for x in lines if "epoch" not in x], [x for x in lines if "epoch" in x]


def files(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("data") / "pictures", 7)


@pytest.fixture(scope="module")
def start(run_program, data):
    """Trains the small model in a folder; the exit code."""

    def run(folder, *arguments):
        return run_program(train, f"--workdir={folder}", f"--data_dir={data}", *TINY, *arguments)

    return run


@pytest.fixture(scope="module")
def trained(start, tmp_path_factory):
    """An uninterrupted training of three epochs; what it printed is beside its folder."""
    folder = tmp_path_factory.mktemp("trained") / "new" / "run"
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert start(folder, "--config.train.epochs=3", "--config.train.tensorboard=True") == 0
    (folder.parent / "printed.txt").write_text(printed.getvalue(), "utf-8")
    return folder


@pytest.fixture(scope="module")
def flat(start, tmp_path_factory):
    """A training whose rate is so small that nothing improves after the first epoch."""
    folder = tmp_path_factory.mktemp("flat")
    options = ("--config.train.early_stopping=3", "--config.train.reduce_on_plateau=1")
    rate = "--config.train.learning_rate=1e-12"
    assert start(folder, "--config.train.epochs=9", *options, rate) == 0
    return folder


# Arguments


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--config.task=denoisin"], "Did you mean 'denoising'", exits.CONFIG),
        (["--config.prior.name=fields_of_expert"], "Did you mean 'fields_of_ex", exits.CONFIG),
        (["--config.prior.name=Prior"], "Unknown prior 'Prior'", exits.CONFIG),
        (
            ["--config.model=bilevel", "--config.prior.name=total_variation"],
            "takes the arguments ['smoothing', 'train_smoothing']. Received also ['activation'",
            exits.CONFIG,
        ),
        (["--config.model=bilevle"], "'proximal'] or the name of a function", exits.CONFIG),
        (["--config.model=no.such:model"], "'no.such:model' cannot be imported", exits.CONFIG),
        (["--config.model=tests.experiments.own_model:none"], "cannot be imported", exits.CONFIG),
        (
            ["--config.model=tests.experiments.own_model:NOT_A_FUNCTION"],
            "to be a function. Received 1",
            exits.CONFIG,
        ),
        (
            ["--config.model=tests.experiments.own_model:nothing"],
            "to return a Keras model",
            exits.CONFIG,
        ),
        (["--config.seed=-1"], "0 <= seed", exits.CONFIG),
        (["--config.train.epochs=0"], "train.epochs >= 1. Received 0", exits.CONFIG),
        (["--config.train.steps_per_epoch=0"], "train.steps_per_epoch >= 1", exits.CONFIG),
        (["--config.train.decay_steps=-1"], "train.decay_steps >= 0", exits.CONFIG),
        (["--config.train.early_stopping=0"], "train.early_stopping >= 1", exits.CONFIG),
        (["--config.train.learning_rate=nan"], "train.learning_rate to be finite", exits.CONFIG),
        (["--config.train.weight=0.0"], "train.weight to be finite and > 0", exits.CONFIG),
        (["--config.train.accumulation=0"], "accumulation=0", exits.CONFIG),
        (["--config.train.clip_norm=-1.0"], "clip_norm=-1.0", exits.CONFIG),
        (["--config.train.average=1.0"], "average=1.0", exits.CONFIG),
        (["--config.train.precision=float8"], "precision='float8'", exits.CONFIG),
        (["--config.train.keep=0"], "keep=0", exits.CONFIG),
        (["--config.train.mode=low"], "mode='low'", exits.CONFIG),
        (
            ["--config.train.monitor=val_ssim", "--config.train.mode=max"],
            "'val_ssim'. Did you mean 'val_loss'? Expected one of ['loss', 'psnr', 'val_",
            exits.CONFIG,
        ),
        (
            ["--config.train.monitor=val_psnr", "--config.train.mode=min"],
            "the mode 'max' for 'val_psnr', of which more is better",
            exits.CONFIG,
        ),
        (["--config.train.validation=some"], "Received 'some'", exits.CONFIG),
        (
            ["--config.train.validation=", "--config.train.early_stopping=2"],
            "a train.monitor that is there without validation",
            exits.CONFIG,
        ),
        (
            ["--config.train.reduce_on_plateau=2", "--config.train.decay_steps=9"],
            "train.decay_steps=9: set it to 0",
            exits.CONFIG,
        ),
        (["--config.may_change=('train.epoch',)"], "in may_change. Received", exits.CONFIG),
        (["--config.train.epoch=3"], "no entry 'epoch'", exits.USAGE),
        (["--strategy=miror"], "--strategy=miror", exits.USAGE),
        (["--strategy=multi_worker"], "TF_CONFIG", exits.CONFIG),
        (["--data_dir="], "--data_dir to be the name of a folder", exits.CONFIG),
        (["--data_dir=no/such/folder"], "which does not exist", exits.BAD_DATA),
        (["--config.data.patch_size=24"], "larger than", exits.CONFIG),
        (["--config.model=bilevel", "--config.prior.activation=tan"], "'tan'", exits.CONFIG),
        (
            ["--config.model=bilevel", "--config.train.tolerance=-1.0"],
            "tolerance",
            exits.CONFIG,
        ),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_wrong_arguments_end_before_any_work(program, tmp_path, data, arguments, message, code):
    folder = tmp_path / "run"
    ended = program(train, f"--workdir={folder}", f"--data_dir={data}", *TINY, *arguments)
    assert message in ended.errors
    assert ended.errors.startswith("Error: ")
    assert ended.code == code
    assert not folder.exists()


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--config.data.name=folders", "Unknown data set 'folders'. Did you mean 'folder'"),
        ("--config.data.name=folder", "'folder' takes the arguments ['data_dir'"),
        ("--config.data.data_dir=x", "'photographs' takes the arguments ['cache_dir']"),
    ],
)
def test_wrong_data_sets_end_before_any_work(program, tmp_path, argument, message):
    ended = program(train, f"--workdir={tmp_path / 'run'}", *TINY, argument)
    assert message in ended.errors
    assert ended.code == exits.CONFIG
    assert not (tmp_path / "run").exists()


def test_configuration_of_the_comparison_is_refused(program, tmp_path):
    ended = program(train, f"--config={demo.__file__}", f"--workdir={tmp_path / 'run'}")
    assert ended.code == exits.CONFIG
    assert "a configuration of experiments.train. Received one without" in ended.errors


CONFIGURATIONS = (train_demo, train_natural, train_convex, train_weakly_convex)
CONFIGURATIONS += (train_denoiser, train_denoiser_energy)


@pytest.mark.parametrize("module", CONFIGURATIONS)
def test_configurations_are_right(module):
    config = module.get_config()
    configuration.check_training(config)
    models.prior(config.prior)
    assert config.train.decay_steps == config.train.epochs * config.train.steps_per_epoch
    named = set(configuration.names(config))
    assert set(config.may_change) <= named
    options = configuration.training_options(config)
    for name, value in vars(options).items():
        assert value == config.train[name]


# What a run leaves


def test_everything_is_in_the_folder(trained, data):
    for name in ("checkpoints", "best", "tensorboard"):
        assert list((trained / name).iterdir()), name
    kept = json.loads((trained / "config.json").read_text())
    assert kept["train"]["epochs"] == 3
    assert kept["data"]["data_dir"] == str(data)
    expected = train_demo.get_config().to_dict()
    assert set(configuration.names(kept)) == {*configuration.names(expected), "images"}
    steps, epochs = rows(trained)
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in epochs] == [2, 4, 6]
    assert all(row["val_loss"] > 0 and row["val_psnr"] > 0 for row in epochs)


@pytest.mark.slow  # what is on it: test_training_report.py
def test_page_of_the_training_is_that_of_all_its_epochs(start, trained, tmp_path):
    """Also where it was stopped in between, and where the run was over before there were pages."""
    assert "3 epochs and 6 steps" in (trained / "training.html").read_text("utf-8")
    assert start(tmp_path, "--config.train.epochs=1") == 0
    page = tmp_path / "training.html"
    assert "1 epoch and 2 steps" in page.read_text("utf-8")
    assert start(tmp_path, "--config.train.epochs=2", "--config.train.validation=") == exits.CONFIG
    assert start(tmp_path, "--config.train.epochs=2") == 0
    assert "2 epochs and 4 steps" in page.read_text("utf-8")
    page.unlink()
    assert start(tmp_path, "--config.train.epochs=2") == 0
    assert "2 epochs and 4 steps" in page.read_text("utf-8")


CONDITIONING = ("smallest", "largest", "skew", "norm", "condition")


@pytest.mark.slow
def test_conditioning_is_logged_after_each_epoch_and_may_be_turned_on_later(start, tmp_path):
    own = ("--config.model=tests.experiments.own_model:solving", "--config.train.tensorboard=True")
    assert start(tmp_path, *own, "--config.train.epochs=1") == 0
    more = ("--config.train.epochs=2", "--config.train.conditioning=True")
    assert start(tmp_path, *own, *more) == 0
    _, (before, after) = rows(tmp_path)
    assert "tv_condition" not in before
    assert all(after[f"tv_{name}"] is not None for name in CONDITIONING)
    assert after["tv_skew"] == 0.0  # of an energy
    assert 0 < after["tv_smallest"] < after["tv_largest"] <= 1
    assert after["tv_condition"] == pytest.approx(after["tv_norm"] / after["tv_smallest"])
    assert after["tv_weight"] > 0
    assert "Conditioning" in (tmp_path / "training.html").read_text("utf-8")
    written = b"".join(p.read_bytes() for p in (tmp_path / "tensorboard").iterdir())
    assert b"epoch/tv_condition" in written


def test_conditioning_of_a_model_that_solves_nothing_is_refused(program, tmp_path, data):
    arguments = (f"--workdir={tmp_path}", f"--data_dir={data}", *TINY)
    ended = program(train, *arguments, "--config.train.conditioning=True")
    assert ended.code == exits.CONFIG
    assert "Expected a model with a layer that is solved, for train.conditioning" in ended.errors
    assert not (tmp_path / "metrics.jsonl").exists()


def test_last_line_says_what_was_reached(trained):
    _, epochs = rows(trained)
    line = (trained.parent / "printed.txt").read_text("utf-8").splitlines()[-1]
    assert line.startswith("Trained for 3 epochs, 6 steps. Best, epoch ")
    assert f"val_psnr {epochs[-1]['val_psnr']:.4g}." in line


def test_tensorboard_may_be_left_out(flat):
    assert not (flat / "tensorboard").exists()


def test_weights_are_those_of_the_steps(trained, data):
    """Adam by hand, from the weights before: the gradients are those of the logged losses."""
    # The optimizer's moments are in the file as well.
    (kernel,) = (value for name, value in weights(trained).items() if name.startswith("layers/"))
    assert kernel.shape == (3, 3, 1, 1)
    steps, _ = rows(trained)
    assert len({row["loss"] for row in steps}) == len(steps)
    keras.utils.set_random_seed(0)
    config = ConfigDict(json.loads((trained / "config.json").read_text()))
    problem = InverseProblem(tasks.get("denoising", config), config, load_images(config))
    model = models.builder(problem, config, None)()
    for row, (y, truth) in zip(steps, problem.training(), strict=False):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(y) - truth) ** 2)
        assert row["loss"] == pytest.approx(float(loss), rel=1e-5)
        (gradient,) = tape.gradient(loss, model.trainable_variables)
        model.optimizer.apply([gradient], model.trainable_variables)
    np.testing.assert_allclose(model.trainable_variables[0], kernel, rtol=1e-4, atol=1e-6)


# Stopped and started again


@pytest.mark.slow  # the trainer does so in tests/trainers
def test_continued_with_more_epochs_it_is_the_same_training(start, trained, tmp_path):
    assert start(tmp_path, "--config.train.epochs=1") == 0
    more = ("--config.train.keep=1", "--config.train.early_stopping=9", "--config.train.epochs=3")
    assert start(tmp_path, *more) == 0
    assert rows(tmp_path) == rows(trained)
    once, twice = weights(trained), weights(tmp_path)
    assert once.keys() == twice.keys()
    for name in once:
        np.testing.assert_array_equal(once[name], twice[name])
    assert json.loads((tmp_path / "config.json").read_text())["train"]["keep"] == 1


def test_finished_run_started_again_trains_nothing(start, trained):
    before, steps = files(trained), rows(trained)
    assert start(trained, "--config.train.epochs=3", "--config.train.tensorboard=True") == 0
    after = files(trained)
    for path, time in before.items():
        if path.parent.name in ("checkpoints", "best") or path.name == "config.json":
            assert after[path] == time, path
    assert rows(trained) == steps


def test_other_configuration_is_refused(program, trained, data):
    before = files(trained)
    other = "--config.train.learning_rate=0.5"
    ended = program(train, f"--workdir={trained}", f"--data_dir={data}", *TINY, other)
    assert ended.code == exits.CONFIG
    assert "(train.learning_rate was 0.03, is 0.5)" in ended.errors
    assert files(trained) == before


def test_other_pictures_are_refused(program, trained, data):
    before, another = files(trained), data / "another.png"
    shutil.copy(data / "6.png", another)
    ended = program(train, f"--workdir={trained}", f"--data_dir={data}", *TINY)
    another.unlink()
    assert ended.code == exits.CONFIG
    assert re.search("another configuration .*images was '[0-9a-f]+', is", ended.errors)
    assert files(trained) == before


# What the entries do


def test_validation_of_whole_images_and_none(start, tmp_path):
    assert (
        start(tmp_path / "whole", "--config.train.epochs=1", "--config.train.validation=images")
        == 0
    )
    assert start(tmp_path / "none", "--config.train.epochs=1", "--config.train.validation=") == 0
    whole, none = (rows(tmp_path / name)[1][0] for name in ("whole", "none"))
    assert whole["val_loss"] > 0
    assert not [name for name in none if name.startswith("val_")]
    assert whole["loss"] == none["loss"]


def test_early_stopping_ends_it(flat):
    _, epochs = rows(flat)
    assert len(epochs) == 4  # the first, and three without improvement


def test_rate_is_halved_on_a_plateau(flat):
    steps, _ = rows(flat)
    rates = [row["learning_rate"] for row in steps[::2]]
    np.testing.assert_allclose(rates, [1e-12, 1e-12, 5e-13, 2.5e-13], rtol=1e-5)


def fake_trainer(folder, is_chief=True):
    monitor = Monitor("val_psnr", "max")
    return types.SimpleNamespace(workdir=folder, is_chief=is_chief, monitor=monitor)


@pytest.mark.parametrize("is_chief", [True, False])
def test_callbacks_are_those_of_the_configuration(tmp_path, data, is_chief):
    config = train_demo.get_config()
    configuration.use_folder(config, str(data))
    config.data.patch_size = 12
    config.train.early_stopping, config.train.reduce_on_plateau = 3, 2
    problem = InverseProblem(tasks.get("denoising", config), config, load_images(config))
    found = train.callbacks(problem, config, fake_trainer(tmp_path, is_chief))
    plateau, stopping, board, page = found
    assert isinstance(plateau, keras.callbacks.ReduceLROnPlateau)
    assert isinstance(stopping, keras.callbacks.EarlyStopping)
    assert isinstance(board, TensorBoard)
    assert isinstance(page, TrainingPage)
    assert (plateau.patience, stopping.patience) == (2, 3)
    assert plateau.monitor == stopping.monitor == "val_psnr"
    assert plateau.mode == stopping.mode == "max"
    assert (board.examples is not None) == is_chief
    config.train.early_stopping = config.train.reduce_on_plateau = None
    config.train.tensorboard = False
    (page,) = train.callbacks(problem, config, fake_trainer(tmp_path))
    assert isinstance(page, TrainingPage)


def test_only_the_chief_writes_the_final_weights(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    for is_chief in (False, True):
        train.save_final(types.SimpleNamespace(workdir=tmp_path, is_chief=is_chief, model=model))
        assert [path.name for path in tmp_path.iterdir()] == ["final.weights.h5"] * is_chief


HISTORY = [
    {"epoch": 1, "step": 5, "loss": 0.3, "val_loss": 0.2, "val_psnr": 20.0},
    {"epoch": 2, "step": 10, "loss": 0.2, "val_loss": 0.4, "val_psnr": 25.0},
    {"epoch": 3, "step": 15, "loss": 0.1, "val_loss": 0.3, "val_psnr": 22.0},
]


@pytest.mark.parametrize(
    ("monitor", "mode", "best"),
    [("val_loss", "min", 1), ("val_psnr", "max", 2), ("loss", "min", 3)],
)
def test_summary_names_the_best_epoch(monitor, mode, best):
    line = train.summary(HISTORY, Monitor(monitor, mode))
    assert line.startswith("Trained for 3 epochs, 15 steps.")
    assert f"Best, epoch {best}: loss {HISTORY[best - 1]['loss']}" in line
    assert line.endswith("Last, epoch 3: loss 0.1, val_loss 0.3, val_psnr 22.")


# The models


@pytest.fixture(scope="module")
def problem(data):
    config = train_demo.get_config()
    configuration.use_folder(config, str(data))
    config.data.patch_size = 12
    config.prior.filters, config.prior.kernel_size = 2, 3
    config.train.batch_size, config.evaluate.training_batches = 2, 1
    return InverseProblem(tasks.get("denoising", config), config, load_images(config))


def test_first_weight_is_the_best_for_the_fixed_patches(problem, tmp_path):
    config = problem.config
    found = models.first_weight(problem, config, tmp_path)
    (y, truth) = problem.fixed_patches[0]

    layer = models.bilevel(problem.task, problem.config, found)
    layer.build(y.shape)

    def loss(weight):
        layer.cell.log_weight.assign(np.log(weight))
        return float(tf.reduce_mean((layer.solve(y).value - truth) ** 2))

    assert loss(found) <= min(loss(found / 1.5), loss(found * 1.5))
    with_weight = ConfigDict(config.to_dict())
    with_weight.train.weight = 0.7
    assert models.first_weight(problem, with_weight, tmp_path) == 0.7
    own = ConfigDict(config.to_dict())
    own.model = "tests.experiments.own_model:small"
    assert models.first_weight(problem, own, tmp_path) is None


def test_first_weight_is_not_sought_where_there_is_a_checkpoint(problem, tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "ckpt-3.index").touch()
    monkeypatch.setattr(models, "tune", lambda *_: pytest.fail("it was sought"))
    assert models.first_weight(problem, problem.config, tmp_path) > 0


def test_equilibrium_model_begins_as_the_bilevel_one(problem):
    y, _ = problem.fixed_patches[0]
    outputs = []
    for name in ("bilevel", "equilibrium"):
        config = ConfigDict(problem.config.to_dict())
        config.model = name
        model = models.builder(problem, config, 0.05)()
        (layer,) = (layer for layer in model.layers if hasattr(layer, "solve"))
        assert layer.name == name
        assert float(tf.exp(layer.cell.log_weight)) == pytest.approx(0.05)
        outputs.append(model(y).numpy())
    np.testing.assert_allclose(outputs[0], outputs[1], atol=2e-3)
    assert np.abs(outputs[0] - y).max() > 0.02


def test_rate_falls_to_a_tenth_or_stays(problem):
    config = ConfigDict(problem.config.to_dict())
    config.train.decay_steps = 40
    optimizer = models.builder(problem, config, 0.05)().optimizer
    optimizer.iterations.assign(40)
    assert float(optimizer.learning_rate) == pytest.approx(0.1 * config.train.learning_rate)
    config.train.decay_steps = 0
    optimizer = models.builder(problem, config, 0.05)().optimizer
    assert float(optimizer.learning_rate) == pytest.approx(config.train.learning_rate)
    optimizer.learning_rate = 0.5  # no schedule: callbacks may set it
    assert float(optimizer.learning_rate) == 0.5


def test_images_of_training_batches_have_their_names(problem):
    """Each image is of one colour of its own, so its patches say which one they are from. There
    are more than a byte can count."""
    count = 300
    names = tuple(f"image {number}" for number in range(count))
    colours = tuple(
        np.full((12, 13, 3), (number % 256, number // 256, 7), np.uint8) for number in range(count)
    )
    plain = InverseProblem(problem.task, problem.config, {"train": ImageSet(names, colours)})
    for step in (0, 77, 1000):
        _, truth = next(iter(plain.training(step)))
        for position, patch in enumerate(truth.numpy()):
            low, high, _ = np.rint(255 * patch[0, 0]).astype(int)
            assert plain.describe(step, position) == names[low + 256 * high]


def test_fingerprint_tells_images_apart(problem):
    images = problem.images
    same = {split: ImageSet(part.names, part.images) for split, part in images.items()}
    assert fingerprint(same) == fingerprint(images)
    train_images = images["train"]
    changed = [image.copy() for image in train_images.images]
    changed[1][0, 0, 0] ^= 1
    others = (
        ImageSet(train_images.names, tuple(changed)),
        ImageSet(train_images.names[::-1], train_images.images),
        ImageSet(train_images.names[:-1], train_images.images[:-1]),
    )
    for other in others:
        assert fingerprint({**images, "train": other}) != fingerprint(images)

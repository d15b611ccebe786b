"""Trainings without clean images: what a line of the configuration makes of them."""

import json

import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk
from experiments import evaluate, supervision, tasks, train
from experiments.configs import train_demo
from experiments.inverse_problem import InverseProblem
from tests.experiments.conftest import logged, make_pictures, weights
from tests.experiments.test_evaluate import TINY
from trainers.datasets.images import ImageSet
from trainers.process import exits
from trainers.process.errors import ConfigurationError

# How ml_collections loads a configuration file.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("data") / "pictures", 7)


def problem(task="denoising", loss="sure"):
    config = train_demo.get_config()
    config.task, config.train.loss, config.data.patch_size = task, loss, 16
    config.train.batch_size = 4
    rng = np.random.default_rng(0)
    images = tuple(rng.integers(0, 256, (20, 24, 1), np.uint8) for _ in range(3))
    part = ImageSet(("a", "b", "c"), images)
    found = tasks.get(task, config)
    return InverseProblem(found, config, {"train": part, "validation": part, "test": part})


def test_batches_hold_what_the_loss_needs_and_the_truth_for_metrics():
    made = problem()
    y, (truth, signs) = next(iter(made.training()))
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert np.std(y - truth) == pytest.approx(0.1, rel=0.1)
    plain, same = next(iter(made.training(clean=True)))
    np.testing.assert_array_equal(plain, y)
    np.testing.assert_array_equal(same, truth)
    assert not isinstance(made.test[0][1], tuple)
    assert not isinstance(made.all_fixed_patches()[1], tuple)
    # The same examples wherever they are computed.
    context = tf.distribute.InputContext(2, 1, 2)
    y_part, (_, part) = next(iter(made.training(input_context=context)))
    np.testing.assert_array_equal(y_part, y[2:])
    np.testing.assert_array_equal(part, signs[2:])
    _, (_, later) = next(iter(made.training(start_step=1)))
    second = list(made.training().take(2))[1][1][1]
    np.testing.assert_array_equal(later, second)


def test_pairs_have_masks_of_their_own():
    (y, mask), (truth, (other, other_mask)) = next(
        iter(problem("inpainting", "noise2noise").training())
    )
    assert 0.4 < np.mean(mask != other_mask) < 0.6
    noise, another = y - mask * truth, other - other_mask * truth
    both = np.asarray(mask * other_mask, bool)
    assert abs(np.corrcoef(noise[both], another[both])[0, 1]) < 0.2


@pytest.mark.parametrize("task", ["inpainting", "fourier"])
@pytest.mark.parametrize("loss", ["sure", "r2r"])
def test_what_says_nothing_is_refused(task, loss):
    with pytest.raises(
        ConfigurationError, match=f"train.loss='{loss}', task '{task}'.*Noise2Noise"
    ):
        problem(task, loss)
    assert isinstance(problem(task, "noise2noise").loss, dk.losses.Noise2Noise)
    assert isinstance(problem("deblurring", loss).loss.operator, dk.operators.GaussianBlur)
    assert problem(task, None).loss is None


def test_wrong_entries(program, data, tmp_path):
    arguments = (f"--workdir={tmp_path / 'run'}", f"--data_dir={data}", *TINY)
    own = "--config.model=tests.experiments.own_model:small"
    for flags, words in (
        (("--config.train.loss=sur",), f"one of {supervision.LOSSES}"),
        (("--config.train.loss=sure", own), "return a `deq_keras.losses.SelfSupervised`"),
        (("--config.train.loss=sure", "--config.task=inpainting"), "data of its operator"),
    ):
        ended = program(train, *arguments, *flags)
        assert ended.code == exits.CONFIG
        assert words in ended.errors


FLAGS = (*TINY, "--config.train.loss=sure", "--config.train.decay_steps=0")


@pytest.mark.slow
def test_metrics_are_of_the_truth(run_program, data, tmp_path):
    arguments = (f"--workdir={tmp_path}", f"--data_dir={data}", *FLAGS)
    assert run_program(train, *arguments, "--config.train.epochs=1") == 0
    row = logged(tmp_path)[-1]  # of the epoch
    assert row["val_psnr"] > 15
    assert row["psnr"] > 15
    assert run_program(evaluate, f"--workdir={tmp_path}", "--pictures=0") == 0
    results = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert results["means"]["psnr"] > 15


@pytest.mark.slow
def test_a_training_goes_on_as_if_it_had_not_stopped(run_program, data, tmp_path):
    whole, parts, folder = tmp_path / "whole", tmp_path / "parts", f"--data_dir={data}"
    assert run_program(train, f"--workdir={whole}", folder, *FLAGS) == 0
    assert run_program(train, f"--workdir={parts}", folder, *FLAGS, "--config.train.epochs=1") == 0
    assert run_program(train, f"--workdir={parts}", folder, *FLAGS) == 0
    assert logged(whole) == logged(parts)
    for name, value in weights(whole).items():
        np.testing.assert_array_equal(value, weights(parts)[name])

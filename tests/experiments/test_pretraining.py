"""A prior that is trained to denoise in one step, and what starts from it."""

import numpy as np
import pytest
import tensorflow as tf
from ml_collections import ConfigDict

import deq_keras as dk
from experiments import configuration, models, tasks, train, trained
from experiments.configs import train_denoiser
from experiments.inverse_problem import InverseProblem, load_images
from tests.experiments.conftest import make_pictures
from trainers.process import exits
from trainers.process.errors import ConfigurationError

# How ml_collections loads a configuration file.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")

TINY = (
    f"--config={train_denoiser.__file__}",
    "--config.data.patch_size=12",
    "--config.prior.denoiser.filters=(3,4)",
    "--config.prior.denoiser.blocks=1",
    "--config.train.batch_size=2",
    "--config.train.epochs=1",
    "--config.train.steps_per_epoch=2",
    "--config.train.decay_steps=0",
    "--config.train.tensorboard=False",
    "--config.train.deterministic=False",  # cannot be undone in a process of many tests
    "--config.evaluate.training_batches=1",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("data") / "pictures", 7)


@pytest.fixture(scope="module")
def pretrained(run_program, data, tmp_path_factory):
    """The folder of a pretraining of two steps."""
    folder = tmp_path_factory.mktemp("pretrained") / "denoiser"
    assert run_program(train, f"--workdir={folder}", f"--data_dir={data}", *TINY) == 0
    return folder


@pytest.fixture
def config(data):
    found = train_denoiser.get_config()
    configuration.use_folder(found, str(data))
    found.data.patch_size, found.train.batch_size = 12, 2
    found.prior.denoiser.filters, found.prior.denoiser.blocks = (3, 4), 1
    return found


def _problem(config):
    return InverseProblem(tasks.get(config.task, config), config, load_images(config))


def test_the_model_is_the_denoiser_of_the_prior(config):
    problem = _problem(config)
    assert models.first_weight(problem, config, "nowhere") == pytest.approx(0.01)
    model = models.builder(problem, config, 0.01)()
    y, _ = next(iter(problem.validation()))
    np.testing.assert_allclose(model(y), model.layers[-1].prior.denoiser(y), atol=1e-6)
    assert not any(v.name == "log_weight" for v in model.trainable_variables)


def test_the_model_of_another_prior_is_a_step_on_it(config):
    config.prior = ConfigDict({"name": "fields_of_experts", "filters": 2, "kernel_size": 3})
    model = models.builder(_problem(config), config, 0.02)()
    layer = model.layers[-1]
    y = tf.random.uniform((2, 12, 12, 1))
    np.testing.assert_allclose(model(y), y - 0.02 * layer.prior.gradient(y), atol=1e-6)
    assert layer.log_weight.trainable


def test_another_task_is_refused(config):
    config.task = "deblurring"
    with pytest.raises(ConfigurationError, match="Expected the task 'denoising'.*'deblurring'"):
        models.builder(_problem(config), config, 0.01)()


@pytest.mark.parametrize("model", ["bilevel", "proximal", "denoiser"])
def test_a_model_starts_from_its_weights(config, pretrained, tmp_path, model):
    expected = models.learned_part(trained.load(pretrained).model.layers[-1]).get_weights()
    assert any(np.any(weight) for weight in expected)
    config.model, config.train.start = model, str(pretrained)
    weights = trained.start_weights(config, tmp_path)
    built = models.builder(_problem(config), config, 0.01, weights)()
    found = models.learned_part(built.layers[-1]).get_weights()
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_a_training_starts_from_its_weights(run_program, data, pretrained, tmp_path):
    """A training with a rate of zero has the weights that it started with."""
    expected = models.learned_part(trained.load(pretrained).model.layers[-1]).get_weights()
    for model in ("bilevel", "proximal"):
        arguments = (f"--workdir={tmp_path / model}", f"--data_dir={data}", *TINY)
        arguments += (f"--config.model={model}", f"--config.train.start={pretrained}")
        arguments += ("--config.train.learning_rate=1e-30", "--config.train.tolerance=0.01")
        assert run_program(train, *arguments) == 0
        layer = trained.load(tmp_path / model).model.layers[-1]
        for found, weight in zip(models.learned_part(layer).get_weights(), expected, strict=True):
            np.testing.assert_allclose(found, weight, rtol=1e-6)
    assert isinstance(layer.cell, dk.layers.ProximalStep)


def test_a_training_that_goes_on_needs_the_folder_no_more(config, pretrained, tmp_path):
    config.train.start = str(pretrained)
    assert len(trained.start_weights(config, tmp_path)) == 10
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "ckpt-3.index").touch()
    config.train.start = str(tmp_path / "gone")
    assert trained.start_weights(config, tmp_path) is None
    config.train.start = ""
    assert trained.start_weights(config, tmp_path / "new") is None


def test_weights_of_another_prior_are_refused(config, pretrained, tmp_path):
    weights = trained.start_weights(
        ConfigDict({**config.to_dict(), "train": {**config.train, "start": str(pretrained)}}),
        tmp_path,
    )
    config.prior.denoiser.filters = (3, 5)
    with pytest.raises(ConfigurationError, match="train.start to be a training with the section"):
        models.builder(_problem(config), config, 0.01, weights)()


def test_a_folder_without_a_training_is_refused(program, data, tmp_path):
    arguments = (f"--workdir={tmp_path / 'run'}", f"--data_dir={data}", *TINY)
    ended = program(train, *arguments, f"--config.train.start={tmp_path}")
    assert ended.code == exits.CONFIG
    assert not (tmp_path / "run").exists()


def test_a_proximal_model_is_that_of_a_denoiser(config):
    config.prior = ConfigDict({"name": "total_variation"})
    with pytest.raises(ConfigurationError, match="Expected the prior 'denoiser_energy'"):
        models.proximal(tasks.get("denoising", config), config)


def test_a_proximal_model_has_the_step_of_the_configuration(config):
    for step in (None, 0.7):
        config.train.step_size = step
        assert models.proximal(tasks.get("denoising", config), config).cell.step_size == step
    config.train.step_size = -1.0
    with pytest.raises(ConfigurationError, match=r"train.step_size to be finite and > 0"):
        configuration.check_training(config)


def test_a_proximal_model_of_a_noise_map_learns_its_level(config):
    config.prior.denoiser.noise_map = config.prior.takes_noise_level = True
    layer = models.proximal(tasks.get("denoising", config), config)
    layer.build((None, None, None, 1))
    assert isinstance(layer.cell.network, dk.denoisers.DenoiserAtNoiseLevel)
    assert float(tf.exp(layer.cell.network.log_noise_level)) == pytest.approx(0.1)
    assert models.learned_part(layer) is layer.cell.network.denoiser
    assert not layer.adjoint.higher_order


def test_a_proximal_model_can_be_trained_without_clean_images(config):
    config.train.loss = "sure"  # which holds a derivative already
    assert models.proximal(tasks.get("denoising", config), config).adjoint.higher_order


def test_a_noise_level_for_each_image(config):
    config.prior.denoiser.noise_map = config.prior.takes_noise_level = True
    config.denoising.least_noise, config.denoising.known = 0.02, True
    problem = _problem(config)
    levels = []
    for step, ((y, level), truth) in enumerate(problem.training()):
        levels += level.numpy().tolist()
        for noise, one in zip((y - truth).numpy(), level.numpy(), strict=True):
            assert np.std(noise) == pytest.approx(one, rel=0.25)
        if step == 19:
            break
    assert 0.02 <= min(levels) < 0.04 < 0.08 < max(levels) <= 0.1
    model = models.builder(problem, config, 0.01)()
    assert model((y, level)).shape == truth.shape
    assert "between 0.02 and 0.1" in problem.task.description
    (again, other), _ = next(iter(problem.training(19)))
    np.testing.assert_array_equal(again, y)
    np.testing.assert_array_equal(other, level)


def test_levels_in_the_wrong_order_are_refused(config):
    config.denoising.least_noise = 0.2
    with pytest.raises(ConfigurationError, match=r"denoising.least_noise <= denoising.noise.*0.2"):
        tasks.get("denoising", config)


@pytest.mark.slow  # training and files of such a model: tests/losses/test_adversarial.py
def test_a_critic(config, run_program, data, tmp_path):
    """Trained by a line of the configuration; its prior can be taken elsewhere."""
    flags = (*TINY, "--config.train.loss=adversarial")
    assert run_program(train, f"--workdir={tmp_path}", f"--data_dir={data}", *flags) == 0
    found = trained.load(tmp_path)
    assert isinstance(found.model, dk.losses.Adversarial)
    part = trained.cell_of(found, tmp_path)
    assert isinstance(part.prior, dk.priors.DenoiserEnergy)
    assert part.log_weight.trainable
    config.train.loss, config.model = "adversarial", "bilevel"
    with pytest.raises(ConfigurationError, match="model 'denoiser' for train.loss='adversarial'"):
        configuration.check_training(config)

"""The models are those of the paper: its maps, in NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from experiments.configs.riccio2022 import faces, mnist
from experiments.reproduction import digits, models
from experiments.reproduction import faces as photographs
from trainers.process.errors import ConfigurationError

DIGITS = {"noise": 0.1, "tau": 0.3, "gamma": 0.5, "activation": "relu", "start": "random"}
FACES = {"noise": 0.1, "blur": 5, "filters": "random_11", "norms": True, "start": "random"}
ACTIVATIONS = {
    "relu": lambda t: np.maximum(t, 0),
    "identity": lambda t: t,
    "soft_shrinkage": lambda t: np.sign(t) * np.maximum(np.abs(t) - DIGITS["tau"], 0),
}


@pytest.mark.parametrize(
    ("task", "activation", "model"),
    [
        ("denoising", "relu", "bilevel"),
        ("inpainting", "soft_shrinkage", "equilibrium"),
        pytest.param("deblurring", "identity", "equilibrium", marks=pytest.mark.slow),
    ],
)
def test_the_map_on_digits(task, activation, model):
    settings = {**DIGITS, "task": task, "activation": activation, "model": model}
    config = mnist.get_config()
    built = models.build(settings, config, (28, 28, 1), "paper", "float64")
    layer = models.layer_of(built)
    rng = np.random.default_rng(0)
    u, y = rng.normal(size=(2, 3, 28, 28, 1))

    def operator(v, adjoint=False):
        if task == "inpainting":
            v = v.copy()
            v[:, :10] = 0.0
        elif task == "deblurring":
            shifts = range(-2, 3)
            v = np.mean([np.roll(v, (s, s), (1, 2)) for s in shifts], axis=0)
        return v

    prior = layer.cell.prior
    a, b = prior.analysis.numpy(), prior.bias.numpy()
    s = a if model == "bilevel" else prior.synthesis.numpy()
    assert np.abs(a).max() <= 1 / 28 < 1.01 * np.abs(a).max()
    assert (s is a) == (model == "bilevel")
    assert not np.allclose(s, b)
    g = (ACTIVATIONS[activation](u.reshape(3, -1) @ a + b) @ s.T).reshape(u.shape)
    expected = u - 0.3 * (operator(operator(u) - y, True) + 0.5 * g)
    np.testing.assert_allclose(layer.cell(u, y), expected, atol=1e-12)
    # The paper's solver starts at zero, so this is f(f(0)) if it takes one step.
    layer.solver.max_steps = 1
    np.testing.assert_allclose(built(y), layer.cell(tf.zeros_like(y), tf.constant(y)), atol=1e-12)


@pytest.mark.parametrize("model", ["bilevel", "equilibrium"])
@pytest.mark.parametrize("norms", [True, False])
def test_the_map_on_photographs(model, norms):
    """`u - tau (lambda K^T (K u - y) + c / ||C|| C^T tanh(chi c / ||A|| A u))`."""
    settings = {**FACES, "task": "deblurring", "norms": norms, "model": model}
    built = models.build(settings, faces.get_config(), (16, 14, 1), "paper", "float64")
    cell = models.layer_of(built).cell
    prior, operator = cell.prior, cell.operator
    u, y = np.random.default_rng(0).normal(size=(2, 2, 16, 14, 1))
    a = prior.analysis.numpy()
    if norms:
        free = photographs.prior({**settings, "norms": False}, dtype="float64")
        free.set_weights([*prior.get_weights()[:-1], *free.get_weights()[-1:]])
        # The bound on the norm of a convolution with zeros around is its norm on a large image.
        norm = np.sqrt(float(free.gradient_lipschitz()) / 100.0)
        c = 2.7300944
    else:
        norm, c = 1.0, 1.0
    padded = np.pad(u[..., 0], ((0, 0), (5, 5), (5, 5)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (11, 11), axis=(1, 2))
    response = np.tanh(100.0 * c / norm * np.einsum("bxyij,ijk->bxyk", windows, a[:, :, 0]))
    padded = np.pad(response, ((0, 0), (5, 5), (5, 5), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (11, 11), axis=(1, 2))
    g = c / norm * np.einsum("bxykij,ijk->bxy", windows, a[::-1, ::-1, 0])[..., None]
    misfit = operator.adjoint(operator(tf.constant(u)) - y)
    tau = 1.0 / 800.0 / 4.0
    np.testing.assert_allclose(cell(u, y), u - tau * (18.156 * misfit + g), atol=1e-10)


def test_steps_and_solvers_of_the_paper():
    settings = {**FACES, "task": "denoising", "model": "bilevel"}
    config = faces.get_config()
    assert photographs.step_size(settings, "paper") == pytest.approx(18.156 / 800)
    assert photographs.published_solver(settings, config).max_steps == 1000
    deblurring = {**settings, "task": "deblurring"}
    assert photographs.step_size(deblurring, "paper") == pytest.approx(18.156 / 3200)
    assert photographs.published_solver(deblurring, config).max_steps == 4000
    plain = digits.published_solver(DIGITS, mnist.get_config())
    assert plain.get_config() == {
        "memory": 5,
        "damping": 1.0,
        "ridge": 1e-4,
        "tolerance": 1e-3,
        "max_steps": 50,
        "compact": False,
        "stopping": "batch",
    }


def test_rates_fall_as_in_the_paper():
    config = mnist.get_config("reference")
    rate = digits.learning_rate(config, DIGITS, 90)
    np.testing.assert_allclose(
        [rate(0), rate(4500), rate(9000)], [1e-3, (1e-3 + 1e-6) / 2, 1e-6], rtol=1e-4
    )
    config = faces.get_config("full")
    rate = photographs.learning_rate(config, {**FACES, "task": "deblurring"}, 1)
    np.testing.assert_allclose([rate(0), rate(500)], [5e-3, 5e-4], rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({**DIGITS, "task": "inpaintin"}, "Did you mean 'inpainting'"),
        ({**FACES, "task": "denoising", "filters": "third_order"}, "Unknown start of the filters"),
    ],
)
def test_unknown_names(settings, match):
    config = mnist.get_config() if "tau" in settings else faces.get_config()
    with pytest.raises(ConfigurationError, match=match):
        models.build({**settings, "model": "bilevel"}, config, (28, 28, 1), "ours")


def test_an_unknown_mode():
    settings = {**DIGITS, "task": "denoising", "model": "bilevel"}
    with pytest.raises(ConfigurationError, match="Received 'theirs'"):
        models.build(settings, mnist.get_config(), (28, 28, 1), "theirs")

"""What all priors that are networks have in common: energies, minimisers, derivatives, files."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import (
    adjoints,
    denoisers,
    layers,
    linear_solvers,
    operators,
    priors,
    solvers,
    testing,
)
from tests.variants import covering

DTYPE = {"dtype": "float64"}
EXACT = adjoints.Implicit(linear_solvers.MINRES(tolerance=1e-11))


def _convex(filters=(2, 3)):
    return priors.InputConvexNetwork(filters, 3, sharpness=5.0, **DTYPE)


def _averaged(channels):
    options = {"depth": 2, "filters": 3, "activation": "softplus", **DTYPE}
    return priors.DenoiserEnergy(denoisers.averaged_dncnn(channels, **options))


# From the number of channels.
NETWORKS = {
    "tdv": lambda _: priors.TotalDeepVariation(2, 1, 2, **DTYPE),
    "icnn": lambda _: _convex(),
    "idcnn": lambda _: priors.DifferenceOfConvex(_convex(), _convex((3,))),
    "mfoe": lambda _: priors.MultivariateExperts(
        (2, 6), 3, 0.8, group_size=3, scaling=3.0, sharpness=5.0, **DTYPE
    ),
    "unet": lambda _: priors.DenoiserEnergy(denoisers.UNet((3,), 1, **DTYPE)),
    "dncnn": _averaged,
}


@pytest.fixture(params=NETWORKS)
def name(request):
    return request.param


def _prior(name, channels=1):
    """A built prior whose weights are no special case."""
    keras.utils.set_random_seed(3)
    prior = NETWORKS[name](channels)
    prior.build((None, None, None, channels))
    return prior


def _images(shape, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(size=shape))


def _layer(prior, **kwargs):
    return layers.Variational(
        operators.Identity(**DTYPE),
        prior,
        weight=0.1,
        solver=solvers.LBFGS(tolerance=1e-12, max_steps=2000),
        adjoint=EXACT,
        **DTYPE,
        **kwargs,
    )


@pytest.mark.parametrize(
    ("name", "channels"),
    covering([("icnn", 3), ("tdv", 1), ("tdv", 3), ("unet", 1), ("unet", 3)]),
    indirect=["name"],
)
def test_energy_gradient_and_constants(name, channels):
    """Those of the others have tests of their own."""
    testing.prior_test(_prior(name, channels), (2, 7, 6, channels))


@pytest.mark.parametrize("name", ["idcnn", "mfoe", "dncnn"], indirect=True)
def test_the_gradient_is_that_of_the_energy(name):
    testing.prior_test(_prior(name, 3), (2, 7, 6, 3), check_constants=False)


def test_any_size_in_a_graph_that_does_not_know_it(name):
    prior, u = _prior(name), _images((2, 33, 45, 1))
    signature = [tf.TensorSpec((None, None, None, 1), tf.float64)]
    in_graph = tf.function(prior.gradient, signature, autograph=False)(u)
    np.testing.assert_allclose(in_graph, prior.gradient(u), atol=1e-12)


SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in NETWORKS if name != "icnn"]


@pytest.mark.parametrize("name", ["icnn", *SLOW], indirect=True)
def test_a_solution_is_a_minimiser(name):
    layer, y = _layer(_prior(name)), _images((2, 6, 5, 1))
    solution = layer.solve(y)  # of few steps: a graph would take longer to trace
    assert solution.converged.numpy().all()
    u = solution.value
    assert np.abs(layer.energy_gradient(u, y)).max() < 1e-9
    rng = np.random.default_rng(1)
    for scale in (1e-3, 1e-1):
        other = u + scale * rng.normal(size=u.shape)
        assert np.all(layer.energy(other, y) > layer.energy(u, y))
    alone = layer.solve(y[1:]).value[0]
    np.testing.assert_allclose(alone, u[1], atol=1e-8)


@pytest.mark.parametrize("name", ["icnn", *SLOW], indirect=True)
def test_derivatives_of_a_minimiser(name):
    layer, y = _layer(_prior(name)), _images((1, 5, 4, 1))
    layer.build(y.shape)
    weights = [layer.prior.trainable_variables[0]]
    testing.gradient_test(lambda: layer(y), variables=weights, directions=1, rtol=1e-5)


def test_files_and_configurations(name, tmp_path):
    prior, y = _prior(name), _images((1, 8, 9, 1))
    model = keras.Sequential([keras.Input((None, None, 1), dtype="float64"), _layer(prior)])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").layers[0].prior
    np.testing.assert_array_equal(loaded.gradient(y), prior.gradient(y))
    again = type(prior).from_config(prior.get_config())
    again.build((None, None, None, 1))
    again.set_weights(prior.get_weights())
    np.testing.assert_array_equal(again.energy(y), prior.energy(y))
    assert again.get_config() == prior.get_config()


def test_constants_may_be_added_to_an_image_where_filters_have_no_mean(name):
    if name in ("unet", "dncnn"):
        return
    prior, u = _prior(name), _images((2, 9, 8, 1))
    np.testing.assert_allclose(prior.energy(u + 0.3), prior.energy(u), rtol=1e-12)

"""Constraints: proximal maps against brute force, optimality conditions and projections."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import constraints, testing

ALL = {
    "non_negative": constraints.NonNegative(),
    "box": constraints.Box(-0.3, 0.8),
    "l1": constraints.L1(0.4),
}
STEPS = tf.constant([0.2, 1.0, 3.0], tf.float64)


def _images(seed=0, scale=1.0):
    return tf.constant(scale * np.random.default_rng(seed).normal(size=(3, 4, 5, 1)))


def _term(name, x):
    """`G` of single values, with the indicator functions infinite."""
    if name == "l1":
        return 0.4 * abs(x)
    low, high = {"non_negative": (0.0, np.inf), "box": (-0.3, 0.8)}[name]
    return np.where((x >= low) & (x <= high), 0.0, np.inf)


@pytest.mark.parametrize("name", ALL)
def test_the_proximal_map_minimises(name):
    """All values of a fine grid are compared: the terms are sums over the pixels."""
    u, grid = _images(), np.linspace(-4, 4, 8001)
    found = ALL[name].proximal(u, STEPS).numpy()
    step = STEPS.numpy().reshape(3, 1, 1, 1, 1)
    energies = _term(name, grid) + (grid - u.numpy()[..., None]) ** 2 / (2 * step)
    np.testing.assert_allclose(found, grid[energies.argmin(-1)], atol=6e-4)


def test_the_optimality_condition_of_soft_thresholding():
    u = _images(scale=2.0).numpy()
    found, step = ALL["l1"].proximal(u, STEPS).numpy(), STEPS.numpy().reshape(3, 1, 1, 1)
    subgradient = (u - found) / step
    np.testing.assert_allclose(subgradient[found != 0], 0.4 * np.sign(found[found != 0]))
    assert (abs(subgradient[found == 0]) <= 0.4).all()
    assert 0 < (found == 0).sum() < found.size


@pytest.mark.parametrize("name", ALL)
def test_it_is_firmly_nonexpansive(name):
    for seed in range(5):
        u, v = _images(seed), _images(seed + 10, 2.0)
        moved = (ALL[name].proximal(u, STEPS) - ALL[name].proximal(v, STEPS)).numpy()
        square, product = (moved**2).sum((1, 2, 3)), (moved * (u - v).numpy()).sum((1, 2, 3))
        assert (square <= product + 1e-14).all()


@pytest.mark.parametrize("name", ["non_negative", "box"])
def test_projections_do_not_depend_on_the_step(name):
    u = _images()
    once = ALL[name].proximal(u, STEPS)
    np.testing.assert_array_equal(ALL[name].proximal(u, 0.0 * STEPS), once)
    np.testing.assert_array_equal(ALL[name].proximal(once, STEPS), once)
    np.testing.assert_array_equal(ALL[name].value(u), np.zeros(3))
    assert ALL[name].value(u).dtype == tf.float64


def test_the_value_of_l1():
    u = _images()
    np.testing.assert_allclose(ALL["l1"].value(u), 0.4 * abs(u.numpy()).sum((1, 2, 3)))
    np.testing.assert_array_equal(ALL["l1"].proximal(u, 0.0 * STEPS), u)


@pytest.mark.parametrize("name", ALL)
def test_derivatives_of_proximal_maps(name):
    testing.gradient_test(ALL[name].proximal, _images(), STEPS)


@pytest.mark.parametrize("name", ALL)
def test_any_shape(name):
    u = tf.ones((2, 7))
    assert ALL[name].proximal(u, tf.ones(2)).shape == u.shape
    assert ALL[name].value(u).shape == (2,)
    none = tf.zeros((0, 4, 5, 1))
    assert ALL[name].proximal(none, tf.ones(0)).shape == none.shape
    assert ALL[name].value(none).shape == (0,)


def test_configurations_and_names():
    for name, constraint in ALL.items():
        assert constraint.is_convex
        text = json.dumps(keras.saving.serialize_keras_object(constraint))
        again = constraints.get(json.loads(text))
        assert type(again) is type(constraint) is type(constraints.get(name))
        assert again.get_config() == constraint.get_config()
    assert constraints.get("box").get_config() == {"lower": 0.0, "upper": 1.0}
    with pytest.raises(ValueError, match="Did you mean 'non_negative'"):
        constraints.get("nonnegative")
    with pytest.raises(TypeError, match="Expected a constraint"):
        constraints.get(None)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: constraints.Box(1.0, 1.0), "`lower` < `upper`"),
        (lambda: constraints.Box(0.0, float("inf")), "finite"),
        (lambda: constraints.Box("a"), "finite"),
        (lambda: constraints.L1(-1.0), "`weight`"),
    ],
)
def test_wrong_arguments(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_a_proximal_map_is_needed():
    with pytest.raises(NotImplementedError, match=r"`proximal\(u, step\)`"):
        constraints.Constraint().proximal(tf.zeros((1, 2)), tf.ones(1))

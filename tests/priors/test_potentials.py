"""Potentials: convex, with the stated derivative, of curvature at most one."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras.priors import potentials

NAMES = ("tanh", "relu", "soft_shrinkage", "identity", "smoothed_l1")


@pytest.mark.parametrize("name", NAMES)
def test_activation_is_the_derivative(name):
    potential = potentials.get(name)
    # Both sides of the kinks at 0 and 0.1, small values and large ones, and 0 itself.
    t = np.concatenate([np.linspace(-3, 3, 61), [-80.0, -1e-4, 0.0, 1e-4, 0.05, 1e6]])
    t = tf.constant(t, tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(t)
        value = potential.value(t)
    np.testing.assert_allclose(tape.gradient(value, t), potential.activation(t), atol=1e-13)
    step = 1e-5
    difference = (potential.value(t + step) - potential.value(t - step)) / (2 * step)
    np.testing.assert_allclose(difference[:-1], potential.activation(t)[:-1], atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_activation_does_not_decrease_and_has_lipschitz_constant_one(name):
    t = tf.constant(np.sort(np.random.default_rng(0).normal(scale=2.0, size=5000)))
    slopes = np.diff(potentials.get(name).activation(t)) / np.diff(t)
    assert slopes.min() >= -1e-9
    assert slopes.max() <= 1 + 1e-9
    assert slopes.max() > 0.99, "the constant that is certified should be attained"


@pytest.mark.parametrize("name", NAMES)
def test_zero_is_a_minimiser_of_value_zero(name):
    potential, zero = potentials.get(name), tf.zeros((), tf.float64)
    assert float(potential.value(zero)) == 0.0
    assert float(potential.activation(zero)) == 0.0


def test_values_at_known_points():
    t = tf.constant([-2.0, 0.05, 0.5], tf.float64)
    known = {
        "tanh": np.log(np.cosh(t)),
        "relu": [0.0, 0.00125, 0.125],
        "soft_shrinkage": [1.9**2 / 2, 0.0, 0.08],
        "identity": [2.0, 0.00125, 0.125],
        "smoothed_l1": np.sqrt(1 + t.numpy() ** 2) - 1,
    }
    for name, values in known.items():
        np.testing.assert_allclose(potentials.get(name).value(t), values, atol=1e-15)


def test_the_threshold_of_soft_shrinkage():
    t = tf.constant([-2.0, 0.05, 0.75], tf.float64)
    potential = potentials.get({"name": "soft_shrinkage", "threshold": 0.5})
    np.testing.assert_allclose(potential.activation(t), [-1.5, 0.0, 0.25], atol=1e-15)
    np.testing.assert_allclose(potential.value(t), [1.5**2 / 2, 0.0, 0.25**2 / 2], atol=1e-15)
    np.testing.assert_array_equal(potential.curvature(t), [1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("activation", "match"),
    [
        ("soft_shrink", "Did you mean 'soft_shrinkage'"),
        ({"name": "relu", "threshold": 1.0}, "a dictionary {'name': 'soft_shrinkage'"),
        ({"name": "soft_shrinkage", "treshold": 1.0}, "Received {'name'"),
        ({"name": "soft_shrinkage", "threshold": -1.0}, "Expected `threshold`"),
    ],
)
def test_wrong_activations(activation, match):
    with pytest.raises(ValueError, match=match):
        potentials.get(activation)


@pytest.mark.parametrize("name", NAMES)
def test_large_responses_stay_finite_in_float32(name):
    t = tf.constant([-1e4, 1e4], tf.float32)
    potential = potentials.get(name)
    assert np.isfinite(potential.value(t)).all()
    assert np.isfinite(potential.activation(t)).all()


def test_an_unknown_name_has_a_near_match():
    with pytest.raises(ValueError, match=r"Unknown activation: 'tanhh'\. Did you mean 'tanh'\?"):
        potentials.get("tanhh")

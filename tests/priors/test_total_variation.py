"""Smoothed total variation."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import priors, testing


@pytest.mark.parametrize("shape", [(2, 9, 8, 1), (2, 5, 16, 3), (2, 2, 1, 1)])
@pytest.mark.parametrize("smoothing", [0.01, 1.0])
def test_gradient_and_constants(shape, smoothing):
    prior = priors.TotalVariation(smoothing, dtype="float64")
    report = testing.prior_test(prior, shape)
    assert report.lipschitz <= 8 / smoothing
    if shape == (2, 9, 8, 1):
        assert report.lipschitz > 0.85 * 8 / smoothing
    assert prior.is_convex
    assert prior.has_energy


def test_the_energy_is_the_length_of_an_edge_times_its_height():
    prior = priors.TotalVariation(smoothing=1e-9, dtype="float64")
    half = np.zeros((1, 6, 8, 1))
    half[:, :, 3:] = 0.4
    np.testing.assert_allclose(prior.energy(half), 0.4 * 6, rtol=1e-7)
    # The channels of a colour image are taken together: equal edges count sqrt(3) times.
    colour = np.repeat(half, 3, axis=-1)
    np.testing.assert_allclose(prior.energy(colour), 0.4 * 6 * np.sqrt(3), rtol=1e-7)


def test_the_energy_is_its_formula():
    u = np.random.default_rng(0).uniform(size=(2, 5, 6, 3))
    down = np.diff(u, axis=1, append=u[:, -1:])
    right = np.diff(u, axis=2, append=u[:, :, -1:])
    magnitude = np.sqrt((down**2 + right**2).sum(-1) + 0.2**2)
    expected = (magnitude - 0.2).sum((1, 2))
    prior = priors.TotalVariation(0.2, dtype="float64")
    np.testing.assert_allclose(prior.energy(u), expected, rtol=1e-13)


def test_constants_are_not_seen():
    prior = priors.TotalVariation(dtype="float64")
    constant = tf.fill((1, 5, 6, 1), tf.constant(0.3, tf.float64))
    np.testing.assert_array_equal(prior.gradient(constant), 0)
    np.testing.assert_array_equal(prior.energy(constant), 0)


def test_layer_contract():
    testing.layer_test(priors.TotalVariation, {"smoothing": 0.1}, (2, 6, 7, 1))


@pytest.mark.parametrize("smoothing", [0.0, -1.0, float("nan")])
def test_wrong_smoothing(smoothing):
    with pytest.raises(ValueError, match="`smoothing`"):
        priors.TotalVariation(smoothing)
    with pytest.raises(ValueError, match="batch, height, width, channels"):
        priors.TotalVariation().gradient(tf.zeros((5, 6, 1)))

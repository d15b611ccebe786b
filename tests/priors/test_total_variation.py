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


def test_the_smoothing_is_trained_as_a_logarithm():
    prior = priors.TotalVariation(0.2, train_smoothing=True, dtype="float64")
    u = tf.constant(np.random.default_rng(0).uniform(size=(2, 5, 6, 1)))
    prior.build(u.shape)
    fixed = priors.TotalVariation(0.3, dtype="float64")
    prior.log_smoothing.assign(np.log(0.3))
    np.testing.assert_allclose(prior.gradient(u), fixed.gradient(u), rtol=1e-12)
    np.testing.assert_allclose(prior.energy(u), fixed.energy(u), rtol=1e-12)
    np.testing.assert_allclose(prior.gradient_lipschitz(), 8 / 0.3, rtol=1e-12)
    testing.gradient_test(prior.gradient, u, variables=[prior.log_smoothing])
    testing.layer_test(
        priors.TotalVariation, {"smoothing": 0.1, "train_smoothing": True}, (2, 6, 7, 1)
    )
    assert not fixed.trainable_variables


@pytest.mark.parametrize("channels", [1, 3])
def test_the_variation_of_the_hessian_is_bounded(channels):
    """Never violated, on images of many contrasts, and nearly reached where the bound is sharp."""
    smoothing, rng = 0.1, np.random.default_rng(0)
    prior = priors.TotalVariation(smoothing, dtype="float64")

    def product(u, p):
        u, p = tf.constant(u), tf.constant(p)
        with tf.GradientTape() as tape:
            tape.watch(u)
            slope = tf.reduce_sum(prior.gradient(u) * p, axis=(1, 2, 3))
        return tape.gradient(slope, u).numpy()

    norm = lambda x: np.sqrt(np.sum(x**2, axis=(1, 2, 3)))  # noqa: E731
    shape, ratios = (50, 4, 5, channels), []
    for contrast in (1e-3, 1e-2, 3e-2, 0.1, 1.0):
        for distance in (1e-3, 1e-2, 1e-1):
            u = contrast * rng.normal(size=shape)
            v = u + distance * rng.normal(size=shape)
            p = rng.normal(size=shape)
            bound = prior.hessian_variation(tf.constant(p)).numpy() * norm(u - v)
            ratios.append(norm(product(u, p) - product(v, p)) / bound)
    # Two pixels: along one axis everything is known, and the steepest place is at smoothing / 2.
    edge = np.array([0.0, 1.0]).reshape(1, 1, 2, 1) * np.ones((1, 1, 1, channels))
    edge /= np.sqrt(channels)
    u, v = (0.5 + 1e-4) * smoothing * edge, (0.5 - 1e-4) * smoothing * edge
    bound = prior.hessian_variation(tf.constant(edge)).numpy() * norm(u - v)
    sharp = (norm(product(u, edge) - product(v, edge)) / bound)[0]
    ratios.append(sharp)
    assert max(map(np.max, ratios)) <= 1
    # Of this pair ||D^T|| is sqrt(2) and |D edge| 1, in the place of the 8 of all images.
    assert sharp == pytest.approx(np.sqrt(2) / 8, rel=1e-3)


def test_the_sensitivity_to_the_smoothing_is_bounded():
    rng = np.random.default_rng(0)
    prior = priors.TotalVariation(0.1, train_smoothing=True, dtype="float64")
    prior.build((None, None, None, 1))

    def derivative(u):
        """By finite differences, of the gradient by the logarithm of the smoothing."""
        sides = []
        for step in (1e-5, -1e-5):
            prior.log_smoothing.assign(np.log(0.1) + step)
            sides.append(prior.gradient(tf.constant(u)).numpy())
        prior.log_smoothing.assign(np.log(0.1))
        return (sides[0] - sides[1]) / 2e-5

    norm = lambda x: np.sqrt(np.sum(x**2, axis=(1, 2, 3)))  # noqa: E731
    for contrast in (1e-3, 0.03, 0.1, 1.0):
        u = contrast * rng.normal(size=(20, 4, 5, 1))
        v = u + 0.03 * rng.normal(size=u.shape)
        found = prior.sensitivities(tf.constant(u), tf.ones(20, "float64"))["log_smoothing"]
        np.testing.assert_allclose(found.norm, norm(derivative(u)), rtol=1e-6)
        assert (norm(derivative(u) - derivative(v)) <= found.lipschitz.numpy() * norm(u - v)).all()
    assert not priors.TotalVariation().sensitivities(tf.ones((1, 4, 5, 1)), tf.ones(1))

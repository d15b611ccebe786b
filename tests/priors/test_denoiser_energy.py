"""The energy of what a denoiser changes, with and without a noise level."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import denoisers, layers, operators, priors, solvers, testing

DTYPE = {"dtype": "float64"}
IMAGES = tf.constant(np.random.default_rng(0).uniform(size=(2, 8, 7, 1)))
LEVELS = tf.constant([0.05, 0.4], tf.float64)


def _with_levels():
    return priors.DenoiserEnergy(denoisers.UNet((3, 4), 1, noise_map=True, **DTYPE), True)


def test_it_is_half_the_square_of_what_is_changed():
    unet = denoisers.UNet((3,), 1, **DTYPE)
    energy = priors.DenoiserEnergy(unet).energy(IMAGES)
    expected = 0.5 * tf.reduce_sum((IMAGES - unet(IMAGES)) ** 2, axis=(1, 2, 3))
    np.testing.assert_allclose(energy, expected, rtol=1e-12)


def test_of_a_projection_it_is_half_the_squared_distance():
    """Then the gradient is what is changed itself: a denoiser that is a mean over the rows."""
    row_means = keras.layers.Lambda(
        lambda u: tf.reduce_mean(u, axis=2, keepdims=True) + 0.0 * u, **DTYPE
    )
    prior = priors.DenoiserEnergy(row_means)
    expected = IMAGES - tf.reduce_mean(IMAGES, axis=2, keepdims=True)
    np.testing.assert_allclose(prior.gradient(IMAGES), expected, atol=1e-14)


def test_a_denoiser_that_changes_nothing_costs_nothing():
    prior = priors.DenoiserEnergy(keras.layers.Identity(**DTYPE))
    np.testing.assert_array_equal(prior.energy(IMAGES), 0.0)
    np.testing.assert_array_equal(prior.gradient(IMAGES), 0.0 * IMAGES)


def test_noise_levels():
    prior = _with_levels()
    both = prior.gradient(IMAGES, LEVELS)
    np.testing.assert_allclose(prior.gradient(IMAGES[1:], LEVELS[1:])[0], both[1], atol=1e-13)
    assert np.abs(prior.gradient(IMAGES[1:], LEVELS[:1])[0] - both[1]).max() > 1e-4
    testing.gradient_test(lambda u: prior.energy(u, LEVELS), IMAGES, directions=1)
    with tf.GradientTape() as tape:
        tape.watch(IMAGES)
        energy = prior.energy(IMAGES, LEVELS)
    np.testing.assert_allclose(both, tape.gradient(energy, IMAGES), atol=1e-13)
    np.testing.assert_array_equal(
        prior.denoise(IMAGES, noise_level=LEVELS), prior.denoiser([IMAGES, LEVELS])
    )


def test_a_solve_with_noise_levels_leaves_images_apart():
    layer = layers.Variational(
        operators.Identity(**DTYPE), _with_levels(), solver=solvers.LBFGS(tolerance=1e-11), **DTYPE
    )
    together = layer.solve((IMAGES, LEVELS))
    assert together.converged.numpy().all()
    alone = layer.solve((IMAGES[1:], LEVELS[1:])).value[0]
    np.testing.assert_allclose(alone, together.value[1], atol=1e-8)


def test_a_noise_level_where_none_is_expected_and_none_where_one_is():
    with pytest.raises(ValueError, match="DenoiserEnergy expected `noise_level` to be the noise"):
        _with_levels().energy(IMAGES)
    plain = priors.DenoiserEnergy(denoisers.UNet((3,), 1, **DTYPE))
    with pytest.raises(ValueError, match="`noise_level` to be none"):
        plain.gradient(IMAGES, LEVELS)
    with pytest.raises(ValueError, match="`noise_level` to be none"):
        plain.denoise(IMAGES, noise_level=LEVELS)


def test_what_is_refused():
    with pytest.raises(ValueError, match="`denoiser` to be a Keras layer"):
        priors.DenoiserEnergy(tf.identity)
    with pytest.raises(ValueError, match="returns 1 channels, as many as its images have"):
        priors.DenoiserEnergy(layers.Conv2D(2, 3, padding="same", **DTYPE)).energy(IMAGES)
    single = denoisers.dncnn(depth=2, filters=2)
    with pytest.raises(ValueError, match="of the prior's dtype, float64. Received.*float32"):
        priors.DenoiserEnergy(single, **DTYPE).energy(IMAGES)

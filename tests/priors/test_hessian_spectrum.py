"""What priors say about the spectrum of their Hessian, against the Hessian itself."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import priors
from deq_keras.priors import potentials
from tests.priors.hessians import dense_hessian


def _images(shape, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(size=shape))


def _whole(spectrum, width):
    """The mean over all frequencies, of which half is stored."""
    twice = np.where(
        (np.arange(width // 2 + 1) > 0) & (2 * np.arange(width // 2 + 1) < width), 2, 1
    )
    return (spectrum * twice).sum() / (spectrum.shape[0] * width)


def _experts(activation, sharpness, **options):
    return priors.FieldsOfExperts(
        5, (2, 3), activation, sharpness, padding="circular", dtype="float64", **options
    )


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_a_quadratic_prior_has_a_convolution_for_its_hessian(size):
    prior, u = _experts("identity", 3.0), _images((1, *size, 1))
    prior.build(u.shape)
    column = dense_hessian(prior, u)[:, 0].reshape(size)
    spectrum = prior.bind(u.shape).hessian_spectrum(u)[0]
    np.testing.assert_allclose(spectrum, np.fft.rfft2(column), atol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "relu", "soft_shrinkage", "smoothed_l1"])
def test_means_keep_the_trace(activation):
    """Coefficients that vary are replaced by their means, so the trace is that of the Hessian."""
    prior, u = _experts(activation, 20.0, use_bias=True), _images((1, 5, 6, 1))
    prior.build(u.shape)
    prior.bias.assign(np.linspace(-0.1, 0.1, 5))
    spectrum = prior.bind(u.shape).hessian_spectrum(u).numpy()[0]
    np.testing.assert_allclose(
        _whole(spectrum, 6), np.trace(dense_hessian(prior, u)) / 30, rtol=1e-10
    )
    assert spectrum.min() >= 0


def test_channels_share_their_mean():
    prior, u = _experts("tanh", 20.0), _images((1, 4, 6, 3))
    prior.build(u.shape)
    spectrum = prior.bind(u.shape).hessian_spectrum(u).numpy()[0]
    np.testing.assert_allclose(
        _whole(spectrum, 6), np.trace(dense_hessian(prior, u)) / 72, rtol=1e-10
    )


def test_each_image_has_its_own():
    prior, u = _experts("tanh", 50.0), _images((3, 6, 6, 1))
    prior.build(u.shape)
    make = prior.bind(u.shape).hessian_spectrum
    together = make(u)
    assert together.shape == (3, 6, 4)
    for i in range(3):
        np.testing.assert_allclose(make(u[i : i + 1])[0], together[i], rtol=1e-12)


@pytest.mark.parametrize("activation", ["tanh", "smoothed_l1"])
@pytest.mark.parametrize("channels", [1, 2])
def test_diagonal(activation, channels):
    prior, u = _experts(activation, 20.0, use_bias=True), _images((1, 5, 6, channels))
    prior.build(u.shape)
    prior.bias.assign(np.linspace(-0.1, 0.1, 5))
    found = prior.bind(u.shape).hessian_diagonal(u).numpy().ravel()
    np.testing.assert_allclose(found, np.diagonal(dense_hessian(prior, u)), rtol=1e-10)


def test_diagonal_of_total_variation():
    """Where differences along one axis are zero, there is no product of the two."""
    row = np.random.default_rng(0).uniform(size=(1, 1, 6, 1))
    u = tf.constant(np.tile(row, (1, 5, 1, 1)))
    prior = priors.TotalVariation(smoothing=0.1, dtype="float64")
    found = prior.bind(u.shape).hessian_diagonal(u).numpy().ravel()
    np.testing.assert_allclose(found, np.diagonal(dense_hessian(prior, u)), rtol=1e-10)


def test_of_total_variation():
    """At a constant image all coefficients are equal, and a pixel inside sees no boundary."""
    prior, u = priors.TotalVariation(smoothing=0.1, dtype="float64"), tf.ones((1, 7, 8, 1))
    u = tf.cast(u, tf.float64)
    spectrum = prior.bind(u.shape).hessian_spectrum(u)[0]
    column = dense_hessian(prior, u)[:, 3 * 8 + 4].reshape(7, 8)
    expected = np.fft.rfft2(np.roll(column, (-3, -4), (0, 1)))
    np.testing.assert_allclose(spectrum, expected, atol=1e-11)


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_of_an_untied_map_the_real_part_that_is_not_negative(size):
    prior = priors.UntiedFieldsOfExperts(
        3, (2, 3), "identity", 3.0, padding="circular", dtype="float64"
    )
    u = _images((1, *size, 1))
    prior.build(u.shape)
    weights = prior.synthesis.numpy()
    weights[..., 0] *= -2.0
    prior.synthesis.assign(weights + 0.1 * np.random.default_rng(0).normal(size=weights.shape))
    jacobian = dense_hessian(prior, u)
    expected = np.fft.rfft2(jacobian[:, 0].reshape(size)).real
    assert expected.min() < -1e-3
    found = prior.bind(u.shape).hessian_spectrum(u)[0]
    np.testing.assert_allclose(found, np.maximum(expected, 0), atol=1e-12)
    found = prior.bind(u.shape).hessian_diagonal(u).numpy().ravel()
    np.testing.assert_allclose(found, np.maximum(np.diagonal(jacobian), 0), atol=1e-12)


def test_priors_that_have_none():
    affine = priors.AffineExperts(4)
    affine.build((1, 4, 4, 1))
    assert affine.bind((1, 8, 8, 1)).hessian_spectrum is None
    assert affine.bind((1, 8, 8, 1)).hessian_diagonal is None


@pytest.mark.parametrize("name", ["tanh", "relu", "soft_shrinkage", "identity", "smoothed_l1"])
def test_curvature_is_the_derivative_of_the_activation(name):
    potential, step = potentials.get(name), 1e-6
    t = tf.constant([-50.0, -2.0, -0.3, -0.07, -1e-3, 1e-3, 0.07, 0.3, 2.0, 50.0], tf.float64)
    slope = (potential.activation(t + step) - potential.activation(t - step)) / (2 * step)
    curvature = potential.curvature(t).numpy()
    np.testing.assert_allclose(curvature, slope, atol=1e-8)
    assert curvature.min() >= 0
    assert curvature.max() <= 1
    large = potential.curvature(tf.constant([-1e25, 1e25], tf.float32))
    assert np.isfinite(large).all()

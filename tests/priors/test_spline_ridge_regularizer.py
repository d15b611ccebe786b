"""Learned potentials: what they are between and beyond the knots, and what is certified of them."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import layers, operators, priors, testing
from deq_keras.priors.linear_splines import SplineProfile, integrated
from tests.priors.weights import general

CUT = {"padding": "zero", "cut_layers": True}
FREE = {"shared": False, "even": False}


def _prior(weak_convexity=0.7, **kwargs):
    """A built prior in float64 whose weights are no special case."""
    options = {"filters": (2, 3), "kernel_size": (3, 2), "knots": 9, "scaling": 4.0}
    options = {**options, "sharpness": 4.0, "dtype": "float64", **kwargs}
    return general(priors.SplineRidgeRegularizer(weak_convexity=weak_convexity, **options))


def _images(shape, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(size=shape))


def _slope(t, curvature):
    """The linear spline with these slopes that is zero at zero."""
    knots = np.linspace(-1.0, 1.0, len(curvature) + 1)
    values = np.concatenate([[0.0], np.cumsum(curvature) * (knots[1] - knots[0])])
    return np.interp(t, knots, values - np.interp(0.0, knots, values))


def _value(t, curvature):
    """Its integral from zero: exact, for the trapezoidal rule breaks at each knot."""
    points = np.unique([0.0, t, *np.linspace(-1.0, 1.0, len(curvature) + 1)])
    points = points[(points >= min(t, 0.0)) & (points <= max(t, 0.0))]
    return np.sign(t) * np.trapezoid(_slope(points, curvature), points)


def test_a_potential_between_and_beyond_its_knots():
    curvature = np.random.default_rng(0).normal(size=(2, 6))
    t = np.array([-3.0, -1.0, -0.9, -1 / 3, -1e-9, 0.0, 0.2, 0.6, 1.0, 1.7])
    alpha, profile = 0.8, SplineProfile()
    c = integrated(tf.constant(curvature)), tf.constant(alpha, tf.float64)
    responses = tf.constant(np.stack([t, t], axis=-1) / alpha)
    slopes, values = alpha * profile.slope(responses, *c), alpha**2 * profile.value(responses, *c)
    for group in range(2):
        expected = [_slope(s, curvature[group]) for s in t]
        np.testing.assert_allclose(slopes[:, group], expected, atol=1e-14)
        expected = [_value(s, curvature[group]) for s in t]
        np.testing.assert_allclose(values[:, group], expected, atol=1e-14)
    knots = np.linspace(-1.0, 1.0, 7)
    middle = tf.constant(np.stack([knots[:-1] + 1 / 6] * 2, axis=-1) / alpha)
    np.testing.assert_allclose(profile.curvature(middle, *c), curvature.T, rtol=1e-14)
    beyond = tf.constant([[-1.5] * 2, [1.5] * 2], tf.float64) / alpha
    np.testing.assert_array_equal(profile.curvature(beyond, *c), np.zeros((2, 2)))


@pytest.mark.parametrize(
    ("options", "weak_convexity"), [(CUT, 1.5), ({**FREE, "padding": "circular"}, 0.0)]
)
def test_gradient_and_constants(options, weak_convexity):
    prior = _prior(weak_convexity, **options)
    report = testing.prior_test(prior, (2, 9, 7, 1))
    assert report.gradient_error < 1e-12
    assert report.lipschitz <= float(prior.gradient_lipschitz((9, 7))) * (1 + 1e-6)
    assert report.strong_convexity >= float(prior.strong_convexity((9, 7))) - 1e-6
    assert prior.is_convex == (weak_convexity == 0.0)


def test_layers_that_are_cut_have_a_norm_of_at_most_one():
    prior = _prior(**CUT)
    basis = tf.constant(np.eye(63).reshape(-1, 9, 7, 1))
    matrix = np.asarray(prior._analyse(basis, prior.coefficients().filters)).reshape(63, -1)
    assert 0.3 < np.linalg.norm(matrix, 2) <= 1.0
    whole = _prior(padding="zero")
    ratio = prior.gradient(_images((1, 9, 7, 1))) / whole.gradient(_images((1, 9, 7, 1)))
    assert np.ptp(ratio) > 1e-3, "at the border they differ"


def test_an_even_shared_potential_for_all_filters():
    prior = _prior()
    t = tf.linspace(tf.constant(0.0, tf.float64), 1.0, 7)
    ahead, behind = prior.curves(t), prior.curves(-t)
    np.testing.assert_allclose(ahead["potential"], behind["potential"], rtol=1e-12)
    np.testing.assert_allclose(ahead["activation"], -behind["activation"], rtol=1e-12)
    assert prior.slopes.shape == (1, 4)
    assert _prior(**FREE).slopes.shape == (3, 8)


def test_slopes_stay_where_they_may_be():
    prior = _prior(0.7)
    prior.slopes.assign(tf.fill((1, 4), tf.constant(-5.0, tf.float64)))
    np.testing.assert_allclose(prior.strong_convexity((13, 9)), -0.7, rtol=1e-12)
    kept = prior.slopes.constraint(tf.constant([-5.0, 3.0, 5000.0], tf.float64))
    np.testing.assert_array_equal(kept, [-0.7, 3.0, 1000.0])


def test_the_scaling_is_linear_in_the_noise_level():
    prior = priors.SplineRidgeRegularizer((2,), noise_levels=(0.0, 0.1, 0.2), dtype="float64")
    prior.build((None, None, None, 1))
    noise = np.array([0.05, 0.1, 0.15, 0.3])
    np.testing.assert_allclose(
        prior.scaling_at(tf.constant(noise))[:, 0], 20.0 * 0.1 / noise, rtol=1e-5
    )
    values = np.array([[1.0, -1.0], [2.0, 0.5], [4.0, 0.0]])
    prior.log_scaling.assign(values)
    for column in range(2):
        expected = np.exp(np.interp(noise, (0.0, 0.1, 0.2), values[:, column]))
        expected /= noise + 1e-5 / 255
        found = prior.scaling_at(tf.constant(noise))[:, column]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert np.isfinite(prior.scaling_at(tf.constant([0.0], tf.float64))).all()


def test_derivatives_with_respect_to_the_weights():
    prior, u = _prior(noise_levels=(0.1, 0.2), **FREE), _images((2, 7, 6, 1))
    noise = tf.constant([0.12, 0.19], tf.float64)
    for function in (prior.energy, prior.gradient):
        testing.gradient_test(
            lambda u, f=function: f(u, noise), u, variables=prior.trainable_weights, directions=1
        )


def test_a_denoising_energy_is_convex_for_a_weight_below_the_modulus():
    prior, y = _prior(2.0, padding="circular"), _images((1, 9, 8, 1))
    prior.slopes.assign(np.maximum(prior.slopes, -2.0))
    cell = layers.GradientStep(operators.Identity(dtype="float64"), prior, 0.4, dtype="float64")
    cell.build(y.shape, y.shape)
    assert float(cell.bind(y).strong_convexity) > 0
    cell.log_weight.assign(np.log(0.6))
    assert float(cell.bind(y).strong_convexity) == 0.0


def test_layer_contract():
    options = {"filters": (2, 4), "kernel_size": (3, 2), "weak_convexity": 1.5, "knots": 7}
    options |= {**FREE, **CUT, "scaling": 9.0, "sharpness": 3.0, "max_sharpness": None}
    testing.layer_test(priors.SplineRidgeRegularizer, options, (2, 9, 8, 1))
    config = priors.SplineRidgeRegularizer(**options, noise_levels=(0.0, 0.1)).get_config()
    for name, value in {**options, "noise_levels": (0.0, 0.1)}.items():
        assert config[name] == value


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"knots": 10}, "`knots` to be an odd integer"),
        ({"knots": 1}, "`knots` to be an odd integer"),
        ({"weak_convexity": -0.1}, "`weak_convexity`"),
        ({"cut_layers": True}, "`padding='zero'` where layers are cut"),
        ({"noise_levels": (0.1, 0.0)}, "increasing standard deviations"),
    ],
)
def test_wrong_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        priors.SplineRidgeRegularizer(**options)

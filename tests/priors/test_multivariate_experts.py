"""Multivariate experts: the envelope of the largest response, and what is certified of it."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import priors, testing
from deq_keras.priors.multivariate_experts import largest_of_group
from tests.priors.weights import general


def _envelope(t):
    """`min_x ||x||_inf + ||t - x||^2 / 2` for one group, by search over the level of clipping."""
    levels = np.linspace(0.0, np.abs(t).max(), 200001)
    beyond = np.maximum(np.abs(t)[:, None] - levels, 0.0)
    return np.min(levels + 0.5 * np.sum(beyond**2, axis=0))


@pytest.mark.parametrize("size", [1, 2, 4, 5])
def test_it_is_the_moreau_envelope_of_the_largest(size):
    potential = largest_of_group(size)
    rng = np.random.default_rng(0)
    groups = [scale * rng.normal(size=size) for scale in (0.1, 0.7, 3.0)]
    # Of a number of groups: entry i + n k of the last axis is number k of group i.
    t = tf.constant(np.stack(groups, axis=-1).reshape(1, -1))
    total = float(tf.reduce_sum(potential.value(t)))
    assert total == pytest.approx(sum(_envelope(group) for group in groups), abs=1e-6)
    slopes = potential.activation(t).numpy().reshape(size, 3)
    assert np.all(np.abs(slopes).sum(axis=0) <= 1 + 1e-12)


def test_activation_and_curvature_are_derivatives_of_the_value():
    potential = largest_of_group(3)
    t = tf.constant(2.0 * np.random.default_rng(1).normal(size=(5, 6)))
    testing.gradient_test(potential.value, t)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(t)
        slopes = potential.activation(t)
        value = tf.reduce_sum(potential.value(t))
    np.testing.assert_allclose(slopes, tape.gradient(value, t), atol=1e-12)
    jacobian = tape.batch_jacobian(slopes, t, experimental_use_pfor=False).numpy()
    diagonals = np.array([np.diag(one) for one in jacobian])
    np.testing.assert_allclose(potential.curvature(t), diagonals, atol=1e-12)
    assert np.abs(jacobian - jacobian.transpose(0, 2, 1)).max() < 1e-12
    eigenvalues = np.linalg.eigvalsh(jacobian)
    assert -1e-12 <= eigenvalues.min() <= eigenvalues.max() <= 1 + 1e-12


def test_only_the_largest_of_strong_responses_count():
    potential = largest_of_group(3)
    t = tf.constant([[9.0, 1.0, -2.0]], tf.float64)
    assert float(tf.reduce_sum(potential.value(t))) == pytest.approx(9.0 - 0.5)
    np.testing.assert_array_equal(potential.activation(t), [[1.0, 0.0, 0.0]])


def test_order_and_signs_within_a_group_do_not_matter():
    potential, t = largest_of_group(3), np.array([0.4, -1.3, 0.9])
    values = [
        float(tf.reduce_sum(potential.value(tf.constant([signs * np.array(order)]))))
        for order in itertools.permutations(t)
        for signs in (np.array([1, 1, 1]), np.array([-1, 1, -1]))
    ]
    np.testing.assert_allclose(values, values[0], rtol=1e-12)


@pytest.mark.parametrize("weak_convexity", [0.0, 0.9])
def test_what_is_certified_of_the_curvature(weak_convexity):
    prior = priors.MultivariateExperts(
        (2, 6), 3, weak_convexity, group_size=3, scaling=3.0, sharpness=6.0, padding="circular",
        dtype="float64",
    )  # fmt: skip
    general(prior, deviation=0.3)
    report = testing.prior_test(prior, (2, 8, 7, 1))
    largest = float(tf.reduce_max(tf.exp(prior.log_sharpness)))
    assert float(prior.gradient_lipschitz()) == pytest.approx(largest)
    assert 0.05 * largest < report.lipschitz <= largest
    assert float(prior.strong_convexity()) == pytest.approx(-weak_convexity)
    assert prior.is_convex == (not weak_convexity)


def test_a_group_shares_its_sharpness_and_scaling_at_every_noise_level():
    prior = priors.MultivariateExperts((2, 6), 3, group_size=3, noise_levels=(0.05, 0.2))
    prior.build((None, None, None, 1))
    assert prior.log_sharpness.shape == (2,)
    assert prior.log_scaling.shape == (2, 2)
    prior.log_sharpness.assign([1.0, 2.0])
    np.testing.assert_allclose(tf.math.log(prior.coefficients().sharpness), [1, 2] * 3, rtol=1e-6)
    prior.log_scaling.assign([[1.0, 2.0], [3.0, 4.0]])
    scaling = prior.scaling_at(tf.constant([0.2]))
    np.testing.assert_allclose(tf.math.log(scaling), [[3, 4] * 3], rtol=1e-6)


def test_filters_are_whole_groups():
    with pytest.raises(ValueError, match="a multiple of `group_size`.*group_size=4"):
        priors.MultivariateExperts((2, 6))

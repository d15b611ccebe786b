"""Interpolation between noise levels."""

import numpy as np
import tensorflow as tf

from deq_keras.priors.noise_levels import interpolation_weights


def test_it_is_linear_in_the_logarithm():
    levels = (0.02, 0.1, 0.15, 0.4)
    noise = tf.constant([0.02, 0.03, 0.1, 0.13, 0.2, 0.4], tf.float64)
    weights = interpolation_weights(noise, levels)
    assert weights.numpy().min() >= 0
    np.testing.assert_allclose(tf.reduce_sum(weights, 1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(weights @ np.log(levels)[:, None], np.log(noise)[:, None])
    values = np.array([3.0, -1.0, 2.0, 5.0])
    expected = np.interp(np.log(noise), np.log(levels), values)
    np.testing.assert_allclose((weights @ values[:, None])[:, 0], expected, rtol=1e-12)


def test_beyond_the_levels_and_with_a_single_one():
    ends = interpolation_weights(tf.constant([0.0, 1.0]), (0.1, 0.2))
    np.testing.assert_array_equal(ends, [[1.0, 0.0], [0.0, 1.0]])
    np.testing.assert_array_equal(interpolation_weights(tf.constant([0.3]), (0.1,)), [[1.0]])


def test_derivatives_are_finite_at_zero():
    noise = tf.constant([0.0, 0.15])
    with tf.GradientTape() as tape:
        tape.watch(noise)
        weights = interpolation_weights(noise, (0.1, 0.2))[:, 0]
    np.testing.assert_allclose(
        tape.gradient(weights, noise), [0.0, -1 / (0.15 * np.log(2.0))], rtol=1e-5
    )

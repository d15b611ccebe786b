"""The weakly convex profiles: derivatives, and the bounds on them."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras.priors import potentials
from deq_keras.priors.profiles import Profile

T = tf.constant(np.concatenate([np.linspace(-3, 3, 61), [-50.0, 1e-3, 0.013, 40.0]]) + 1e-4)


@pytest.mark.parametrize("name", ["smoothed_l1", "tanh", "relu", "soft_shrinkage", "identity"])
@pytest.mark.parametrize("rho", [0.0, 0.7])
def test_derivatives_and_their_bounds(name, rho):
    profile, step = Profile(potentials.get(name), rho), 1e-6
    weights = tf.constant(8.0, tf.float64), tf.constant(2.5, tf.float64)

    def slope_of(function):
        return (function(T + step, *weights) - function(T - step, *weights)) / (2 * step)

    np.testing.assert_allclose(profile.slope(T, *weights), slope_of(profile.value), atol=1e-7)
    curvature = profile.curvature(T, *weights).numpy()
    np.testing.assert_allclose(curvature, slope_of(profile.slope), atol=1e-6)
    assert curvature.min() >= -rho
    assert curvature.max() <= 8.0
    steepest = profile.curvature_lipschitz(*weights)
    if np.isfinite(steepest):
        assert np.abs(slope_of(profile.curvature)).max() <= steepest + 1e-6


def test_large_responses_cost_less_than_in_a_convex_profile():
    """From `1 / alpha` on, the part `rho` of the slope `1 / alpha` is taken away."""
    profile = Profile(potentials.get("smoothed_l1"), 0.75)
    one = tf.constant(1.0, tf.float64)
    between, beyond = (profile.slope(t * one, 1e4, 2.0) for t in (0.01, 1e3))
    np.testing.assert_allclose(between, 0.5, rtol=0.02)
    np.testing.assert_allclose(beyond, 0.5 * 0.25, rtol=1e-6)

"""The difference of two convex priors: its interval of curvatures, and what is refused."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import layers, operators, priors

DTYPE = {"dtype": "float64"}


class _Quadratic(priors.Prior):
    """`c ||u||^2 / 2` with all that it knows."""

    is_convex = True

    def __init__(self, curvature, certifies=True):
        super().__init__(**DTYPE)
        self.curvature, self.certifies = curvature, certifies

    def energy(self, u):
        return 0.5 * self.curvature * tf.reduce_sum(u * u, axis=(1, 2, 3))

    def gradient_lipschitz(self, size=None):
        return tf.constant(self.curvature, tf.float64) if self.certifies else None

    def strong_convexity(self):
        return tf.constant(self.curvature, tf.float64)


@pytest.mark.parametrize(("first", "second", "lipschitz"), [(3.0, 1.0, 2.0), (1.0, 3.0, 2.0)])
def test_the_interval_of_curvatures_is_sharp(first, second, lipschitz):
    prior = priors.DifferenceOfConvex(_Quadratic(first), _Quadratic(second))
    assert float(prior.strong_convexity()) == first - second
    assert float(prior.gradient_lipschitz()) == lipschitz
    bound = prior.bind((1, 4, 4, 1))
    assert float(bound.strong_convexity) == first - second
    assert float(bound.lipschitz) == lipschitz
    u = tf.ones((1, 4, 4, 1), tf.float64)
    np.testing.assert_allclose(prior.gradient(u), (first - second) * u)
    np.testing.assert_allclose(prior.energy(u), 8.0 * (first - second))
    assert prior.certified


def test_a_problem_that_stays_convex_is_certified():
    identity = operators.Identity(**DTYPE)
    prior = priors.DifferenceOfConvex(_Quadratic(3.0), _Quadratic(1.0))
    cell = layers.GradientStep(identity, prior, weight=0.5, **DTYPE)
    cell.build((None, 4, 4, 1))
    # Both step and modulus follow from the curvature 1 + 0.5 * 2.
    bound = cell.bind(tf.ones((1, 4, 4, 1), tf.float64))
    assert float(bound.step.length) == pytest.approx(0.5)
    assert float(bound.strong_convexity) == pytest.approx(1.0)


def test_without_a_constant_of_the_second_there_is_none_of_both():
    prior = priors.DifferenceOfConvex(_Quadratic(3.0), _Quadratic(1.0, certifies=False))
    assert prior.strong_convexity() is None
    assert prior.gradient_lipschitz() is None
    assert prior.bind((1, 4, 4, 1)).strong_convexity is None


def test_pictures_are_those_of_both():
    network = priors.InputConvexNetwork((2,), 3)
    prior = priors.DifferenceOfConvex(network, priors.TotalVariation())
    prior.build((None, None, None, 1))
    assert set(prior.pictures()) == {"first analysis_1"}


def test_what_is_refused():
    convex, other = priors.TotalVariation(), priors.TotalVariation(**DTYPE)
    weakly = priors.RidgeRegularizer((2, 3), weak_convexity=0.5)
    with pytest.raises(ValueError, match="`second` to be a convex prior"):
        priors.DifferenceOfConvex(convex, weakly)
    with pytest.raises(ValueError, match="`first` to be a convex prior"):
        priors.DifferenceOfConvex(tf.identity, convex)
    with pytest.raises(ValueError, match="one dtype. Received float32 and float64"):
        priors.DifferenceOfConvex(convex, other)

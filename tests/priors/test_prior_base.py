"""A prior of one's own: what follows from an energy or a gradient alone, and what is certified."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import priors, testing

SHAPE = (2, 5, 6, 1)


class OfAnEnergy(priors.Prior):
    """`exp(scale) ||u||^2 / 2`, with a weight that is made when it is first used."""

    is_convex = True

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.built = True

    def energy(self, u):
        self.ensure_built(u)
        return 0.5 * tf.exp(self.scale) * tf.reduce_sum(u * u, axis=(1, 2, 3))


class Certified(OfAnEnergy):
    """The same, with a gradient and constants of its own."""

    def gradient(self, u):
        self.ensure_built(u)
        return tf.exp(self.scale) * u

    def gradient_lipschitz(self, size=None):
        return tf.exp(self.scale)

    def strong_convexity(self):
        return tf.exp(self.scale)


class OfAGradient(priors.Prior):
    """A learned map that is the gradient of nothing."""

    def gradient(self, u):
        return tf.sin(u[:, ::-1])


def _images(seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=SHAPE))


def test_an_energy_is_enough():
    prior = OfAnEnergy(dtype="float64")
    report = testing.prior_test(prior, SHAPE)
    np.testing.assert_allclose(report.lipschitz, np.e, rtol=1e-9)
    u = _images()
    np.testing.assert_allclose(prior.gradient(u), np.e * u, rtol=1e-12)
    assert prior.has_energy
    assert not prior.certified
    bound = prior.bind(SHAPE)
    assert bound.lipschitz is None
    assert float(bound.strong_convexity) == 0.0, "it says that it is convex"
    prior.scale.assign(0.0)
    np.testing.assert_allclose(bound.gradient(u), np.e * u, rtol=1e-12)
    np.testing.assert_allclose(prior.gradient(u), u, rtol=1e-12)


def test_the_derivative_by_the_weights_of_a_differentiated_gradient():
    prior, u = OfAnEnergy(dtype="float64"), _images()
    prior.build(SHAPE)
    testing.gradient_test(prior.gradient, u, variables=[prior.scale])


def test_what_is_certified_is_said():
    prior = Certified(dtype="float64")
    report = testing.prior_test(prior, SHAPE)
    np.testing.assert_allclose(report.lipschitz, np.e, rtol=1e-9)
    np.testing.assert_allclose(report.strong_convexity, np.e, rtol=1e-9)
    assert prior.certified
    bound = prior.bind(SHAPE)
    np.testing.assert_allclose([bound.lipschitz, bound.strong_convexity], np.e, rtol=1e-12)


def test_a_gradient_is_enough_for_a_learned_map():
    prior, u = OfAGradient(dtype="float64"), _images()
    np.testing.assert_array_equal(prior(u), tf.sin(u[:, ::-1]))
    assert not prior.has_energy
    bound = prior.bind(SHAPE)
    assert bound.energy is bound.lipschitz is bound.strong_convexity is None
    with pytest.raises(ValueError, match="OfAGradient has no energy"):
        prior.energy(u)


def test_neither_is_an_error_that_says_so():
    for call in (lambda p, u: p.gradient(u), lambda p, u: p.energy(u), lambda p, u: p.bind(SHAPE)):
        with pytest.raises(NotImplementedError, match="`energy.u.` or `gradient.u.`"):
            call(priors.Prior(), _images())


def test_autograph_does_not_read_a_prior():
    """It would take seconds."""
    seen = []

    class Seen(priors.Prior):
        def energy(self, u):
            seen.append(tf.__internal__.autograph.control_status_ctx().status.name)
            return tf.reduce_sum(u**2, axis=(1, 2, 3))

    prior, u = Seen(), tf.ones((1, 4, 4, 1))
    np.testing.assert_allclose(tf.function(lambda u: prior.gradient(u))(u), 2 * u)
    assert seen == ["DISABLED"]

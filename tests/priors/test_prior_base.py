"""A prior of one's own: what the base class gives, and what it asks for."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import priors, testing


class Tikhonov(priors.Prior):
    """`||u||^2 / 2` scaled: strongly convex, and a weight made when it is first used."""

    is_convex = True

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer="ones", name="scale")
        self.built = True

    def gradient_map(self):
        scale = tf.exp(self.scale)
        return lambda u: scale * u

    def energy(self, u):
        self.ensure_built(u)
        return 0.5 * tf.exp(self.scale) * tf.reduce_sum(u * u, axis=(1, 2, 3))

    def gradient_lipschitz(self, size=None):
        return tf.exp(self.scale)

    def convexity(self):
        return tf.exp(self.scale)


def test_a_prior_of_ones_own():
    report = testing.prior_test(Tikhonov(dtype="float64"), (2, 5, 6, 1))
    np.testing.assert_allclose(report.lipschitz, np.e, rtol=1e-9)
    np.testing.assert_allclose(report.convexity, np.e, rtol=1e-9)


def test_energy_first_builds_it_as_well():
    prior = Tikhonov()
    assert prior.energy(tf.ones((2, 3, 3, 1))).shape == (2,)
    assert prior.built


def test_what_a_subclass_must_define():
    prior, u = priors.Prior(), tf.ones((1, 3, 3, 1))
    for missing in (prior.gradient_map, prior.gradient_lipschitz, lambda: prior.energy(u)):
        with pytest.raises(NotImplementedError):
            missing()
    assert float(prior.convexity()) == 0.0

"""Input convex networks are convex for all weights, and would not be with a wrong sign."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import priors, testing


def _prior(filters=(3, 4), scale=1.0, **kwargs):
    prior = priors.InputConvexNetwork(filters, 3, dtype="float64", **kwargs)
    prior.build((None, None, None, 1))
    rng = np.random.default_rng(5)
    for weight in prior.trainable_variables:
        weight.assign(weight + scale * rng.normal(size=weight.shape))
    return prior


def _excess(prior, scale=1.0):
    """How far above the chord the energy is, at most, on random segments: no more than rounding."""
    rng = np.random.default_rng(1)
    ends = [tf.constant(scale * rng.normal(size=(16, 7, 6, 1))) for _ in range(2)]
    values = [prior.energy(end) for end in ends]
    found = []
    for share in (0.1, 0.5, 0.8):
        between = prior.energy(share * ends[0] + (1 - share) * ends[1])
        chord = share * values[0] + (1 - share) * values[1]
        found.append(np.max((between - chord) / np.abs(chord)))
    return max(found)


@pytest.mark.parametrize("padding", ["reflect", "zero", "circular"])
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_it_is_convex_whatever_the_weights(padding, scale):
    assert _excess(_prior((3, 4, 2), scale, padding=padding)) < 1e-12


class _WrongSign(priors.InputConvexNetwork):
    def mixing(self):
        return [-mixing for mixing in super().mixing()]


def test_with_a_wrong_sign_it_would_not_be():
    prior = _WrongSign((3, 4), 3, sharpness=5.0, dtype="float64")
    prior.build((None, None, None, 1))
    prior.bias[1].assign(tf.fill((4,), tf.constant(3.0, tf.float64)))  # where `s` is the identity
    assert _excess(prior) > 1e-4
    with pytest.raises(AssertionError, match="strong_convexity"):
        testing.prior_test(prior, (2, 7, 6, 1))


@pytest.mark.parametrize("padding", ["reflect", "zero", "circular"])
def test_its_constant_holds_on_random_weights(padding):
    prior = _prior(padding=padding, scale=0.5, sharpness=8.0)
    report = testing.prior_test(prior, (2, 7, 6, 1))
    bound = float(prior.gradient_lipschitz((7, 6)))
    assert report.lipschitz <= bound
    assert bound < 1000 * report.lipschitz, "a bound that says nothing"


def test_no_weight_is_negative_and_the_first_sums_are_about_one():
    prior = _prior(scale=4.0)
    assert min(float(tf.reduce_min(w)) for w in (*prior.mixing(), prior.last())) >= 0
    fresh = _prior(scale=0.0)
    sums = tf.reduce_sum(fresh.mixing()[0], axis=(0, 1, 2))
    np.testing.assert_allclose(sums, 1.0, atol=0.1)


def test_filters_are_shown():
    assert {k: tuple(v.shape) for k, v in _prior().pictures().items()} == {
        "analysis_1": (3, 3, 3, 1),
        "analysis_2": (4, 3, 3, 1),
    }


@pytest.mark.parametrize(
    "wrong", [{"filters": ()}, {"filters": 8}, {"sharpness": 0.0}, {"padding": "valid"}]
)
def test_wrong_arguments(wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"`{name}`"):
        priors.InputConvexNetwork(**wrong)

"""Priors that are made of another one: rescaled, and at one noise level."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import layers, operators, presets, priors, testing

SHAPE = (2, 8, 9, 1)
U = tf.constant(np.random.default_rng(0).uniform(size=SHAPE))
INNER = {
    "convex": lambda **kw: priors.FieldsOfExperts(3, 3, sharpness=20.0, **kw),
    "weakly convex": lambda **kw: priors.RidgeRegularizer((2, 3), 2, weak_convexity=0.8, **kw),
    "total variation": lambda **kw: priors.TotalVariation(0.1, **kw),
}


@pytest.mark.parametrize("name", INNER)
def test_a_rescaled_prior_is_its_formula(name):
    inner = INNER[name](dtype="float64")
    prior = priors.Rescaled(inner, scale=2.5, dtype="float64")
    report = testing.prior_test(prior, SHAPE)
    np.testing.assert_allclose(prior.energy(U), inner.energy(2.5 * U) / 2.5, rtol=1e-12)
    np.testing.assert_allclose(prior.gradient(U), inner.gradient(2.5 * U), rtol=1e-12)
    # The constants are those of the inner one, times the scale.
    constants = prior.gradient_lipschitz(), prior.strong_convexity()
    np.testing.assert_allclose(constants[0], 2.5 * inner.gradient_lipschitz(), rtol=1e-12)
    np.testing.assert_allclose(constants[1], 2.5 * inner.strong_convexity(), rtol=1e-12)
    assert report.lipschitz <= constants[0] * (1 + 1e-6)
    assert prior.is_convex == inner.is_convex
    p = U - 0.5
    np.testing.assert_allclose(
        prior.hessian_variation(p), 2.5**2 * inner.hessian_variation(p), rtol=1e-12
    )
    testing.gradient_test(prior.gradient, U, variables=[prior.log_scale], directions=1)


def test_a_learned_map_is_rescaled_too():
    inner = priors.UntiedFieldsOfExperts(3, 3)
    prior = priors.Rescaled(inner, scale=0.5)
    u = tf.cast(U, "float32")
    assert not prior.has_energy
    np.testing.assert_allclose(prior.gradient(u), inner.gradient(0.5 * u), rtol=1e-6)
    with pytest.raises(ValueError, match="has no energy"):
        prior.energy(u)


def test_one_noise_level_for_all():
    inner = priors.RidgeRegularizer((2, 3), 2, noise_levels=(0.02, 0.1, 0.3), dtype="float64")
    prior = priors.AtNoiseLevel(inner, 0.07, dtype="float64")
    testing.prior_test(prior, SHAPE)
    levels = tf.fill([2], tf.constant(0.07, tf.float64))
    np.testing.assert_allclose(prior.gradient(U), inner.gradient(U, levels), rtol=1e-12)
    testing.gradient_test(prior.gradient, U, variables=[prior.log_noise_level], directions=1)
    both = priors.Rescaled(inner, 2.0, dtype="float64")
    assert both.takes_noise_level
    both.build(SHAPE)
    scaled = both.bind(SHAPE, levels).gradient(U)
    np.testing.assert_allclose(scaled, inner.gradient(2.0 * U, levels), rtol=1e-12)


@pytest.mark.parametrize("kind", ["scale", "noise level"])
def test_they_are_solved_trained_and_saved(kind, tmp_path):
    if kind == "scale":
        prior = priors.Rescaled(priors.FieldsOfExperts(2, 3, sharpness=2.0))
    else:
        prior = priors.AtNoiseLevel(priors.RidgeRegularizer((2, 3), 2, noise_levels=(0.02, 0.1)))
    layer = layers.Variational(operators.Identity(), prior, weight=0.05, solver="picard")
    y = tf.cast(U, "float32")
    model = keras.Sequential([keras.Input(SHAPE[1:]), layer])
    assert layer.solve(y).converged.numpy().all()
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(model(y) ** 2)
    assert all(g is not None for g in tape.gradient(loss, model.trainable_variables))
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(again(y), model(y), atol=1e-6)
    # What another prior is made of does not count for itself.
    assert type(presets.load(str(tmp_path / "model.keras"))) is type(prior)


def test_mistakes():
    with pytest.raises(ValueError, match="expected `prior` to be a `deq_keras.priors.Prior`"):
        priors.Rescaled("fields_of_experts")
    with pytest.raises(ValueError, match="of its own dtype float32"):
        priors.Rescaled(priors.TotalVariation(dtype="float64"))
    with pytest.raises(ValueError, match="takes none.*Rescaled"):
        priors.AtNoiseLevel(priors.TotalVariation())
    with pytest.raises(ValueError, match="`scale`"):
        priors.Rescaled(priors.TotalVariation(), scale=0.0)

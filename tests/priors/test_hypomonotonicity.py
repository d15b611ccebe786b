"""Untied experts whose map is hypomonotone with a constant that training keeps."""

from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import layers, operators, priors
from tests.variants import covering

SIZE = 7


def untied(limit, seed=0, spread=0.5, **options):
    options = {"sharpness": 30.0, "dtype": "float64", **options}
    prior = priors.UntiedFieldsOfExperts(5, 3, hypomonotonicity=limit, **options)
    prior.build((None, SIZE, SIZE, 1))
    rng = np.random.default_rng(seed)
    for weight in (prior.analysis, prior.synthesis):
        size = spread * float(tf.math.reduce_std(weight))
        weight.assign(weight + size * rng.normal(size=weight.shape))
    return prior


def jacobian(f, u, h=1e-6):
    n = SIZE * SIZE
    steps = h * np.eye(n).reshape(n, SIZE, SIZE, 1)
    difference = (f(u + steps) - f(u - steps)) / (2.0 * h)
    return np.reshape(difference, (n, n)).T


def images(seed, scale=0.1):
    rng = np.random.default_rng(seed)
    return tf.constant(0.5 + scale * rng.normal(size=(1, SIZE, SIZE, 1)))


@pytest.mark.parametrize(
    ("limit", "padding"), covering(product([1e6, 0.3, 3.0], ["reflect", "zero", "valid"]))
)
def test_the_modulus_is_never_violated(padding, limit):
    worst = np.inf
    for seed in range(4):
        prior = untied(limit, seed, padding=padding)
        modulus = float(prior.strong_convexity())
        assert -limit <= modulus < 0
        for scale in (1e-3, 0.1):
            found = jacobian(prior.gradient, images(seed, scale))
            least = np.linalg.eigvalsh(0.5 * (found + found.T))[0]
            assert least >= modulus * (1 + 1e-6)
            worst = min(worst, least / -modulus)
    assert limit < 1e6 or worst < 0  # the maps are not monotone of themselves


def test_the_limit_is_reached_where_the_maps_are_far_apart():
    free = -float(untied(1e6).strong_convexity())
    for part in (0.1, 0.7):
        assert np.isclose(-float(untied(part * free).strong_convexity()), part * free)
    assert np.isclose(-float(untied(2.0 * free).strong_convexity()), free)


def test_the_lipschitz_constant_holds():
    for limit in (0.3, 1e6):
        prior = untied(limit)
        found = jacobian(prior.gradient, images(1, 1e-3))
        assert np.linalg.norm(found, 2) <= float(prior.gradient_lipschitz()) * (1 + 1e-6)


def test_equal_maps_are_left_alone():
    tied = priors.FieldsOfExperts(5, 3, sharpness=30.0, dtype="float64")
    tied.build((None, SIZE, SIZE, 1))
    prior = untied(0.1)
    prior.adopt(tied)
    np.testing.assert_allclose(prior.gradient(images(0)), tied.gradient(images(0)), rtol=1e-12)
    assert float(prior.strong_convexity()) == 0.0


def test_derivatives_by_the_weights_pass_through_the_limit():
    prior, u = untied(0.3), images(0)
    rng = np.random.default_rng(1)
    cotangent = tf.constant(rng.normal(size=u.shape))

    def value():
        return tf.reduce_sum(cotangent * prior.gradient(u))

    with tf.GradientTape() as tape:
        loss = value()
    variables = prior.trainable_variables
    gradients = tape.gradient(loss, variables)
    for variable, gradient in zip(variables, gradients, strict=True):
        start = variable.numpy()
        direction = rng.normal(size=start.shape) * np.abs(start).mean()
        ends = []
        for sign in (1, -1):
            variable.assign(start + sign * 1e-6 * direction)
            ends.append(float(value()))
        variable.assign(start)
        expected = (ends[0] - ends[1]) / 2e-6
        np.testing.assert_allclose(np.sum(gradient * direction), expected, rtol=1e-5, atol=1e-9)


def test_a_denoiser_is_strongly_monotone_and_certifies_its_error():
    rho = 4.0
    prior = untied(rho, spread=2.0)
    cell = layers.GradientStep(
        operators.Identity(dtype="float64"), prior, 0.2, max_weight=0.2, dtype="float64"
    )
    layer = layers.Equilibrium(cell, solver="anderson", dtype="float64")
    y = images(3)
    layer.build(y.shape)
    problem = cell.bind(y)
    weight, modulus = float(tf.exp(cell.log_weight)), float(prior.strong_convexity())
    length = float(problem.step.length)
    np.testing.assert_allclose(problem.strong_convexity, length * (1 + weight * modulus))
    assert float(problem.strong_convexity) > 0.1 * length
    exact = layer.solve(y, max_steps=4000)
    other = layer.solve(y, initial_value=10.0 * tf.ones_like(y), max_steps=4000)
    np.testing.assert_allclose(exact.value, other.value, atol=1e-3)
    rough = layer.solve(y, max_steps=5).value
    assert any(metric.name.endswith("error_bound") for metric in layer.metrics)
    bound = layer.error_bound(y, rough)
    assert bound.certified.numpy().all()
    assert tf.norm(rough - exact.value) <= bound.value[0] * (1 + 1e-6)


def test_training_keeps_the_weight():
    cell = layers.GradientStep(
        operators.Identity(), priors.UntiedFieldsOfExperts(3, 3), 0.1, max_weight=0.15
    )
    model = keras.Sequential([keras.Input((8, 8, 1)), layers.Equilibrium(cell)])
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.build(model.trainable_variables)
    gradients = [-tf.ones_like(v) for v in model.trainable_variables]
    optimizer.apply(gradients, model.trainable_variables)
    np.testing.assert_allclose(tf.exp(cell.log_weight), 0.15, rtol=1e-6)


def test_configuration_and_wrong_numbers():
    prior = priors.UntiedFieldsOfExperts(3, 3, hypomonotonicity=2.0)
    assert priors.UntiedFieldsOfExperts.from_config(prior.get_config()).hypomonotonicity == 2.0
    cell = layers.GradientStep(operators.Identity(), prior, 0.1, max_weight=0.2)
    assert layers.GradientStep.from_config(cell.get_config()).max_weight == 0.2
    with pytest.raises(ValueError, match="hypomonotonicity"):
        priors.UntiedFieldsOfExperts(3, 3, hypomonotonicity=0.0)
    with pytest.raises(ValueError, match="weight"):
        layers.GradientStep(operators.Identity(), prior, 0.3, max_weight=0.2)

"""Observation: what the solves within a call say, and limits for them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk
from deq_keras.layers import observe
from tests.variants import marked

Y = tf.constant(np.random.default_rng(0).uniform(size=(3, 9, 8, 1)), tf.float32)
OPTIONS = {"filters": 3, "kernel_size": 3, "sharpness": 5.0, "padding": "zero"}


def variational(**kwargs):
    prior = dk.priors.FieldsOfExperts(**OPTIONS)
    return dk.layers.Variational(dk.operators.Identity(), prior, **kwargs)


def equilibrium():
    prior = dk.priors.UntiedFieldsOfExperts(**OPTIONS)
    return dk.layers.Equilibrium(dk.layers.GradientStep(dk.operators.Identity(), prior))


@pytest.mark.parametrize("make", [variational, equilibrium])
def test_a_call_says_what_a_solve_says(make):
    layer = make()
    expected, called = layer.solve(Y), layer(Y)
    with observe() as observation:
        image = layer(Y)
    np.testing.assert_array_equal(image, called)
    (seen,) = observation
    assert seen.layer is layer
    solution = observation.solution(image)
    np.testing.assert_array_equal(solution.steps, expected.steps)
    np.testing.assert_array_equal(solution.residual, expected.residual)
    assert solution.value is image
    bound, own = seen.error_bound(), layer.error_bound(Y, image)
    np.testing.assert_allclose(bound.value, own.value, rtol=1e-3)
    np.testing.assert_array_equal(bound.certified, own.certified)


def test_nothing_is_observed_outside():
    layer = variational()
    with observe() as observation:
        pass
    image = layer(Y)
    assert not observation
    assert observation.solution(image).steps is None


@pytest.mark.parametrize("graph", marked([False, True], [True]))
def test_layers_in_models_in_models(graph):
    first, second = variational(name="first"), equilibrium()
    inner = keras.Sequential([keras.Input((9, 8, 1)), first])
    image = keras.Input((9, 8, 1))
    model = keras.Model(image, second(inner(keras.layers.Rescaling(0.5)(image))))

    def run(y):
        with observe() as observation:
            value = model(y)
        assert [seen.layer for seen in observation] == [first, second]
        return observation.solution(value), [seen.solution for seen in observation]

    total, parts = (tf.function(run, autograph=False) if graph else run)(Y)
    np.testing.assert_array_equal(parts[0].steps, first.solve(0.5 * Y).steps)
    np.testing.assert_array_equal(total.steps, parts[0].steps + parts[1].steps)
    np.testing.assert_array_equal(total.residual, np.maximum(*(p.residual for p in parts)))
    np.testing.assert_array_equal(total.converged, parts[0].converged & parts[1].converged)


def test_limits_reach_the_solvers_and_zero_is_their_own():
    layer = variational(solver=dk.solvers.Nesterov(tolerance=1e-5))
    own = layer.solve(Y)
    with observe(tf.constant([1e-2, 0.0, 0.0]), tf.constant([0, 4, -1])) as observation:
        layer(Y)
    found = observation[0].solution
    assert int(found.steps[0]) < int(own.steps[0])
    assert bool(found.converged[0])
    assert int(found.steps[1]) == 4
    assert not bool(found.converged[1])
    assert int(found.steps[2]) == int(own.steps[2])
    with observe(tolerance=1e-2, max_steps=3) as observation:
        layer(Y)
    assert observation[0].solution.steps.numpy().max() <= 3
    assert layer.solver.max_steps == 1000


def test_gradients_are_those_of_a_call():
    layer = variational()
    gradients = []
    for watch in (False, True):
        with tf.GradientTape() as tape:
            if watch:
                with observe():
                    loss = tf.reduce_sum(layer(Y) ** 2)
            else:
                loss = tf.reduce_sum(layer(Y) ** 2)
        gradients.append(tape.gradient(loss, layer.trainable_variables))
    for one, other in zip(*gradients, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_images_of_a_corrected_equilibrium():
    layer = dk.layers.CorrectedEquilibrium(equilibrium().cell, corrections=(2,))
    with observe() as observation:
        images = layer(Y)
    np.testing.assert_array_equal(observation[0].output, images[-1])

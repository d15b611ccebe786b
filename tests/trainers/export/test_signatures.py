"""Signatures of models that are more, or less, than a layer that solves; the live functions."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk
from trainers.export import Signatures
from trainers.export.saved_model import write

RNG = np.random.default_rng(0)
OWN = {"tolerance": tf.zeros(1), "max_steps": tf.zeros(1, tf.int32)}


def variational(operator=None, solver="nesterov"):
    """Quick to trace; the default solver is in test_derivative_against_finite_differences."""
    operator = operator or dk.operators.Identity()
    return dk.layers.Variational(operator, dk.priors.TotalVariation(0.1), solver=solver)


def y(*shape):
    return tf.constant(RNG.uniform(size=shape), tf.float32)


def test_derivative_against_finite_differences():
    layer = variational(solver=dk.solvers.LBFGS(tolerance=1e-6))
    served = Signatures(keras.Sequential([keras.Input((None, None, 1)), layer]))
    gradient = served.gradient
    point, target, direction = (y(2, 6, 5, 1) for _ in range(3))
    step = 1e-2
    found = tf.reduce_sum(gradient(point, target)["gradient"] * direction, axis=[1, 2, 3])
    ends = [gradient(point + s * step * direction, target)["loss"] for s in (1.0, -1.0)]
    np.testing.assert_allclose(found, (ends[0] - ends[1]) / (2 * step), rtol=2e-2)


def test_certified_bound_of_a_strongly_convex_energy():
    layer = variational()
    served = Signatures(keras.Sequential([keras.Input((None, None, 1)), layer]))
    point = y(2, 8, 7, 1)
    rough = served.diagnose(point, tf.constant([1e-2]), tf.zeros(1, tf.int32))
    exact = served.diagnose(point, tf.constant([1e-7]), tf.zeros(1, tf.int32))
    assert rough["certified"].numpy().all()
    difference = (rough["reconstruction"] - exact["reconstruction"]) ** 2
    error = np.sqrt(np.mean(difference, axis=(1, 2, 3)))
    assert (0 < error).all()
    assert (error <= rough["error_bound"].numpy()).all()
    assert rough["error_bound"].numpy().max() < 0.1


def test_model_around_a_layer_tells_of_its_solve_and_knows_no_bound():
    layer = variational()
    image = keras.Input((8, 8, 1))
    served = Signatures(keras.Model(image, keras.layers.Rescaling(2.0)(layer(image))))
    point = y(2, 8, 8, 1)
    answer = served.diagnose(point, *OWN.values())
    np.testing.assert_array_equal(answer["steps"], layer.solve(point).steps)
    assert np.isinf(answer["error_bound"]).all()
    assert not answer["certified"].numpy().any()


def test_model_that_solves_nothing():
    image = keras.Input((None, None, 3))
    model = keras.Model(image, keras.layers.Conv2D(3, 3, padding="same")(image))
    served = Signatures(model)
    point = y(2, 5, 6, 3)
    answer = served.diagnose(point, *OWN.values())
    np.testing.assert_allclose(answer["reconstruction"], model(point), atol=1e-6)
    assert answer["steps"].numpy().tolist() == [0, 0]
    assert answer["converged"].numpy().tolist() == [True, True]
    assert served.takes_images


def test_complex_measurements_have_no_files_nor_integers():
    measurement, mask = keras.Input((8, 8, 1), dtype="complex64"), keras.Input((8, 8, 1))
    layer = variational(dk.operators.FourierMask())
    served = Signatures(keras.Model([measurement, mask], layer([measurement, mask])))
    assert not served.takes_images
    assert served.inputs[0].dtype == tf.complex64
    mask = tf.ones((1, 8, 8, 1))
    point = dk.operators.FourierMask()(y(1, 8, 8, 1), mask)
    answer = served.serving_default(point, mask)
    np.testing.assert_allclose(answer["reconstruction"], layer([point, mask]), atol=1e-5)


def test_super_resolution_answers_in_the_larger_size():
    layer = variational(dk.operators.Downsample(2))
    served = Signatures(keras.Sequential([keras.Input((None, None, 1)), layer]))
    assert served.uint8(tf.zeros((1, 5, 4, 1), tf.uint8))["reconstruction"].shape == (
        1,
        10,
        8,
        1,
    )


@pytest.mark.slow
def test_derivative_through_a_loop_of_a_loaded_model(tmp_path):
    """Of unrolled steps, whose loop TensorFlow itself differentiates."""
    prior = dk.priors.UntiedFieldsOfExperts(2, 3, padding="zero")  # the quickest to trace
    layer = dk.layers.Equilibrium(
        dk.layers.GradientStep(dk.operators.Identity(), prior), "picard", dk.adjoints.Unrolled(4)
    )
    model = keras.Sequential([keras.Input((None, None, 1)), layer])
    write(Signatures(model), tmp_path)
    loaded = tf.saved_model.load(tmp_path)
    point, found = y(1, 7, 6, 1), []
    for call in (model, lambda x: loaded.signatures["serving_default"](measurement=x)):
        with tf.GradientTape() as tape:
            tape.watch(point)
            loss = tf.reduce_sum(tf.nest.flatten(call(point))[0] ** 2)
        found.append(tape.gradient(loss, point))
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-6)

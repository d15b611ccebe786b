"""The test of a cell finds wrong declarations, energies, constants and hidden tensors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import layers, operators, priors, testing
from deq_keras.numerics import Partial
from deq_keras.problems import Problem, Step

Y = tf.constant(np.random.default_rng(0).uniform(size=(2, 7, 6, 1)))


class Quadratic(layers.Cell):
    """A gradient step on `c ||u - y||^2 / 2`, with one thing wrong if asked for."""

    def __init__(self, wrong=None, **kwargs):
        super().__init__(couples_batch=False, dtype="float64", **{"symmetric": True, **kwargs})
        self.wrong = wrong
        self.curvature = self.add_weight(shape=(), initializer=keras.initializers.Constant(0.5))

    def call(self, z, y, training=None):
        return z - 0.5 * self.curvature * (z - y) * (1.1 if self.wrong == "call" else 1.0)

    def bind(self, y, initial_value=None, training=None):
        curvature = tf.convert_to_tensor(self.curvature)
        gradient = Partial(lambda z, c, y: c * (z - y), (curvature,), (y,))
        factor = 1.0 if self.wrong == "energy" else 0.5

        def energy(z, c, y):
            return factor * c * tf.reduce_sum((z - y) ** 2, axis=(1, 2, 3))

        f = Partial(lambda z, g: z - 0.5 * g(z), (gradient,))
        if self.wrong == "hidden":
            f = Partial(lambda z: z - 0.5 * self.curvature * (z - y))
        step = 0.4 if self.wrong == "step" else 0.5
        modulus = 0.5 if self.wrong == "modulus" else 0.25
        skew = tf.constant(np.triu(np.ones((6, 6))))
        return Problem(
            f,
            y,
            strong_convexity=tf.constant(modulus, tf.float64),
            step=Step(Partial(energy, (curvature,), (y,)), tf.constant(step, tf.float64), gradient),
            symmetric=True,
            convex=True,
            preconditioner=(
                (lambda z: lambda w: tf.einsum("bhwc,wv->bhvc", w, skew))
                if self.wrong == "preconditioner"
                else (lambda z: lambda w: 2.0 * w)
            ),
        )


def test_a_right_cell_passes():
    report = testing.cell_test(Quadratic(), Y)
    np.testing.assert_allclose(report, [0, 0, 0.75, 0.25], atol=1e-6)
    for prior in (priors.FieldsOfExperts, priors.UntiedFieldsOfExperts):
        blur = operators.GaussianBlur(3, 0.6, dtype="float64")
        cell = layers.GradientStep(
            blur, prior(3, 3, sharpness=3.0, dtype="float64"), dtype="float64"
        )
        report = testing.cell_test(cell, Y)
        assert report.coupling == 0.0


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("call", "bind and call are two different maps"),
        ("energy", "step.gradient is wrong"),
        ("hidden", "a gradient passes through a frozen problem"),
        ("step", "f is not the step that `step` describes"),
        ("modulus", "strong_convexity is 0.5"),
        ("preconditioner", "not symmetric and positive definite"),
    ],
)
def test_what_is_wrong_is_found(wrong, message):
    with pytest.raises(AssertionError, match=message):
        testing.cell_test(Quadratic(wrong), Y)


class Convolution(keras.layers.Layer):
    """Not symmetric; with batch normalisation if asked for."""

    def __init__(self, normalised=False):
        super().__init__(dtype="float64")
        options = {"padding": "same", "dtype": "float64", "kernel_initializer": "he_normal"}
        self.convolution = keras.layers.Conv2D(1, 3, **options)
        self.normalisation = (
            keras.layers.BatchNormalization(dtype="float64") if normalised else None
        )

    def call(self, z, y, training=None):
        hidden = self.convolution(z)
        if self.normalisation is not None:
            hidden = self.normalisation(hidden, training=training)
        return y + 0.3 * tf.tanh(hidden)


@pytest.mark.parametrize(
    ("normalised", "declared", "message"),
    [
        (False, {"symmetric": True}, "declares symmetric=True"),
        (True, {"couples_batch": False}, "declares couples_batch=False"),
    ],
)
def test_a_wrong_declaration_is_found(normalised, declared, message):
    right = testing.cell_test(Convolution(normalised), Y)
    assert right.asymmetry > 1e-3
    assert (right.coupling > 1e-3) is normalised
    with pytest.raises(AssertionError, match=message):
        testing.cell_test(layers.LayerCell(Convolution(normalised), **declared), Y)


def test_the_dtype_of_a_cell():
    cell = layers.GradientStep(operators.Identity(), priors.TotalVariation())
    with pytest.raises(AssertionError, match="dtype='float64'"):
        testing.cell_test(cell, tf.cast(Y, "float32"))

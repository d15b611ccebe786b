"""A cell whose result is not like its state is refused in words."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import layers, solvers

Y = tf.ones((2, 8, 8, 1))


class Wrong(keras.layers.Layer):
    """A user's cell with a mistake."""

    def __init__(self, result):
        super().__init__(name="mine")
        self.result = result

    def call(self, z, y):
        return self.result(0.5 * (z + y))


class WrongCell(layers.Cell):
    """The same, declared, so that nothing is tried."""

    def __init__(self, result):
        super().__init__(symmetric=True, couples_batch=False, name="mine")
        self.result = result

    def build(self, z_shape, y_shape):
        self.built = True

    def call(self, z, y):
        return self.result(0.5 * (z + y))


MISTAKES = {
    "loses an axis": (lambda z: z[..., 0], r"\(\w+, 8, 8\)"),
    "other channels": (lambda z: tf.repeat(z, 3, axis=-1), r"\(\w+, 8, 8, 3\)"),
    "smaller": (lambda z: z[:, 1:-1, 1:-1], r"\(\w+, 6, 6, 1\)"),
    "two tensors": (lambda z: [z, z], r"\[\(\w+, 8, 8, 1\), \(\w+, 8, 8, 1\)\]"),
}


@pytest.mark.parametrize("cell", [Wrong, WrongCell])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_cell_that_returns_something_else(cell, mistake):
    result, shape = MISTAKES[mistake]
    layer = layers.Equilibrium(cell(result))
    with pytest.raises(ValueError, match=rf"'[\w ]+' to return.*\(\w+, 8, 8, 1\).*{shape}"):
        layer(Y)


@pytest.mark.parametrize("cell", [Wrong, WrongCell])
def test_a_cell_that_returns_integers(cell):
    with pytest.raises(ValueError, match="to return floating-point numbers.*Received int32"):
        layers.Equilibrium(cell(lambda z: tf.cast(z, tf.int32)))(Y)


def test_a_map_that_returns_something_else():
    with pytest.raises(ValueError, match=r"the map to return.*\(2, 3\).*Received.*\(2, 1, 3\)"):
        solvers.Picard().solve(lambda z: z[:, None], tf.zeros((2, 3)))
    assert np.all(solvers.Picard().solve(lambda z: 0.5 * z, tf.ones((2, 3))).converged)

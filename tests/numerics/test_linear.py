"""Linear functions with their adjoints as derivatives, against matrices."""

import numpy as np
import tensorflow as tf

from deq_keras.numerics.linear import linear
from deq_keras.numerics.partial import Partial

MATRIX = tf.constant([[1.0, 2, 0], [0, -1, 3]], tf.float64)


def product(transposed):
    """`(u, matrix, size) -> A u`, with a constant that is no tensor."""

    def function(u, matrix, size):
        assert size == 3
        return tf.linalg.matvec(matrix["a"], u, transpose_a=transposed)

    return function


def test_derivatives_of_any_order_eagerly_in_graphs_and_in_loops():
    forward = Partial(linear(product(False), product(True)), ({"a": MATRIX}, 3))
    u = tf.constant([[0.5, -1, 2]], tf.float64)

    def value(u):
        (u,) = tf.while_loop(lambda u: True, lambda u: (2 * u,), (u,), maximum_iterations=2)
        return tf.reduce_sum(forward(u) ** 3) / 3

    def derivatives(u):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(u)
            with tf.GradientTape() as inner:
                inner.watch(u)
                cubes = value(u)
            gradient = inner.gradient(cubes, u)
        return gradient, outer.batch_jacobian(gradient, u, experimental_use_pfor=False)

    y = 4 * tf.linalg.matvec(MATRIX, u)
    expected = 4 * tf.linalg.matvec(MATRIX, y**2, transpose_a=True)
    hessian = 32 * tf.matmul(MATRIX, y[0][:, None] * MATRIX, transpose_a=True)
    for function in (derivatives, tf.function(derivatives)):
        gradient, curvature = function(u)
        np.testing.assert_allclose(gradient, expected, rtol=1e-12)
        np.testing.assert_allclose(curvature[0], hessian, rtol=1e-12)


def test_constants_have_no_derivative():
    u, matrix = tf.ones((1, 3), tf.float64), MATRIX
    with tf.GradientTape() as tape:
        tape.watch(matrix)
        y = linear(product(False), product(True))(u, {"a": matrix}, 3)
    assert tape.gradient(y, matrix) is None

"""Least squares: the fidelity of Gaussian noise."""

import keras

from deq_keras.fidelities.base import Fidelity, map_measurements, square, sum_measurements


@keras.saving.register_keras_serializable(package="deq_keras")
class LeastSquares(Fidelity):
    """`D(v, y) = ||v - y||^2 / 2`, the negative log-likelihood of white Gaussian noise.

    Example:

    >>> fidelity = deq_keras.fidelities.LeastSquares()
    >>> fidelity.value(tf.ones((2, 4, 4, 1)), tf.zeros((2, 4, 4, 1))).numpy()
    array([8., 8.], dtype=float32)
    """

    is_convex = True
    quadratic = True
    residual_gradient = True

    def value(self, v, y):
        return 0.5 * sum_measurements(lambda v, y: square(v - y), v, y)

    def gradient(self, v, y):
        return map_measurements(lambda v, y: v - y, v, y)

    def lipschitz(self, y):
        return 1.0

    def strong_convexity(self, y):
        return 1.0

    def measurement_sensitivity(self, v, y):
        return 1.0

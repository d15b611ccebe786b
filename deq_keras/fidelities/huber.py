"""Huber's function of the residual: a fidelity that outliers do not dominate."""

import keras
import tensorflow as tf

from deq_keras.checks import positive
from deq_keras.fidelities.base import Fidelity, map_measurements, scaled, sum_measurements


@keras.saving.register_keras_serializable(package="deq_keras")
class Huber(Fidelity):
    """`D(v, y) = sum_i h(|v_i - y_i|)` with Huber's function.

        h(r) = r^2 / 2              where r <= threshold,
               threshold (r - threshold / 2)  elsewhere.

    Squares of small residuals and moduli of large ones: the fidelity of noise with outliers, such
    as salt and pepper. It is the Moreau envelope of `threshold ||.||_1`; so it is convex, and its
    gradient has Lipschitz constant one. For complex entries the modulus is that of the residual.

    Args:
        threshold: Residuals beyond it are outliers, > 0.

    Reference:
        Huber, Robust estimation of a location parameter, Ann. Math. Statist. 1964.

    Example:

    >>> fidelity = deq_keras.fidelities.Huber(threshold=0.5)
    >>> fidelity.gradient(tf.constant([[0.1, 3.0]]), tf.zeros((1, 2))).numpy()
    array([[0.1, 0.5]], dtype=float32)
    """

    is_convex = True

    def __init__(self, threshold=0.1):
        self.threshold = positive("threshold", threshold)

    def value(self, v, y):
        def huber(v, y):
            modulus = tf.abs(v - y)
            clipped = tf.minimum(modulus, self.threshold)
            return clipped * (modulus - 0.5 * clipped)

        return sum_measurements(huber, v, y)

    def gradient(self, v, y):
        def slope(v, y):
            residual = v - y
            factor = self.threshold / tf.maximum(tf.abs(residual), self.threshold)
            return scaled(residual, factor)

        return map_measurements(slope, v, y)

    def lipschitz(self, y):
        return 1.0

    def measurement_sensitivity(self, v, y):
        return 1.0

    def get_config(self):
        return {"threshold": self.threshold}

"""Kullback-Leibler divergence: the fidelity of photon counts."""

import keras
import tensorflow as tf

from deq_keras.checks import positive
from deq_keras.fidelities.base import (
    Fidelity,
    map_measurements,
    max_entries,
    pairs,
    sum_measurements,
)

_FEWEST = 1e-20  # counts below this are none: y log y is, too


@keras.saving.register_keras_serializable(package="deq_keras")
class Poisson(Fidelity):
    """Kullback-Leibler divergence of counts `y` from rates `v + background`.

        D(v, y) = sum_i  v_i + b - y_i + y_i log(y_i / (v_i + b)),    0 log 0 = 0,

    for `v_i >= 0`: the negative log-likelihood of Poisson noise, up to a constant. For `v_i < 0`
    each term is continued by its Taylor polynomial of second order at zero,

        b - y_i + y_i log(y_i / b) + (1 - y_i / b) v_i + y_i v_i^2 / (2 b^2),

    so `D` is convex and twice differentiable for all real `v`, and its gradient has the Lipschitz
    constant `max_i y_i / b^2`. Where no count was made (`y_i = 0`) a term is linear, and falls
    without bound for `v_i -> -inf`: use it with the constraint `"non_negative"`, which leaves the
    minimiser that of the divergence itself. It is not strongly convex.

    Counts that are negative, as after a correction of an offset, are taken for zero.

    Args:
        background: `b` > 0, the counts expected of a black image, in units of `y`.

    Raises:
        ValueError: In use, if the measurement is complex.

    Reference:
        Chambolle, Ehrhardt, Richtarik and Schoenlieb, Stochastic primal-dual hybrid gradient
        algorithm with arbitrary sampling and imaging applications, SIAM J. Optim. 2018.

    Example:

    >>> fidelity = deq_keras.fidelities.Poisson(background=1.0)
    >>> fidelity.value(tf.constant([[0.0, 3.0]]), tf.constant([[1.0, 4.0]])).numpy()
    array([0.], dtype=float32)
    """

    is_convex = True

    def __init__(self, background=1.0):
        self.background = positive("background", background)

    def value(self, v, y):
        b = self.background

        def divergence(v, y):
            y, (above, below) = self._counts(y), _parts(v)
            inside = above + b - y + y * _log_ratio(y, above + b)
            return inside + (1.0 - y / b) * below + (0.5 / b**2) * y * below**2

        return sum_measurements(divergence, v, y)

    def gradient(self, v, y):
        b = self.background

        def slope(v, y):
            y, (above, below) = self._counts(y), _parts(v)
            return (above + b - y) / (above + b) + y * below / b**2

        return map_measurements(slope, v, y)

    def lipschitz(self, y):
        return max_entries(lambda y: self._counts(y), y) / self.background**2

    def measurement_sensitivity(self, v, y):
        """The largest `1 / (v + b)` for `v >= 0` and `(b - v) / b^2` for `v < 0`: it is attained.

        The derivative by `y` is `-1 / (v + b)`, and that of the continuation
        `-1 / b + v / b^2`; each entry of the gradient depends on its own count only.
        """
        b = self.background
        pairs(v, y)

        def sensitivity(v):
            above, below = _parts(v)
            return 1.0 / (above + b) - below / b**2

        return max_entries(sensitivity, v)

    def _counts(self, y):
        y = tf.convert_to_tensor(y)
        if y.dtype.is_complex:
            raise ValueError(
                f"Poisson expected counts, which are real. Received a measurement of {y.dtype.name}"
                " and shape "
                f"{tuple(y.shape)}. Use 'least_squares' or 'huber' for complex measurements."
            )
        return tf.maximum(y, 0.0)

    def get_config(self):
        return {"background": self.background}


def _log_ratio(y, rate):
    """`log(y / rate)` with all its digits near zero, and finite for `y = 0`."""
    excess = rate - y
    # At zero both have the derivatives of the logarithm: a maximum gives them to its first part.
    above = tf.math.log1p(tf.maximum(excess, 0.0) / tf.maximum(y, _FEWEST))
    below = tf.math.log1p(tf.maximum(-excess, 0.0) / rate)
    return tf.where(excess > 0, -above, below)


def _parts(v):
    """`max(v, 0)` and `min(v, 0)`; of their derivatives at zero one is one and one is zero."""
    above = tf.nn.relu(v)
    return above, v - above

"""The initial inverse Hessian of L-BFGS made of a preconditioner, where that is the better one."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deq_keras.numerics.rows import column, dot, first, safe_divide, where
from deq_keras.problems.problem import step_length
from deq_keras.solvers import carried as carrying

_MARGIN = 0.8  # it is taken where its error is below that of a multiple of the identity times this
_MEMORY = 0.5  # weight of the errors so far in the next one


class Metric(NamedTuple):
    """A preconditioner `M` of an image, with what is known of its fitness; all has a row per image.

    A pair of differences of points and gradients has `s = H^{-1} y` with a mean Hessian `H`. The
    error of a candidate `B` for `H^{-1}` is `1 - cos^2(s, B y)`, the part of `s` that no multiple
    of `B y` explains. It is compared for `M` and for the identity.

    Attributes:
        carried: `M`, its products with the gradient and with the differences of gradients.
        scale: The factor by which `M` is multiplied, from the newest pair.
        error: Of `M`, smoothed.
        plain_error: Of the identity, smoothed.
    """

    carried: carrying.Carried
    scale: tf.Tensor
    error: tf.Tensor
    plain_error: tf.Tensor

    @property
    def preferred(self):
        """In which images `M` is taken, `(batch,)`: at first in all."""
        return self.carried.trusted & (self.error <= _MARGIN * self.plain_error)


def start(problem, z, gradient, memory) -> Metric:
    """The `Metric` at the first point of a problem with a `Preconditioner`."""
    zero = tf.zeros_like(first(z))
    carried = carrying.start(problem, z, gradient, memory)
    return Metric(carried, step_length(problem, z), zero, zero)


def update(problem, metric, z, gradient, s, y, used) -> Metric:
    """The `Metric` after an evaluation.

    Args:
        problem: The problem, of rows.
        metric: The last one.
        z: The present point.
        gradient: There.
        s: The newest difference of points, zero where it is not used.
        y: Differences of gradients, newest first, that one zero in the same way.
        used: Which images have a new pair, `(batch,)`.
    """
    carried = carrying.update(problem, metric.carried, z, gradient, y, used)
    product, y = carried.products[0], y[0]
    curvature, square = dot(s, y), dot(y, product)
    used &= square > 0  # but for rounding
    error = 1.0 - safe_divide(dot(s, product) ** 2, dot(s, s) * dot(product, product))
    plain_error = 1.0 - safe_divide(curvature**2, dot(s, s) * dot(y, y))
    return Metric(
        carried,
        tf.where(used, safe_divide(curvature, square), metric.scale),
        tf.where(used, _MEMORY * metric.error + error, metric.error),
        tf.where(used, _MEMORY * metric.plain_error + plain_error, metric.plain_error),
    )


def apply(metric, plain, weights) -> tf.Tensor:
    """The initial inverse Hessian times `q = -g - sum_i weights[i] y_i`.

    Args:
        metric: A `Metric` or `()`.
        plain: `q` times the multiple of the identity that is taken without a `Metric`.
        weights: Columns `(batch, 1)`, newest first.
    """
    if not metric:
        return plain
    product = -carrying.combined(metric.carried, [-weight for weight in weights])
    return where(metric.preferred, column(metric.scale) * product, plain)

"""The initial inverse Hessian of L-BFGS made of a preconditioner, where that is the better one."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deq_keras.numerics.rows import column, dot, first, safe_divide, where
from deq_keras.problems.problem import step_length

_REFRESH = 8  # it is computed anew after so many evaluations, after twice as many, and so on
_MARGIN = 0.8  # it is taken where its error is below that of a multiple of the identity times this
_MEMORY = 0.5  # weight of the errors so far in the next one


class Metric(NamedTuple):
    """A preconditioner `M` of an image, with what is known of its fitness; all has a row per image.

    A pair of differences of points and gradients has `s = H^{-1} y` with a mean Hessian `H`. The
    error of a candidate `B` for `H^{-1}` is `1 - cos^2(s, B y)`, the part of `s` that no multiple
    of `B y` explains. It is compared for `M` and for the identity.

    Attributes:
        factors: Tensors that `M` is made of.
        moved: `M g` with the gradient `g` at the present point.
        products: Tuple of `M y`, newest first, as the pairs in the memory of L-BFGS.
        scale: The factor by which `M` is multiplied, from the newest pair.
        error: Of `M`, smoothed.
        plain_error: Of the identity, smoothed.
        count: Evaluations so far.
    """

    factors: tuple
    moved: tf.Tensor
    products: tuple
    scale: tf.Tensor
    error: tf.Tensor
    plain_error: tf.Tensor
    count: tf.Tensor

    @property
    def preferred(self):
        """In which images `M` is taken, `(batch,)`: at first in all."""
        return self.error <= _MARGIN * self.plain_error


def start(problem, z, gradient, memory) -> Metric:
    """The `Metric` at the first point of a problem with a `Preconditioner`."""
    factors = problem.preconditioner.of_rows(z)
    zero = tf.zeros_like(first(z))
    return Metric(
        factors,
        problem.preconditioner.apply(gradient, *factors),
        (tf.zeros_like(z),) * memory,
        step_length(problem, z),
        zero,
        zero,
        tf.ones_like(zero, tf.int32),
    )


def update(problem, metric, z, gradient, s, y, used) -> Metric:
    """The `Metric` after an evaluation.

    Args:
        problem: The problem, of rows.
        metric: The last one.
        z: The present point.
        gradient: There.
        s: Differences of points, newest first, that one zero where it is not used.
        y: Differences of gradients, in the same way.
        used: Which images have a new pair, `(batch,)`.
    """
    multiply, (s, *_), memory = problem.preconditioner.apply, s, y
    y = memory[0]
    moved = multiply(gradient, *metric.factors)
    product = moved - metric.moved
    product = where(used, product, tf.zeros_like(product))
    curvature, square = dot(s, y), dot(y, product)
    used &= square > 0  # but for rounding
    error = 1.0 - safe_divide(dot(s, product) ** 2, dot(s, s) * dot(product, product))
    plain_error = 1.0 - safe_divide(curvature**2, dot(s, s) * dot(y, y))
    count = metric.count + 1
    # After 8, 16, 32 … evaluations of an image.
    due = (count >= _REFRESH) & tf.equal(tf.bitwise.bitwise_and(count, count - 1), 0)

    products = (product, *metric.products[:-1])

    def refreshed():
        new = problem.preconditioner.of_rows(z)
        factors = tuple(_where(due, a, b) for a, b in zip(new, metric.factors, strict=True))
        old, vectors = (moved, *products), (gradient, *memory)
        both = zip(vectors, old, strict=True)
        return factors, tuple(where(due, multiply(a, *factors), b) for a, b in both)

    factors, (moved, *products) = tf.cond(
        tf.reduce_any(due), refreshed, lambda: (metric.factors, (moved, *products))
    )
    return Metric(
        factors,
        moved,
        tuple(products),
        tf.where(used, safe_divide(curvature, square), metric.scale),
        tf.where(used, _MEMORY * metric.error + error, metric.error),
        tf.where(used, _MEMORY * metric.plain_error + plain_error, metric.plain_error),
        count,
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
    product = -metric.moved
    for weight, one in zip(weights, metric.products, strict=False):  # none at the start
        product -= weight * one
    return where(metric.preferred, column(metric.scale) * product, plain)


def _where(condition, a, b):
    return tf.where(tf.reshape(condition, [-1] + [1] * (a.shape.rank - 1)), a, b)

"""A preconditioner that a solver carries through its loop, and what it multiplies there."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from deq_keras.numerics.rows import norm, where
from deq_keras.problems import Preconditioner

_REFRESH = 8  # evaluations after which it is computed anew, then after twice as many, and so on
_RATE = 0.97  # what it must reduce residuals by in each evaluation, or it is given up


class Carried(NamedTuple):
    """A preconditioner `M` and its products with what a solver remembers; a row per image.

    Attributes:
        factors: Tensors that `M` is made of.
        moved: `M v` with the vector `v` of the present point, its gradient or residual.
        products: Tuple of `M y`, newest first, with the differences `y` of the `v` that are kept.
        count: Evaluations of the map so far.
        trusted: Whether `M` is used, `(batch,)`. An image for which `||v||` fell slowly between two
            points where `M` was computed goes on without: means over pixels say little of a mask.
        failed: Whether that was decided at the present point.
        least: Smallest `||v||` so far.
        mark: The same when `M` was computed.
    """

    factors: tuple
    moved: tf.Tensor
    products: tuple
    count: tf.Tensor
    trusted: tf.Tensor
    failed: tf.Tensor
    least: tf.Tensor
    mark: tf.Tensor


def start(problem, z, vector, memory) -> Carried:
    """The `Carried` at the first point of a problem of rows with a `Preconditioner`."""
    factors = problem.preconditioner.of_rows(z)
    moved, size = problem.preconditioner.apply(vector, *factors), norm(vector)
    count = tf.ones_like(size, tf.int32)
    nothing = (tf.zeros_like(z),) * memory
    return Carried(factors, moved, nothing, count, count > 0, count < 0, size, size)


def update(problem, last, z, vector, differences, used) -> Carried:
    """The `Carried` after another evaluation, with one product, as `M` is linear.

    `M` is computed anew, and all of its products, after 8, 16, 32 … evaluations: the Hessian of a
    prior changes most in the first steps.

    Args:
        problem: The problem, of rows.
        last: The last `Carried`.
        z: The present point.
        vector: There.
        differences: The differences that are kept, newest first.
        used: Which images have a new one, `(batch,)`; the newest of the others is zero.
    """
    multiply = problem.preconditioner.apply
    count, least = last.count + 1, tf.minimum(last.least, norm(vector))
    due = (count >= _REFRESH) & tf.equal(tf.bitwise.bitwise_and(count, count - 1), 0)
    since = tf.cast(count // 2, least.dtype)  # the evaluations since it was computed
    slow = ~(least <= _RATE**since * last.mark)
    failed = last.trusted & due & (count > _REFRESH) & slow
    trusted = last.trusted & ~failed

    def next_products():
        moved = multiply(vector, *last.factors)
        product = where(used, moved - last.moved, tf.zeros_like(moved))
        return (moved, product, *last.products[:-1])

    def anew():
        new = problem.preconditioner.of_rows(z)
        factors = tuple(where(due, a, b) for a, b in zip(new, last.factors, strict=True))
        pairs = zip((vector, *differences), products, strict=True)
        return factors, tuple(where(due, multiply(a, *factors), b) for a, b in pairs)

    # Once no image trusts it, it costs nothing.
    products = tf.cond(tf.reduce_any(trusted), next_products, lambda: (last.moved, *last.products))
    factors, (moved, *products) = tf.cond(
        tf.reduce_any(trusted & due), anew, lambda: (last.factors, products)
    )
    mark = tf.where(due, least, last.mark)
    return Carried(factors, moved, tuple(products), count, trusted, failed, least, mark)


def combined(carried, weights) -> tf.Tensor:
    """`M (v - sum_i weights[i] y_i)` for columns `(batch, 1)`, newest first."""
    product = carried.moved
    for weight, one in zip(weights, carried.products, strict=False):  # none at the start
        product -= weight * one
    return product


def check_option(precondition):
    """The option `precondition` of a solver, or a ValueError."""
    if precondition not in ("auto", True, False):
        raise ValueError(
            "Expected `precondition` to be 'auto', True or False. Received "
            f"precondition={precondition!r}."
        )
    return precondition


def wanted(precondition, problem) -> bool:
    """Whether the preconditioner of a problem is to be carried; see `check_option`."""
    if not isinstance(problem.preconditioner, Preconditioner):
        return False
    return problem.preconditioner.is_cheap if precondition == "auto" else precondition

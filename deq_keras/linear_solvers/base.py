"""The contract of a matrix-free linear solver, and the refinement loop around every one of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from deq_keras.checks import positive, positive_int
from deq_keras.config import Configurable
from deq_keras.numerics.rows import norm, ranks_only, to_rows
from deq_keras.problems.solution import Solution


class RefinementState(NamedTuple):
    """State of the loop of `LinearSolver.solve`. Scalars of an image have shape `(batch, 1)`."""

    round: tf.Tensor  # how many corrections there were
    w: tf.Tensor  # the best so far
    r: tf.Tensor  # b - A w, computed from scratch
    size: tf.Tensor  # ||r||
    steps: tf.Tensor
    active: tf.Tensor


class LinearSolver(Configurable):
    """Base class of linear solvers: `A w = b` for each image of a batch, from `w -> A w` alone.

    A subclass defines `correct(matvec, r, target, active, budget, precondition) -> (e, steps)`: an
    approximate solution of `A e = r` for the images in `active`, until the recurrences say that
    `||r - A e|| <= target`, and the number of products spent on each image, at most `budget`. `r`
    and `e` are matrices `(batch, n)` with a row for each image; what is one number for each image
    is a column `(batch, 1)`. `precondition` is a function of rows; without a preconditioner it
    returns its argument itself, so that a subclass can skip the work. The rows of `e` that are not
    active are zero.

    **Stopping.** In finite precision recurrences drift from the true residual. The base class
    therefore recomputes `b - A w` from scratch after each correction and asks for another one until
    the *true* residual satisfies `||b - A w|| <= tolerance ||b||` (or four units of rounding), at
    most `refinements` times, and as long as corrections help. The residual and the verdict in the
    returned `Solution` are the true ones.

    **Scale.** Cotangents may be tiny, and the squares of their norms vanish in float32. Each row is
    divided by its largest entry first, so that steps do not depend on the scale of `b`.

    Args:
        tolerance: Relative residual at which an image stops. Defaults to 1e-5.
        max_steps: Largest number of products with `A` for an image.

    Example:

    >>> class Halving(deq_keras.linear_solvers.LinearSolver):  # exact for A = 2 I
    ...     def correct(self, matvec, r, target, active, budget, precondition):
    ...         return tf.where(active, 0.5 * r, 0.0), tf.zeros_like(budget)
    >>> Halving().solve(lambda w: 2.0 * w, tf.ones((2, 3))).value.numpy()[0]
    array([0.5, 0.5, 0.5], dtype=float32)
    """

    # Whether any symmetric positive definite preconditioner keeps it convergent.
    takes_any_preconditioner = True
    refinements = 3

    def __init__(self, tolerance: float = 1e-5, max_steps: int = 500):
        self.tolerance = positive("tolerance", tolerance)
        self.max_steps = positive_int("max_steps", max_steps)

    def correct(self, matvec, r, target, active, budget, precondition):
        """An approximate solution of `A e = r`, and the number of products for each image."""
        raise NotImplementedError

    def within(self, tolerance) -> LinearSolver:
        """The same solver with another tolerance.

        Args:
            tolerance: A number > 0, or a scalar tensor, of a solver to use at once.

        Example:

        >>> deq_keras.linear_solvers.MINRES().within(0.1)
        MINRES(tolerance=0.1, max_steps=500)
        """
        other = copy.copy(self)
        other.tolerance = tolerance if tf.is_tensor(tolerance) else positive("tolerance", tolerance)
        return other

    def solve(
        self,
        matvec: Callable,
        b: Any,
        preconditioner: Callable | None = None,
        initial_value: Any = None,
    ) -> Solution:
        """Solve `A w = b`.

        Args:
            matvec: Linear callable from a structure like `b` to one like `b`; row `i` of the result
                depends on row `i` of the argument only.
            b: Tensor `(batch, ...)` or nested structure of them. A zero row has the solution zero.
            preconditioner: Linear callable `M` like `matvec`, near the inverse of `A`; symmetric
                and positive definite, since some solvers need that.
            initial_value: Where to start, a structure like `b`, instead of zero. An image for which
                it is worse than zero starts from zero.

        Returns:
            A `Solution`; `steps` counts the products with `A`, those for true residuals included.
        """
        flat, ravel, unravel = to_rows(b)
        largest = tf.reduce_max(tf.abs(flat), axis=1, keepdims=True)
        flat = tf.math.divide_no_nan(flat, largest)

        def rows_matvec(rows):
            return ravel(matvec(unravel(rows)))

        def precondition(rows):
            return rows if preconditioner is None else ravel(preconditioner(unravel(rows)))

        eps = float(np.finfo(flat.dtype.as_numpy_dtype).eps)
        scale = norm(flat, keepdims=True)
        if tf.is_tensor(self.tolerance):
            target = tf.maximum(tf.cast(self.tolerance, flat.dtype), 4 * eps) * scale
        else:
            target = max(self.tolerance, 4 * eps) * scale
        # A little below the target, so that drift does not cost another round.
        nearer = 0.9 * target

        def refine(state):
            round_, w, r, size, steps, active = state
            budget = self.max_steps - 1 - steps
            e, spent = self.correct(rows_matvec, r, nearer, active, budget, precondition)
            trial = w + e
            trial_r = flat - rows_matvec(trial)
            trial_size = norm(trial_r, keepdims=True)
            better = active & (trial_size < size)
            # The next correction would start from the same residual and fail likewise.
            active &= (trial_size < 0.99 * size) & (round_ + 1 < self.refinements)
            w, r = tf.where(better, trial, w), tf.where(better, trial_r, r)
            size = tf.where(better, trial_size, size)
            steps += spent + tf.cast(state.active, tf.int32)
            active &= self._open(size, target, steps)
            return RefinementState(round_ + 1, w, r, size, steps, active)

        w, r, size, steps = tf.zeros_like(flat), flat, scale, tf.zeros_like(scale, tf.int32)
        if initial_value is not None:
            start = tf.math.divide_no_nan(ravel(initial_value), largest)
            start_r = flat - rows_matvec(start)
            start_size = norm(start_r, keepdims=True)
            better = start_size < scale
            w, r = tf.where(better, start, w), tf.where(better, start_r, r)
            size, steps = tf.where(better, start_size, size), steps + 1
        active = self._open(size, target, steps)
        state = RefinementState(tf.constant(0), w, r, size, steps, active)
        state = while_active(refine, state)
        value = unravel(tf.math.multiply_no_nan(largest, state.w))
        relative = tf.math.divide_no_nan(state.size, scale)
        verdict = (relative, state.steps, state.size <= target)
        return Solution(value, *(tf.squeeze(column, 1) for column in verdict))

    def _open(self, size, target, steps):
        return (size > target) & (steps < self.max_steps - 1) & tf.math.is_finite(size)

    def get_config(self):
        return {"tolerance": self.tolerance, "max_steps": self.max_steps}


def while_active(step: Callable, state: NamedTuple) -> NamedTuple:
    """Repeats `state = step(state)` as long as an image is in `state.active`."""
    (state,) = tf.while_loop(
        lambda state: tf.reduce_any(state.active),
        lambda state: (step(state),),
        (state,),
        shape_invariants=(ranks_only(state),),
    )
    return state

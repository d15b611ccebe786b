"""The contract of a matrix-free linear solver, and the refinement loop around every one of them."""

import numpy as np
import tensorflow as tf

from deq_keras.registry import Configurable, positive, positive_int
from deq_keras.rows import norm, ranks_only, safe_divide, to_rows
from deq_keras.solution import Solution


class LinearSolver(Configurable):
    """Base class: solves `A w = b` for each image of a batch, given `w -> A w` alone.

    A subclass defines `correct(matvec, r, target, active, budget) -> (e, steps)`: an approximate
    solution of `A e = r` for the images in `active`, with `||r - A e|| <= target` as far as its
    recurrences can tell, and the number of products spent on each image.

    **Stopping.** Recurrences drift from the truth in finite precision. The base class therefore
    recomputes `b - A w` from scratch after each correction and asks for another one until the
    *true* residual satisfies `||b - A w|| <= tolerance ||b||` (or four units of rounding), at most
    `refinements` times. The residual and the verdict in the returned `Solution` are the true ones.

    Args:
        tolerance: Relative residual at which an image stops. Defaults to 1e-5.
        max_steps: Largest number of products with `A` for an image.
    """

    refinements = 3

    def __init__(self, tolerance=1e-5, max_steps=500):
        self.tolerance = positive("tolerance", tolerance)
        self.max_steps = positive_int("max_steps", max_steps)

    def correct(self, matvec, r, target, active, budget):
        """An approximate solution of `A e = r`, and the number of products for each image."""
        raise NotImplementedError

    def solve(self, matvec, b):
        """Solve `A w = b`, starting from zero.

        Args:
            matvec: Linear callable from a structure like `b` to one like `b`; row `i` of the result
                depends on row `i` of the argument only.
            b: Tensor `(batch, ...)` or nested structure of them. A zero row has the solution zero.

        Returns:
            A `Solution`; `steps` counts the products with `A`, those for true residuals included.
        """
        flat, ravel, unravel = to_rows(b)

        def rows_matvec(rows):
            return ravel(matvec(unravel(rows)))

        eps = float(np.finfo(flat.dtype.as_numpy_dtype).eps)
        scale = norm(flat)
        target = max(self.tolerance, 4 * eps) * scale

        def keep_going(round_, w, r, size, steps):
            return (round_ < self.refinements) & tf.reduce_any(self._open(size, target, steps))

        def body(round_, w, r, size, steps):
            active = self._open(size, target, steps)
            budget = self.max_steps - 1 - steps
            # A little below the target, so that drift does not cost another round.
            e, spent = self.correct(rows_matvec, r, 0.9 * target, active, budget)
            trial = w + e
            trial_r = flat - rows_matvec(trial)
            trial_size = norm(trial_r)
            better = active & (trial_size < size)
            w = tf.where(better[:, None], trial, w)
            r = tf.where(better[:, None], trial_r, r)
            size = tf.where(better, trial_size, size)
            return round_ + 1, w, r, size, steps + tf.where(active, spent + 1, 0)

        loop = (tf.constant(0), tf.zeros_like(flat), flat, scale, tf.zeros_like(scale, tf.int32))
        _, w, _, size, steps = tf.while_loop(
            keep_going, body, loop, shape_invariants=ranks_only(loop)
        )
        return Solution(unravel(w), safe_divide(size, scale), steps, size <= target)

    def _open(self, size, target, steps):
        return (size > target) & (steps < self.max_steps - 1) & tf.math.is_finite(size)

    def get_config(self):
        return {"tolerance": self.tolerance, "max_steps": self.max_steps}

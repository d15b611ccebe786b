"""Anderson acceleration of the adjoint fixed point."""

import keras
import tensorflow as tf

from deq_keras.checks import positive, positive_int
from deq_keras.linear_solvers.base import LinearSolver
from deq_keras.numerics.rows import dot, norm, ranks_only, safe_divide, scaled, where
from deq_keras.numerics.small_systems import solve_positive_definite


@keras.saving.register_keras_serializable(package="deq_keras")
class AndersonLinear(LinearSolver):
    """Anderson acceleration (type II) of `w <- w + M (b - A w)`, for any `A`; `M` preconditions.

    With `A = I - J^T` that is the fixed point `w = J^T w + b`. With `r_k = M (b - A w_k)` and the
    last `memory` differences `dW`, `dR` of iterates and of these residuals,

        w_{k+1} = w_k + r_k - (dW + dR) g,     g = argmin ||r_k - dR g||.

    A linear equation needs no line search, and this is equivalent to a truncated GMRES: use that
    unless memory is short or `A` is a contraction and the tolerance modest. Each difference is
    scaled to length one, so that the ridge is relative: an absolute one would turn the acceleration
    off for cotangents, which are small. When the residual of an image grows by more than a factor
    of two, its history is dropped. The best iterate is kept.

    Args:
        memory: Number of differences kept, 1 to 20.
        ridge: Added to the unit diagonal of the scaled Gram matrix.
        tolerance: Relative residual at which an image stops.
        max_steps: Largest number of products with `A` for an image.

    Reference:
        Walker and Ni, Anderson acceleration for fixed-point iterations, SIAM J. Numer. Anal. 2011.

    Example:

    >>> b = tf.ones((2, 5))
    >>> deq_keras.linear_solvers.AndersonLinear().solve(lambda w: 0.5 * w, b).value  # 2
    """

    growth = 2.0

    def __init__(self, memory=5, ridge=1e-8, tolerance=1e-5, max_steps=500):
        super().__init__(tolerance, max_steps)
        self.memory = positive_int("memory", memory, upper=20)
        self.ridge = positive("ridge", ridge, zero=True)

    def get_config(self):
        return {"memory": self.memory, "ridge": self.ridge, **super().get_config()}

    def correct(self, matvec, r, target, active, budget, precondition):
        right, size = r, norm(r)

        def keep_going(e, step, size, sums, dr, gram, age, best, best_size, steps, active):
            return tf.reduce_any(active)

        def body(e, step, size, sums, dr, gram, age, best, best_size, steps, active):
            weights = self._weights(gram, dr, step, age)
            move = step
            for j in range(self.memory):
                move -= weights[:, j, None] * sums[j]
            e += scaled(move, tf.cast(active, e.dtype))
            residual = right - matvec(e)
            steps += tf.cast(active, tf.int32)
            step_next, size_next = precondition(residual), norm(residual)
            age = tf.where(size_next > self.growth * size, 0, tf.minimum(age + 1, self.memory))
            newest = step_next - step
            dr, sums = (newest, *dr[:-1]), (move + newest, *sums[:-1])
            row = tf.stack([dot(column, dr[0]) for column in dr], axis=-1)
            kept = tf.concat([row[:, 1:, None], gram[:, :-1, :-1]], axis=2)
            gram = tf.concat([row[:, None, :], kept], axis=1)
            better = active & (size_next < best_size)
            best = where(better, e, best)
            best_size = tf.where(better, size_next, best_size)
            active &= (size_next > target) & (steps < budget) & tf.math.is_finite(size_next)
            return e, step_next, size_next, sums, dr, gram, age, best, best_size, steps, active

        active &= (size > target) & (budget > 0)
        none, nothing = tf.zeros_like(budget), tf.zeros_like(r)
        gram = tf.zeros((tf.shape(r)[0], self.memory, self.memory), r.dtype)
        history = (nothing,) * self.memory
        loop = (nothing, precondition(r), size, history, history, gram, none)
        loop += (nothing, size, none, active)
        result = tf.while_loop(keep_going, body, loop, shape_invariants=ranks_only(loop))
        return result[-4], result[-2]

    def _weights(self, gram, dr, step, age):
        """The weights `(batch, memory)` of the differences, zero for those that are not valid."""
        length = tf.sqrt(tf.linalg.diag_part(gram))
        valid = (tf.range(self.memory)[None] < age[:, None]) & (length > 0)
        inverse = tf.where(valid, safe_divide(tf.ones_like(length), length), tf.zeros_like(length))
        gram *= inverse[:, :, None] * inverse[:, None, :]
        diagonal = tf.where(valid, self.ridge * tf.ones_like(length), tf.ones_like(length))
        projections = tf.stack([dot(column, step) for column in dr], axis=-1)
        gram += tf.linalg.diag(diagonal)
        return inverse * solve_positive_definite(gram, inverse * projections, self.memory)

"""Anderson acceleration of the adjoint fixed point."""

from typing import NamedTuple

import keras
import tensorflow as tf

from deq_keras.checks import positive, positive_int
from deq_keras.linear_solvers.base import LinearSolver, while_active
from deq_keras.numerics.rows import dot, norm
from deq_keras.numerics.small_systems import solve_positive_definite, with_newest


class AndersonLinearState(NamedTuple):
    """State of `AndersonLinear`. Scalars of an image have shape `(batch, 1)`."""

    e: tf.Tensor  # the solution so far
    residual: tf.Tensor  # M (b - A e)
    size: tf.Tensor  # ||b - A e||
    sums: tuple  # differences of iterates plus those of residuals, newest first
    dr: tuple  # differences of residuals, newest first
    gram: tf.Tensor  # (batch, memory, memory), inner products of the dr
    age: tf.Tensor  # how many differences are valid
    best: tf.Tensor  # the solution with the least residual
    best_size: tf.Tensor  # that residual
    steps: tf.Tensor
    active: tf.Tensor


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
    >>> solver = deq_keras.linear_solvers.AndersonLinear()
    >>> solver.solve(lambda w: 0.5 * w, b).value[0].numpy().round(4)
    array([2., 2., 2., 2., 2.], dtype=float32)
    """

    growth = 2.0

    def __init__(
        self, memory: int = 5, ridge: float = 1e-8, tolerance: float = 1e-5, max_steps: int = 500
    ):
        super().__init__(tolerance, max_steps)
        self.memory = positive_int("memory", memory, upper=20)
        self.ridge = positive("ridge", ridge, zero=True)

    def get_config(self):
        return {"memory": self.memory, "ridge": self.ridge, **super().get_config()}

    def correct(self, matvec, r, target, active, budget, precondition):
        right, size = r, norm(r, keepdims=True)
        identity = tf.eye(self.memory, dtype=r.dtype)
        number = tf.range(self.memory)[:, None]

        def step(state):
            # The weights of the differences, zero for those that are not valid.
            length = tf.sqrt(tf.reduce_sum(state.gram * identity, axis=2, keepdims=True))
            valid = (number < tf.expand_dims(state.age, 2)) & (length > 0)
            inverse = tf.where(valid, tf.math.reciprocal_no_nan(length), 0)
            gram = state.gram * (inverse * tf.transpose(inverse, [0, 2, 1]))
            gram += tf.where(valid, tf.cast(self.ridge, r.dtype), 1) * identity
            projections = [dot(column, state.residual, keepdims=True) for column in state.dr]
            projections = tf.squeeze(inverse, 2) * tf.concat(projections, 1)
            weights = solve_positive_definite(gram, projections, self.memory)
            weights = tf.unstack(inverse * tf.expand_dims(weights, 2), axis=1)

            move = state.residual
            for weight, both in zip(weights, state.sums, strict=True):
                move -= weight * both
            active = state.active
            e = state.e + tf.math.multiply_no_nan(move, tf.cast(active, r.dtype))
            true = right - matvec(e)
            steps = state.steps + tf.cast(active, tf.int32)
            residual, size = precondition(true), norm(true, keepdims=True)
            grew = size > self.growth * state.size
            age = tf.where(grew, 0, tf.minimum(state.age + 1, self.memory))
            newest = residual - state.residual
            dr, sums = (newest, *state.dr[:-1]), (move + newest, *state.sums[:-1])
            row = tf.concat([dot(column, newest, keepdims=True) for column in dr], 1)
            gram = with_newest(state.gram, row, self.memory)
            better = active & (size < state.best_size)
            best = tf.where(better, e, state.best)
            best_size = tf.where(better, size, state.best_size)
            active &= (size > target) & (steps < budget) & tf.math.is_finite(size)
            return AndersonLinearState(
                e, residual, size, sums, dr, gram, age, best, best_size, steps, active
            )

        active &= (size > target) & (budget > 0)
        none, nothing = tf.zeros_like(budget), tf.zeros_like(r)
        state = AndersonLinearState(
            e=nothing,
            residual=precondition(r),
            size=size,
            sums=(nothing,) * self.memory,
            dr=(nothing,) * self.memory,
            gram=tf.zeros((tf.shape(r)[0], self.memory, self.memory), r.dtype),
            age=none,
            best=nothing,
            best_size=size,
            steps=none,
            active=active,
        )
        state = while_active(step, state)
        return state.best, state.steps

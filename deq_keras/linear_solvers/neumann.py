"""Neumann's series."""

from typing import NamedTuple

import keras
import tensorflow as tf

from deq_keras.linear_solvers.base import LinearSolver, while_active
from deq_keras.numerics.rows import norm


class NeumannState(NamedTuple):
    """State of `Neumann`. Scalars of an image have shape `(batch, 1)`."""

    e: tf.Tensor  # the sum so far
    r: tf.Tensor  # its residual
    steps: tf.Tensor
    active: tf.Tensor


@keras.saving.register_keras_serializable(package="deq_keras")
class Neumann(LinearSolver):
    """Neumann's series `w = sum_k (I - A)^k b`, that is `w <- w + (b - A w)`.

    With `A = I - J^T` this is the fixed-point iteration `w <- J^T w + b` of the paper's backward
    pass. It converges if and only if the spectral radius of `I - A` is below one, and is slow where
    that is near one. With a preconditioner `w <- w + M (b - A w)`, and `I - A M` decides. An image
    whose residual overflows stops.

    Example:

    >>> b = tf.ones((1, 2))
    >>> solver = deq_keras.linear_solvers.Neumann(tolerance=1e-3)
    >>> solver.solve(lambda w: 0.9 * w, b).value.numpy().round(2)
    array([[1.11, 1.11]], dtype=float32)
    """

    # It would need a spectral radius of `I - M A` below one, which is not known in general.
    takes_any_preconditioner = False

    def correct(self, matvec, r, target, active, budget, precondition):
        def step(state):
            e, r, steps, active = state
            # The step of an image that has stopped is zero: it stays as it is.
            move = tf.math.multiply_no_nan(precondition(r), tf.cast(active, r.dtype))
            e += move
            r -= matvec(move)
            steps += tf.cast(active, tf.int32)
            size = norm(r, keepdims=True)
            active &= (size > target) & (steps < budget) & tf.math.is_finite(size)
            return NeumannState(e, r, steps, active)

        active &= (norm(r, keepdims=True) > target) & (budget > 0)
        state = NeumannState(tf.zeros_like(r), r, tf.zeros_like(budget), active)
        state = while_active(step, state)
        return state.e, state.steps

"""Conjugate gradients."""

from typing import NamedTuple

import keras
import tensorflow as tf

from deq_keras.linear_solvers.base import LinearSolver, while_active
from deq_keras.numerics.rows import dot


class ConjugateGradientState(NamedTuple):
    """State of `ConjugateGradient`. Scalars of an image have shape `(batch, 1)`."""

    e: tf.Tensor  # the solution so far
    r: tf.Tensor  # its residual, by recurrence
    p: tf.Tensor  # the next direction
    rz: tf.Tensor  # <r, M r>
    steps: tf.Tensor
    active: tf.Tensor


@keras.saving.register_keras_serializable(package="deq_keras")
class ConjugateGradient(LinearSolver):
    """Preconditioned conjugate gradients, for symmetric positive definite `A`.

    The choice for bilevel learning, where `A` is a Hessian. On a direction of nonpositive curvature
    (`A` is then not positive definite) an image stops and reports what it has. The norm of the
    residual decides when to stop, with a preconditioner too.

    Reference:
        Hestenes and Stiefel, Methods of conjugate gradients for solving linear systems, 1952.

    Example:

    >>> b = tf.ones((2, 5))
    >>> deq_keras.linear_solvers.ConjugateGradient().solve(lambda w: 2.0 * w, b).value[0].numpy()
    array([0.5, 0.5, 0.5, 0.5, 0.5], dtype=float32)
    """

    def correct(self, matvec, r, target, active, budget, precondition):
        def step(state):
            e, r, p, rz, steps, active = state
            ap = matvec(p)
            steps += tf.cast(active, tf.int32)
            curvature = dot(p, ap, keepdims=True)
            active &= curvature > 0
            alpha = tf.where(active, tf.math.divide_no_nan(rz, curvature), 0)
            # The steps of an image that has stopped are zero, even if its direction is NaN.
            e += tf.math.multiply_no_nan(p, alpha)
            r -= alpha * ap
            z, rr = precondition(r), dot(r, r, keepdims=True)
            rz_next = rr if z is r else dot(r, z, keepdims=True)
            p = z + tf.math.divide_no_nan(rz_next, rz) * p
            active &= (tf.sqrt(rr) > target) & (steps < budget) & (rz_next > 0)
            return ConjugateGradientState(e, r, p, rz_next, steps, active)

        z, rr = precondition(r), dot(r, r, keepdims=True)
        rz = rr if z is r else dot(r, z, keepdims=True)
        active &= (tf.sqrt(rr) > target) & (budget > 0) & (rz > 0)
        state = ConjugateGradientState(tf.zeros_like(r), r, z, rz, tf.zeros_like(budget), active)
        state = while_active(step, state)
        return state.e, state.steps

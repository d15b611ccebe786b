"""Conjugate gradients."""

import keras
import tensorflow as tf

from deq_keras.linear_solvers.base import LinearSolver
from deq_keras.numerics.rows import dot, ranks_only, safe_divide, scaled


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
    >>> deq_keras.linear_solvers.ConjugateGradient().solve(lambda w: 2.0 * w, b).value  # 0.5
    """

    def correct(self, matvec, r, target, active, budget, precondition):
        def keep_going(e, r, p, rz, steps, active):
            return tf.reduce_any(active)

        def body(e, r, p, rz, steps, active):
            ap = matvec(p)
            steps += tf.cast(active, tf.int32)
            curvature = dot(p, ap)
            active &= curvature > 0
            alpha = tf.where(active, safe_divide(rz, curvature), tf.zeros_like(rz))
            e += scaled(p, alpha)
            r -= alpha[:, None] * ap
            z, rr = precondition(r), dot(r, r)
            rz_next = rr if z is r else dot(r, z)
            p = z + safe_divide(rz_next, rz)[:, None] * p
            active &= (tf.sqrt(rr) > target) & (steps < budget) & (rz_next > 0)
            return e, r, p, rz_next, steps, active

        z, rr = precondition(r), dot(r, r)
        rz = rr if z is r else dot(r, z)
        active &= (tf.sqrt(rr) > target) & (budget > 0) & (rz > 0)
        loop = (tf.zeros_like(r), r, z, rz, tf.zeros_like(budget), active)
        e, _, _, _, steps, _ = tf.while_loop(
            keep_going, body, loop, shape_invariants=ranks_only(loop)
        )
        return e, steps

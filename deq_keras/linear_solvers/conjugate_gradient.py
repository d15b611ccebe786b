"""Conjugate gradients."""

import keras
import tensorflow as tf

from deq_keras.linear_solvers.base import LinearSolver
from deq_keras.rows import dot, norm, ranks_only, safe_divide


@keras.saving.register_keras_serializable(package="deq_keras")
class ConjugateGradient(LinearSolver):
    """Conjugate gradients, for symmetric positive definite `A`.

    The choice for bilevel learning, where `A` is a Hessian. On a direction of nonpositive curvature
    (`A` is then not positive definite) an image stops and reports what it has.

    Reference:
        Hestenes and Stiefel, Methods of conjugate gradients for solving linear systems, 1952.

    Example:

    >>> b = tf.ones((2, 5))
    >>> deq_keras.linear_solvers.ConjugateGradient().solve(lambda w: 2.0 * w, b).value  # 0.5
    """

    def correct(self, matvec, r, target, active, budget):
        def keep_going(e, r, p, rr, steps, active):
            return tf.reduce_any(active)

        def body(e, r, p, rr, steps, active):
            ap = matvec(p)
            curvature = dot(p, ap)
            active &= curvature > 0
            alpha = tf.where(active, safe_divide(rr, curvature), tf.zeros_like(rr))
            e += alpha[:, None] * p
            r -= alpha[:, None] * ap
            rr_next = dot(r, r)
            p = r + safe_divide(rr_next, rr)[:, None] * p
            steps += tf.cast(active, tf.int32)
            active &= (tf.sqrt(rr_next) > target) & (steps < budget)
            return e, r, p, rr_next, steps, active

        size = norm(r)
        active &= (size > target) & (budget > 0)
        loop = (tf.zeros_like(r), r, r, size**2, tf.zeros_like(budget), active)
        e, _, _, _, steps, _ = tf.while_loop(
            keep_going, body, loop, shape_invariants=ranks_only(loop)
        )
        return e, steps

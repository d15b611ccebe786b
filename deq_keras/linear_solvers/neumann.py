"""Neumann's series."""

import keras
import tensorflow as tf

from deq_keras.linear_solvers.base import LinearSolver
from deq_keras.numerics.rows import norm, ranks_only, scaled


@keras.saving.register_keras_serializable(package="deq_keras")
class Neumann(LinearSolver):
    """Neumann's series `w = sum_k (I - A)^k b`, that is `w <- w + (b - A w)`.

    With `A = I - J^T` this is the fixed-point iteration `w <- J^T w + b` of the paper's backward
    pass. It converges if and only if the spectral radius of `I - A` is below one, and is slow where
    that is near one. With a preconditioner `w <- w + M (b - A w)`, and `I - A M` decides. An image
    whose residual overflows stops.
    """

    # Only with one for which the spectral radius of `I - M A` is below one, and who knows that?
    takes_any_preconditioner = False

    def correct(self, matvec, r, target, active, budget, precondition):
        def keep_going(e, current, steps, active):
            return tf.reduce_any(active)

        def body(e, current, steps, active):
            # The step of an image that has stopped is zero: it stays as it is.
            step = scaled(precondition(current), tf.cast(active, r.dtype))
            e += step
            current -= matvec(step)
            steps += tf.cast(active, tf.int32)
            size = norm(current)
            active &= (size > target) & (steps < budget) & tf.math.is_finite(size)
            return e, current, steps, active

        active &= (norm(r) > target) & (budget > 0)
        loop = (tf.zeros_like(r), r, tf.zeros_like(budget), active)
        e, _, steps, _ = tf.while_loop(keep_going, body, loop, shape_invariants=ranks_only(loop))
        return e, steps

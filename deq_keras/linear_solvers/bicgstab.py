"""BiCGStab."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.linear_solvers.base import LinearSolver
from deq_keras.numerics.rows import dot, norm, ranks_only, safe_divide, scaled, where


@keras.saving.register_keras_serializable(package="deq_keras")
class BiCGStab(LinearSolver):
    """BiCGStab, for any `A` whose eigenvalues are not spread around zero.

    Short recurrences, so eight images of memory whatever the number of steps, where GMRES keeps a
    basis; two products a step, both counted. The residual is erratic: the best iterate is kept. An
    image whose recurrence breaks down (an inner product that is zero to rounding) stops with its
    best; the next correction starts a new recurrence there. Skew-symmetric `A` breaks down at
    once: use GMRES. A preconditioner is applied from the right, and need not be symmetric.

    Reference:
        Van der Vorst, Bi-CGSTAB: a fast and smoothly converging variant of Bi-CG for the solution
        of nonsymmetric linear systems, SIAM J. Sci. Stat. Comput. 1992.

    Example:

    >>> b = tf.ones((1, 2))
    >>> matvec = lambda w: tf.stack([w[:, 0] + w[:, 1], w[:, 1]], axis=1)
    >>> deq_keras.linear_solvers.BiCGStab().solve(matvec, b).value  # [0, 1]
    """

    refinements = 20  # a breakdown costs one

    def correct(self, matvec, r, target, active, budget, precondition):
        eps = float(np.finfo(r.dtype.as_numpy_dtype).eps)
        shadow, size = r, norm(r)
        none = tf.zeros_like(size)

        def keep_going(e, r, p, rho, best, best_size, steps, active):
            return tf.reduce_any(active)

        def body(e, r, p, rho, best, best_size, steps, active):
            direction = precondition(p)
            v = matvec(direction)
            steps += tf.cast(active, tf.int32)
            overlap = dot(shadow, v)
            # Written so that NaN is a breakdown as well.
            active &= tf.abs(overlap) > eps * size * norm(v)
            alpha = tf.where(active, safe_divide(rho, overlap), none)
            half = r - alpha[:, None] * v
            e += scaled(direction, alpha)
            half_size = norm(half)
            # Done after half a step, or stopped: the second product is not spent on this image.
            second = active & (half_size > target)
            smoother = precondition(half)
            t = matvec(smoother)
            steps += tf.cast(second, tf.int32)
            th, tt = dot(t, half), dot(t, t)
            omega = tf.where(second, safe_divide(th, tt), none)
            e += scaled(smoother, omega)
            r = half - omega[:, None] * t
            r_size = norm(r)
            rho_next = dot(shadow, r)
            beta = safe_divide(rho_next, rho) * safe_divide(alpha, omega)
            p = r + beta[:, None] * (p - omega[:, None] * v)
            better = active & (r_size < best_size)
            best = where(better, e, best)
            best_size = tf.where(better, r_size, best_size)
            active = second & (r_size > target) & (steps + 2 <= budget)
            active &= tf.abs(th) > eps * tf.sqrt(tt) * half_size
            active &= tf.abs(rho_next) > eps * size * r_size
            return e, r, p, rho_next, best, best_size, steps, active

        active &= (size > target) & (budget >= 2)
        nothing = tf.zeros_like(r)
        loop = (nothing, r, r, size**2, nothing, size, tf.zeros_like(budget), active)
        result = tf.while_loop(keep_going, body, loop, shape_invariants=ranks_only(loop))
        return result[4], result[6]

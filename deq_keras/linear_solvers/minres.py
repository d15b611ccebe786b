"""MINRES."""

import keras
import tensorflow as tf

from deq_keras.linear_solvers.base import LinearSolver
from deq_keras.rows import dot, norm, ranks_only, safe_divide


@keras.saving.register_keras_serializable(package="deq_keras")
class MINRES(LinearSolver):
    """MINRES: minimises the residual over Krylov spaces, for symmetric `A`, definite or not.

    The choice for energies that are not convex, where the Hessian may have eigenvalues of both
    signs. Short recurrences: six images of memory, whatever the number of steps.

    Reference:
        Paige and Saunders, Solution of sparse indefinite systems of linear equations, SIAM J.
        Numer. Anal. 1975.

    Example:

    >>> b = tf.ones((1, 2))
    >>> matvec = lambda w: w * tf.constant([[2.0, -4.0]])
    >>> deq_keras.linear_solvers.MINRES().solve(matvec, b).value  # [0.5, -0.25]
    """

    def correct(self, matvec, r, target, active, budget):
        size = norm(r)
        one, none = tf.ones_like(size), tf.zeros_like(size)
        nothing = tf.zeros_like(r)

        def keep_going(e, v, v_old, w, w_old, beta, eta, c, c_old, s, s_old, steps, active):
            return tf.reduce_any(active)

        def body(e, v, v_old, w, w_old, beta, eta, c, c_old, s, s_old, steps, active):
            # Lanczos: the next basis vector.
            p = matvec(v)
            alpha = dot(v, p)
            p -= alpha[:, None] * v + beta[:, None] * v_old
            beta_next = norm(p)
            # Two old rotations and a new one make the tridiagonal matrix triangular.
            delta = c * alpha - c_old * s * beta
            rho = tf.sqrt(delta**2 + beta_next**2)
            w_next = v - (s_old * beta)[:, None] * w_old
            w_next -= (s * alpha + c_old * c * beta)[:, None] * w
            w_next = safe_divide(w_next, rho[:, None])
            c_next, s_next = safe_divide(delta, rho), safe_divide(beta_next, rho)
            e += tf.where(active, c_next * eta, none)[:, None] * w_next
            eta = -s_next * eta
            v_next = safe_divide(p, beta_next[:, None])
            steps += tf.cast(active, tf.int32)
            active &= (tf.abs(eta) > target) & (steps < budget) & (beta_next > 0) & (rho > 0)
            return e, v_next, v, w_next, w, beta_next, eta, c_next, c, s_next, s, steps, active

        active &= (size > target) & (budget > 0)
        v = safe_divide(r, size[:, None])
        loop = (nothing, v, nothing, nothing, nothing, none, size, one, one, none, none)
        loop += (tf.zeros_like(budget), active)
        result = tf.while_loop(keep_going, body, loop, shape_invariants=ranks_only(loop))
        return result[0], result[-2]

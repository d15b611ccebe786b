"""MINRES."""

import keras
import tensorflow as tf

from deq_keras.linear_solvers.base import LinearSolver
from deq_keras.numerics.rows import dot, norm, ranks_only, safe_divide, scaled


@keras.saving.register_keras_serializable(package="deq_keras")
class MINRES(LinearSolver):
    """MINRES: minimises the residual over Krylov spaces, for symmetric `A`, definite or not.

    The choice for energies that are not convex, where the Hessian may have eigenvalues of both
    signs. Short recurrences: six images of memory, whatever the number of steps; two more with a
    preconditioner `M`. It must be symmetric positive definite, and what is minimised is then the
    residual's norm `<r, M r>`; its Euclidean norm is followed beside it and decides when to stop.

    References:
        Paige and Saunders, Solution of sparse indefinite systems of linear equations, SIAM J.
        Numer. Anal. 1975; Elman, Silvester and Wathen, Finite elements and fast iterative solvers,
        2014, section 4.1 (with a preconditioner).

    Example:

    >>> b = tf.ones((1, 2))
    >>> matvec = lambda w: w * tf.constant([[2.0, -4.0]])
    >>> deq_keras.linear_solvers.MINRES().solve(matvec, b).value  # [0.5, -0.25]
    """

    def correct(self, matvec, r, target, active, budget, precondition):
        y = precondition(r)
        identity = y is r
        size = norm(r) if identity else _root(dot(r, y))
        one, none = tf.ones_like(size), tf.zeros_like(size)
        nothing = tf.zeros_like(r)

        def keep_going(e, v, v_old, z, u, w, w_old, beta, eta, c, c_old, s, s_old, steps, active):
            return tf.reduce_any(active)

        def body(e, v, v_old, z, u, w, w_old, beta, eta, c, c_old, s, s_old, steps, active):
            # Lanczos: the next basis vector v, and z = M v; <v_i, z_j> = 1 if i = j, else 0.
            direction = v if identity else z
            p = matvec(direction)
            steps += tf.cast(active, tf.int32)
            alpha = dot(direction, p)
            p -= alpha[:, None] * v + beta[:, None] * v_old
            y = precondition(p)
            beta_next = norm(p) if identity else _root(dot(p, y))
            # Two old rotations and a new one make the tridiagonal matrix triangular.
            delta = c * alpha - c_old * s * beta
            rho = tf.sqrt(delta**2 + beta_next**2)
            active &= tf.math.is_finite(rho) & (rho > 0)
            w_next = direction - (s_old * beta)[:, None] * w_old
            w_next -= (s * alpha + c_old * c * beta)[:, None] * w
            w_next *= _inverse(rho)
            c_next, s_next = safe_divide(delta, rho), safe_divide(beta_next, rho)
            e += scaled(w_next, tf.where(active, c_next * eta, none))
            eta = -s_next * eta
            v_next = _inverse(beta_next) * p
            left = tf.abs(eta)
            if not identity:
                z = _inverse(beta_next) * y
                # The residual is eta u, and the M-norm of u is one.
                u = c_next[:, None] * v_next - s_next[:, None] * u
                left *= norm(u)
            active &= (left > target) & (steps < budget) & (beta_next > 0)
            after = (beta_next, eta, c_next, c, s_next, s, steps, active)
            return (e, v_next, v, z, u, w_next, w, *after)

        active &= (norm(r) > target) & (budget > 0) & (size > 0)
        v = _inverse(size) * r
        z, u = ((), ()) if identity else (_inverse(size) * y, v)
        loop = (nothing, v, nothing, z, u, nothing, nothing, none, size, one, one, none, none)
        loop += (tf.zeros_like(budget), active)
        result = tf.while_loop(keep_going, body, loop, shape_invariants=ranks_only(loop))
        return result[0], result[-2]


def _root(square):
    return tf.sqrt(tf.maximum(square, 0))


def _inverse(a):
    """`1 / a`, and zero where `a` is zero, as a column."""
    return tf.math.reciprocal_no_nan(a)[:, None]

"""MINRES."""

from typing import NamedTuple

import keras
import tensorflow as tf

from deq_keras.linear_solvers.base import LinearSolver, while_active
from deq_keras.numerics.rows import dot, norm


class MINRESState(NamedTuple):
    """State of `MINRES`. Scalars of an image have shape `(batch, 1)`."""

    e: tf.Tensor  # the solution so far
    v: tf.Tensor  # Lanczos vector
    v_old: tf.Tensor
    z: tf.Tensor  # M v; () without a preconditioner
    u: tf.Tensor  # residual of length one in the M-norm; () without a preconditioner
    w: tf.Tensor  # direction of the last step
    w_old: tf.Tensor
    beta: tf.Tensor  # entry of the tridiagonal matrix beside the diagonal
    eta: tf.Tensor  # residual in the M-norm, with a sign
    c: tf.Tensor  # cosine of the last rotation
    c_old: tf.Tensor
    s: tf.Tensor  # sine of the last rotation
    s_old: tf.Tensor
    steps: tf.Tensor
    active: tf.Tensor


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
    >>> deq_keras.linear_solvers.MINRES().solve(matvec, b).value.numpy().round(5)
    array([[ 0.5 , -0.25]], dtype=float32)
    """

    def correct(self, matvec, r, target, active, budget, precondition):
        y = precondition(r)
        identity = y is r
        size = norm(r, keepdims=True) if identity else _root(dot(r, y, keepdims=True))

        def step(state):
            # Lanczos: the next basis vector v, and z = M v; <v_i, z_j> = 1 if i = j, else 0.
            v, beta, c, s = state.v, state.beta, state.c, state.s
            direction = v if identity else state.z
            p = matvec(direction)
            steps = state.steps + tf.cast(state.active, tf.int32)
            alpha = dot(direction, p, keepdims=True)
            p -= alpha * v + beta * state.v_old
            y = precondition(p)
            beta_next = norm(p, keepdims=True) if identity else _root(dot(p, y, keepdims=True))
            inverse = tf.math.reciprocal_no_nan(beta_next)
            v_next = inverse * p
            # Two old rotations and a new one make the tridiagonal matrix triangular.
            delta = c * alpha - state.c_old * s * beta
            rho = tf.sqrt(delta**2 + beta_next**2)
            active = state.active & tf.math.is_finite(rho) & (rho > 0)
            w = direction - state.s_old * beta * state.w_old
            w -= (s * alpha + state.c_old * c * beta) * state.w
            w *= tf.math.reciprocal_no_nan(rho)
            c_next = tf.math.divide_no_nan(delta, rho)
            s_next = tf.math.divide_no_nan(beta_next, rho)
            length = tf.where(active, c_next * state.eta, 0)
            e = state.e + tf.math.multiply_no_nan(w, length)
            eta = -s_next * state.eta
            left, z, u = tf.abs(eta), state.z, state.u
            if not identity:
                z = inverse * y
                # The residual is eta u, and the M-norm of u is one.
                u = c_next * v_next - s_next * u
                left *= norm(u, keepdims=True)
            active &= (left > target) & (steps < budget) & (beta_next > 0)
            return MINRESState(
                e, v_next, v, z, u, w, state.w, beta_next, eta, c_next, c, s_next, s, steps, active
            )

        active &= (norm(r, keepdims=True) > target) & (budget > 0) & (size > 0)
        inverse, nothing = tf.math.reciprocal_no_nan(size), tf.zeros_like(r)
        one, none, v = tf.ones_like(size), tf.zeros_like(size), inverse * r
        state = MINRESState(
            e=nothing,
            v=v,
            v_old=nothing,
            z=() if identity else inverse * y,
            u=() if identity else v,
            w=nothing,
            w_old=nothing,
            beta=none,
            eta=size,
            c=one,
            c_old=one,
            s=none,
            s_old=none,
            steps=tf.zeros_like(budget),
            active=active,
        )
        state = while_active(step, state)
        return state.e, state.steps


def _root(square):
    return tf.sqrt(tf.maximum(square, 0))

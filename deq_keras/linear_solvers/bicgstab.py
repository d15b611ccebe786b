"""BiCGStab."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deq_keras.linear_solvers.base import LinearSolver, while_active
from deq_keras.numerics.rows import dot, norm


class BiCGStabState(NamedTuple):
    """State of `BiCGStab`. Scalars of an image have shape `(batch, 1)`."""

    e: tf.Tensor  # the solution so far
    r: tf.Tensor  # its residual, by recurrence
    p: tf.Tensor  # the next direction
    rho: tf.Tensor  # <shadow, r>
    best: tf.Tensor  # the solution with the least residual
    best_size: tf.Tensor  # that residual
    steps: tf.Tensor
    active: tf.Tensor


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
    >>> abs(deq_keras.linear_solvers.BiCGStab().solve(matvec, b).value.numpy()).round(5)
    array([[0., 1.]], dtype=float32)
    """

    refinements = 20  # a breakdown costs one

    def correct(self, matvec, r, target, active, budget, precondition):
        eps = float(np.finfo(r.dtype.as_numpy_dtype).eps)
        shadow, size = r, norm(r, keepdims=True)
        smallest = eps * size

        def step(state):
            e, r, p, rho, best, best_size, steps, active = state
            direction = precondition(p)
            v = matvec(direction)
            steps += tf.cast(active, tf.int32)
            overlap = dot(shadow, v, keepdims=True)
            # Written so that NaN is a breakdown as well.
            active &= tf.abs(overlap) > smallest * norm(v, keepdims=True)
            alpha = tf.where(active, tf.math.divide_no_nan(rho, overlap), 0)
            half = r - alpha * v
            e += tf.math.multiply_no_nan(direction, alpha)
            half_size = norm(half, keepdims=True)
            # Done after half a step, or stopped: the second product is not spent on this image.
            second = active & (half_size > target)
            smoother = precondition(half)
            t = matvec(smoother)
            steps += tf.cast(second, tf.int32)
            th, tt = dot(t, half, keepdims=True), dot(t, t, keepdims=True)
            omega = tf.where(second, tf.math.divide_no_nan(th, tt), 0)
            e += tf.math.multiply_no_nan(smoother, omega)
            r = half - omega * t
            r_size = norm(r, keepdims=True)
            rho_next = dot(shadow, r, keepdims=True)
            beta = tf.math.divide_no_nan(rho_next, rho) * tf.math.divide_no_nan(alpha, omega)
            p = r + beta * (p - omega * v)
            better = active & (r_size < best_size)
            best = tf.where(better, e, best)
            best_size = tf.where(better, r_size, best_size)
            active = second & (r_size > target) & (steps + 2 <= budget)
            active &= tf.abs(th) > eps * tf.sqrt(tt) * half_size
            active &= tf.abs(rho_next) > smallest * r_size
            return BiCGStabState(e, r, p, rho_next, best, best_size, steps, active)

        active &= (size > target) & (budget >= 2)
        nothing, none = tf.zeros_like(r), tf.zeros_like(budget)
        state = BiCGStabState(nothing, r, r, size**2, nothing, size, none, active)
        state = while_active(step, state)
        return state.best, state.steps

"""How far a computed fixed point is from the true one: bounds, and estimates that say so."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deq_keras import linear_solvers
from deq_keras.numerics.jacobian import product
from deq_keras.numerics.rows import norm, to_rows
from deq_keras.problems.problem import as_problem, evaluate_residual


class ErrorBound(NamedTuple):
    """A number for each image, and whether it is certain.

    Attributes:
        value: `(batch,)`, in the Euclidean norm.
        certified: Boolean `(batch,)`: an upper bound in exact arithmetic, with an allowance for
            the rounding of the residual. `False`: an estimate, which may be too small.
    """

    value: tf.Tensor
    certified: tf.Tensor


def solution_error(problem, z):
    """How far `z` is from the fixed point of `f`.

    If `I - f` is strongly monotone with modulus `m` (for a gradient step of length `tau` on an
    energy with modulus of convexity `mu` it is, with `m = tau mu`), then

        ||z - z*|| <= ||z - f(z)|| / m.

    Where no positive modulus is known, the length of Newton's step `(I - J)^{-1} (f(z) - z)` is
    returned, from one linear solve: an estimate.

    Args:
        problem: A `deq_keras.solvers.Problem`.
        z: Tensor `(batch, ...)` or nested structure.

    Returns:
        An `ErrorBound`.

    Example:

    >>> problem = deq_keras.solvers.Problem(lambda z: 0.5 * z + 1.0, strong_convexity=0.5)
    >>> bound = deq_keras.certificates.solution_error(problem, tf.zeros((1, 1)))  # from 2
    >>> bound.value.numpy().round(3), bound.certified.numpy()
    (array([2.], dtype=float32), array([ True]))
    """
    problem = as_problem(problem)
    rows, ravel, unravel = to_rows(z)
    fz, residual, _ = evaluate_residual(problem.in_rows(ravel, unravel), rows)
    bound = _over_modulus(problem, norm(residual), norm(rows) + norm(fz))
    certified = tf.math.is_finite(bound)
    if tf.get_static_value(tf.reduce_all(certified)):
        return ErrorBound(bound, certified)
    forward = product(problem.f, unravel(rows))

    def operator(v):
        return tf.nest.map_structure(tf.subtract, v, forward(v))

    solver = linear_solvers.GMRES(tolerance=1e-3, max_steps=200)
    step = ravel(solver.solve(operator, unravel(residual)).value)
    return ErrorBound(tf.where(certified, bound, norm(step)), certified)


def root_mean_square_bound(problem, solution):
    """The certified bound of a `Solution`, as root mean square over the pixels, `(batch,)`.

    Infinite for an image without a certified modulus; `None` if the problem has no modulus or no
    scale at all.

    Example:

    >>> problem = deq_keras.solvers.Problem(
    ...     lambda z: 0.5 * z + 1.0, tf.zeros((1, 4)), scale=tf.ones(1), strong_convexity=0.5)
    >>> solution = deq_keras.solvers.Picard().solve(problem)
    >>> bool(deq_keras.certificates.root_mean_square_bound(problem, solution)[0] < 1e-4)
    True
    """
    problem = as_problem(problem)
    if problem.strong_convexity is None or problem.scale is None:
        return None
    rows, _, _ = to_rows(solution.value)
    absolute = solution.residual * tf.cast(problem.scale, rows.dtype)
    bound = _over_modulus(problem, absolute, 2 * norm(rows))
    return bound / tf.sqrt(tf.cast(tf.shape(rows)[1], rows.dtype))


def hypergradient_error(error, adjoint_state, adjoint_residual, modulus, variation, sensitivity):
    """How far a hypergradient is from the exact one, for a loss with a nonexpansive gradient.

    The exact one is `-B(u*)^T p*` with `Hess E(u*) p* = grad l(u*)` and `B = d grad E / d theta`;
    the computed one has `u`, `p` and a residual of the adjoint equation in their place. With
    `e = ||u - u*||`, the modulus `mu` of `E`, a constant with
    `||(Hess E(u) - Hess E(v)) p|| <= L ||u - v||` for this `p`, and that of `grad l` at most one,

        ||p - p*|| <= (||residual|| + (1 + L) e) / mu =: e_p
        ||error||  <= ||B(u)|| e_p + Lip(B) e (||p|| + e_p)

    Args:
        error: `e`, a bound `(batch,)`.
        adjoint_state: `||p||`, `(batch,)`.
        adjoint_residual: `||Hess E(u) p - grad l(u)||`, `(batch,)`.
        modulus: `mu`, a scalar or `(batch,)`.
        variation: `L`, `(batch,)`.
        sensitivity: `(||B(u)||, Lip(B))`, `(batch,)` each.

    Returns:
        An `ErrorBound`; not certified where one of the constants is not known.

    Reference:
        Ehrhardt and Roberts, Analyzing inexact hypergradients for bilevel learning, IMA J. Appl.
        Math. 2024, where the constants are not certified but the argument is this one.

    Example:

    >>> bound = deq_keras.certificates.hypergradient_error(
    ...     error=tf.zeros(1), adjoint_state=tf.ones(1), adjoint_residual=tf.constant([0.1]),
    ...     modulus=0.5, variation=tf.zeros(1), sensitivity=(tf.ones(1), tf.zeros(1)))
    >>> bound.value.numpy().round(3)
    array([0.2], dtype=float32)
    """
    # An infinite constant times an error of zero must not be NaN.
    curvature = tf.math.multiply_no_nan(variation, error)
    modulus = tf.cast(modulus, error.dtype)
    of_adjoint = (adjoint_residual + error + curvature) / modulus  # infinite where it is 0
    size, lipschitz = sensitivity
    varying = tf.math.multiply_no_nan(lipschitz * (adjoint_state + of_adjoint), error)
    bound = size * of_adjoint + varying
    return ErrorBound(bound, tf.math.is_finite(bound))


def _over_modulus(problem, residual, scale):
    """`residual / m`, with what rounding may have hidden of the residual; infinite for `m = 0`."""
    eps = float(np.finfo(residual.dtype.as_numpy_dtype).eps)
    residual += 4 * eps * scale
    if problem.strong_convexity is None:
        return tf.fill(tf.shape(residual), tf.constant(float("inf"), residual.dtype))
    modulus = tf.cast(problem.strong_convexity, residual.dtype)
    known = modulus > 0
    bound = residual / tf.where(known, modulus, tf.ones_like(modulus))
    return tf.where(known, bound, tf.fill(tf.shape(bound), tf.constant(float("inf"), bound.dtype)))

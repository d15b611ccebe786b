"""Estimates of how well conditioned a fixed-point problem is at a point; nothing is certified."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deq_keras.checks import positive_int
from deq_keras.numerics.jacobian import linearize
from deq_keras.numerics.rows import column, norm, ranks_only, to_rows
from deq_keras.problems.linearized import is_symmetric
from deq_keras.problems.problem import as_problem, step_length

__all__ = ["Conditioning", "estimate"]


class Conditioning(NamedTuple):
    """Estimates of `A = I - J` for each image, with the Jacobian `J` of `f`: `(batch,)` each.

    All are values that `A` takes on a few directions, so the extremes are approached from within:
    the true condition number is rather larger than this one, and the true smallest eigenvalue
    rather smaller. **None is certified.**

    Attributes:
        smallest: The smallest eigenvalue `mu` of the symmetric part `(A + A^T) / 2`. Where it is
            positive `A` is invertible, and `||A^{-1}|| <= 1 / mu`.
        largest: The largest eigenvalue of the symmetric part.
        skew: The norm of the skew part `(A - A^T) / 2`: 0 for a gradient step on an energy.
        norm: The norm `||A||`.
    """

    smallest: tf.Tensor
    largest: tf.Tensor
    skew: tf.Tensor
    norm: tf.Tensor

    @property
    def condition(self) -> tf.Tensor:
        """`||A|| / mu`, about a bound on `||A|| ||A^{-1}||`; infinite where `mu <= 0`."""
        positive = self.smallest > 0
        ratio = self.norm / tf.where(positive, self.smallest, tf.ones_like(self.smallest))
        return tf.where(
            positive, ratio, tf.fill(tf.shape(ratio), tf.constant(float("inf"), ratio.dtype))
        )


def estimate(problem, z, steps: int = 16) -> Conditioning:
    """How the linear equations with `I - J` at `z` are conditioned, for each image.

    Newton's method and the adjoint equation solve such systems, and how many steps solvers take
    follows from them. The eigenvalues of the symmetric part are those of its projection onto a
    Krylov space (Lanczos), made orthonormal in full, which loses nothing to rounding; so are, in
    half as many steps, the norms of the skew part and of the whole.

    Args:
        problem: A `deq_keras.solvers.Problem`, or a map.
        z: Tensor `(batch, ...)` or nested structure: where, usually at a solution.
        steps: Of Lanczos. Each is one product with a symmetric `A`, so 16 in all; of another map
            two products, with `A` and its transposed, for each of the three: 64 in all.

    Returns:
        A `Conditioning`. It is made from one random direction, the same for all images.

    Raises:
        ValueError: If `steps` is no positive integer.

    Reference:
        Parlett, The symmetric eigenvalue problem, SIAM 1998, chapter 12.

    Example:

    >>> curvature = tf.constant([[0.1, 0.5, 1.0, 2.0]])
    >>> problem = deq_keras.solvers.Problem(lambda z: z - curvature * z, symmetric=True)
    >>> found = deq_keras.conditioning.estimate(problem, tf.zeros((1, 4)), steps=4)
    >>> found.smallest.numpy().round(3), found.condition.numpy().round(2)
    (array([0.1], dtype=float32), array([20.], dtype=float32))
    """
    steps = positive_int("steps", steps)
    problem = as_problem(problem).frozen()
    rows, ravel, unravel = to_rows(tf.nest.map_structure(tf.stop_gradient, z))
    problem = problem.in_rows(ravel, unravel)
    # The same for all: an image's numbers must not depend on its place in the batch.
    start = tf.random.stateless_normal((1, tf.shape(rows)[1]), (0, 0), dtype=rows.dtype)
    start = tf.ones_like(rows) * start
    if is_symmetric(problem):
        product, _ = _products(problem, rows, symmetric=True)
        smallest, largest = _extremes(product, start, steps)
        largest_size = tf.maximum(tf.abs(smallest), tf.abs(largest))
        return Conditioning(smallest, largest, tf.zeros_like(smallest), largest_size)
    product, transposed = _products(problem, rows, symmetric=False)
    smallest, largest = _extremes(lambda v: 0.5 * (product(v) + transposed(v)), start, steps)
    half = -(-steps // 2)
    # Minus the square of a skew map is symmetric.
    skew = _largest(lambda v: 0.5 * (product(v) - transposed(v)), start, half)
    _, square = _extremes(lambda v: transposed(product(v)), start, half)
    size = tf.sqrt(tf.maximum(square, 0.0))
    for other in (smallest, largest, skew):  # none of which the norm is less than
        size = tf.maximum(size, tf.abs(other))
    return Conditioning(smallest, largest, skew, size)


def _products(problem, z, symmetric):
    """`v -> A v` and `v -> A^T v` at rows `z`, from one evaluation."""
    step = problem.step
    # A step along a known gradient: its derivative has all the digits that `I - J` would lose.
    along = step is not None and step.gradient is not None and step.proximal is None
    value, backward = linearize(step.gradient if along else problem.f, z)
    forward = backward if symmetric else linearize(backward, tf.zeros_like(value))[1]
    if not along:
        return (lambda v: v - forward(v)), (lambda v: v - backward(v))
    length = column(step_length(problem, z))
    return (lambda v: length * forward(v)), (lambda v: length * backward(v))


def _krylov(product, start, steps):
    """Orthonormal directions `(batch, steps, n)`, and the products with them.

    Where the space ends early, as for a multiple of the identity, the rest are zero.
    """
    rounding = 100.0 * float(np.finfo(start.dtype.as_numpy_dtype).eps)
    empty = tf.zeros_like(start)[:, None] * tf.ones((steps, 1), start.dtype)

    def step(k, w, basis, images):
        before = norm(w, keepdims=True)
        for _ in range(2):  # once is not enough in single precision
            w -= tf.linalg.matvec(basis, tf.linalg.matvec(basis, w), transpose_a=True)
        size = norm(w, keepdims=True)
        known = size > rounding * before
        v = tf.where(known, w / tf.where(known, size, tf.ones_like(size)), tf.zeros_like(w))
        w = product(v)
        here = tf.one_hot(k, steps, dtype=w.dtype)[:, None]
        return k + 1, w, basis + here * v[:, None], images + here * w[:, None]

    # A loop: a graph of so many products, one after the other, takes long to make.
    state = (tf.constant(0), start, empty, empty)
    state = tf.while_loop(
        lambda k, *_: k < steps,
        step,
        state,
        maximum_iterations=steps,
        shape_invariants=ranks_only(state),
    )
    return state[2:]


def _extremes(product, start, steps):
    """The least and the greatest eigenvalue of a symmetric map on a Krylov space."""
    basis, images = _krylov(product, start, steps)
    matrix = tf.matmul(basis, images, transpose_b=True)
    missing = 1.0 - tf.reduce_sum(basis**2, axis=2)
    # In place of a direction that is missing, a value that lies between the extremes.
    matrix += tf.linalg.diag(tf.round(missing) * matrix[:, :1, 0])
    values = tf.linalg.eigvalsh(0.5 * (matrix + tf.linalg.matrix_transpose(matrix)))
    return values[:, 0], values[:, -1]


def _largest(product, start, steps):
    """The norm of a map on a Krylov space of its own."""
    _, images = _krylov(product, start, steps)
    values = tf.linalg.eigvalsh(tf.matmul(images, images, transpose_b=True))
    return tf.sqrt(tf.maximum(values[:, -1], 0.0))

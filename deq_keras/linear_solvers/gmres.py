"""GMRES with restarts."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deq_keras.checks import positive_int
from deq_keras.linear_solvers.base import LinearSolver, while_active
from deq_keras.numerics.rows import norm


class GMRESState(NamedTuple):
    """State of `GMRES`. Scalars of an image have shape `(batch, 1)`."""

    j: tf.Tensor  # number of the step, the same for all images
    newest: tf.Tensor  # last image of the basis
    basis: tf.Tensor  # (batch, j + 1, n), orthonormal
    upper: tf.Tensor  # (batch, restart, restart), the triangle
    rotations: tf.Tensor  # (batch, restart + 1, restart + 1), their product
    left: tf.Tensor  # norm of the residual
    steps: tf.Tensor
    active: tf.Tensor


@keras.saving.register_keras_serializable(package="deq_keras")
class GMRES(LinearSolver):
    """GMRES(m): minimises the residual over Krylov spaces, for any nonsingular `A`.

    The choice for deep equilibrium models, whose Jacobian is not symmetric. The basis is made
    orthogonal by classical Gram-Schmidt done twice (two products of a small matrix with the basis
    and as stable as the modified one); Givens rotations update the residual at each step, so every
    image stops by itself. The basis grows with the steps: memory is `restart + 1` images if all are
    needed. A preconditioner is applied from the right, and need not be symmetric: what is
    minimised is the true residual.

    Args:
        restart: Dimension `m` of the Krylov space before a restart.
        tolerance: Relative residual at which an image stops.
        max_steps: Largest number of products with `A` for an image.

    Reference:
        Saad and Schultz, GMRES, SIAM J. Sci. Stat. Comput. 1986.

    Example:

    >>> b = tf.constant([[1.0, 0.0]])
    >>> rotation = lambda w: tf.stack([w[:, 1], -w[:, 0]], axis=1)
    >>> deq_keras.linear_solvers.GMRES().solve(rotation, b).steps.numpy()  # two and a check
    array([3], dtype=int32)
    """

    refinements = 50  # each restart is a correction of the base class

    def __init__(self, restart: int = 30, tolerance: float = 1e-5, max_steps: int = 500):
        super().__init__(tolerance, max_steps)
        self.restart = positive_int("restart", restart)

    def get_config(self):
        return {"restart": self.restart, **super().get_config()}

    def correct(self, matvec, r, target, active, budget, precondition):
        m, dtype = self.restart, r.dtype
        eps = float(np.finfo(dtype.as_numpy_dtype).eps)
        count = tf.shape(r)[0]
        size = norm(r, keepdims=True)
        rows, columns = tf.range(m + 1), tf.range(m)
        whole, less = tf.constant([[0, 0], [0, m - 1]]), tf.constant([[0, 0], [0, 1]])

        def step(state):
            j, active, rotations = state.j, state.active, state.rotations
            v = matvec(precondition(state.newest))
            before = norm(v, keepdims=True)
            h = _project(state.basis, v)
            v -= _combine(state.basis, h)
            again = _project(state.basis, v)
            v -= _combine(state.basis, again)
            after = norm(v, keepdims=True)
            # What is left of v may be rounding alone: the space is then invariant.
            after = tf.where(after > 10 * eps * before, after, 0)
            newest = tf.math.reciprocal_no_nan(after) * v
            # The rotations so far act on the new column; one more removes its last entry.
            column = tf.pad(tf.concat([h + again, after], 1), whole - j * less)
            column = tf.linalg.matvec(rotations, column)
            top, below = (tf.gather(column, [i], axis=1) for i in (j, j + 1))
            radius = tf.sqrt(top**2 + below**2)
            c = tf.where(radius > 0, tf.math.divide_no_nan(top, radius), 1)
            s = tf.math.divide_no_nan(below, radius)
            # An image that is done takes no more columns: there is no place for them.
            place = tf.where(active, j, -2)
            here = tf.equal(columns, place)
            column = tf.expand_dims(tf.where(here, radius, column[:, :m]), 2)
            upper = tf.where(tf.expand_dims(here, 1), column, state.upper)
            rotations = _rotate(rotations, c, s, j, rows, place)
            steps = state.steps + tf.cast(active, tf.int32)
            left = tf.abs(s) * state.left
            active &= (left > target) & (steps < budget) & (after > 0) & (j + 1 < m)
            basis = tf.concat([state.basis, tf.expand_dims(newest, 1)], 1)
            return GMRESState(j + 1, newest, basis, upper, rotations, left, steps, active)

        active &= (size > target) & (budget > 0)
        newest = tf.math.divide_no_nan(r, size)
        state = GMRESState(
            j=tf.constant(0),
            newest=newest,
            basis=tf.expand_dims(newest, 1),
            upper=tf.zeros((count, m, m), dtype),
            rotations=tf.eye(m + 1, batch_shape=[count], dtype=dtype),
            left=size,
            steps=tf.zeros_like(budget),
            active=active,
        )
        state = while_active(step, state)
        right = size * state.rotations[:, :m, 0]
        coefficients = _back_substitute(state.upper, right, state.steps, m)[:, : state.j]
        return precondition(_combine(state.basis[:, : state.j], coefficients)), state.steps


# Row vectors times matrices: TensorFlow's products with column vectors take up to twice the time.
def _project(basis, v):
    """Inner products `(batch, j)` of `v` with the images of the basis `(batch, j, n)`."""
    return tf.squeeze(tf.matmul(tf.expand_dims(v, 1), basis, transpose_b=True), 1)


def _combine(basis, coefficients):
    return tf.squeeze(tf.matmul(tf.expand_dims(coefficients, 1), basis), 1)


def _rotate(rotations, c, s, j, rows, place):
    """One more Givens rotation of the rows `j` and `j + 1`, where `place` `(batch, 1)` is `j`."""
    a, b = tf.gather(rotations, [j], axis=1), tf.gather(rotations, [j + 1], axis=1)
    c, s, place = (tf.expand_dims(column, 2) for column in (c, s, place))
    rows = tf.expand_dims(rows, 1)
    rotations = tf.where(tf.equal(rows, place + 1), c * b - s * a, rotations)
    return tf.where(tf.equal(rows, place), c * a + s * b, rotations)


def _back_substitute(upper, right, used, size):
    """Solve the leading `used` `(batch, 1)` rows of each triangle; unknowns beyond are zero."""
    valid = tf.range(size) < used
    diagonal = tf.linalg.diag_part(upper)
    valid &= tf.abs(diagonal) > 0
    both = tf.expand_dims(valid, 2) & tf.expand_dims(tf.range(size) < used, 1)
    upper = tf.where(both, upper, tf.eye(size, dtype=upper.dtype))
    right = tf.where(valid, right, 0)
    return tf.squeeze(tf.linalg.triangular_solve(upper, right[..., None], lower=False), 2)

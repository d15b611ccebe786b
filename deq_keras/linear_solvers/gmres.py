"""GMRES with restarts."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.checks import positive_int
from deq_keras.linear_solvers.base import LinearSolver
from deq_keras.numerics.rows import norm, ranks_only, safe_divide, where


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
    """

    refinements = 50  # each restart is a correction of the base class

    def __init__(self, restart=30, tolerance=1e-5, max_steps=500):
        super().__init__(tolerance, max_steps)
        self.restart = positive_int("restart", restart)

    def get_config(self):
        return {"restart": self.restart, **super().get_config()}

    def correct(self, matvec, r, target, active, budget, precondition):
        m, dtype = self.restart, r.dtype
        eps = float(np.finfo(dtype.as_numpy_dtype).eps)
        count = tf.shape(r)[0]
        size = norm(r)

        def keep_going(j, newest, basis, upper, rotations, steps, active):
            return (j < m) & tf.reduce_any(active)

        def body(j, newest, basis, upper, rotations, steps, active):
            v = matvec(precondition(newest))
            before = norm(v)
            h = _project(basis, v)
            v -= _combine(basis, h)
            again = _project(basis, v)
            v -= _combine(basis, again)
            after = norm(v)
            # What is left of v may be rounding alone: the space is then invariant.
            after = tf.where(after > 10 * eps * before, after, tf.zeros_like(after))
            newest = tf.math.reciprocal_no_nan(after)[:, None] * v
            column = tf.concat([h + again, after[:, None]], axis=1)
            column = tf.pad(column, [[0, 0], [0, m - 1 - j]])
            # The rotations so far act on the new column; one more removes its last entry.
            column = tf.linalg.matvec(rotations, column)
            top, below = tf.gather(column, j, axis=1), tf.gather(column, j + 1, axis=1)
            radius = tf.sqrt(top**2 + below**2)
            c = tf.where(radius > 0, safe_divide(top, radius), tf.ones_like(radius))
            s = safe_divide(below, radius)
            here, there = (tf.one_hot(i, m + 1, dtype=dtype)[None] for i in (j, j + 1))
            column = where(active, column * (1 - here - there) + radius[:, None] * here, 0 * here)
            upper += column[:, :m, None] * here[:, None, :m]
            # An image that is done takes no more columns: its triangle and right side stay.
            turned = _rotate(rotations, c, s, j, here, there)
            rotations = tf.where(active[:, None, None], turned, rotations)
            steps += tf.cast(active, tf.int32)
            left = tf.abs(size * tf.gather(rotations[:, :, 0], j + 1, axis=1))
            active &= (left > target) & (steps < budget) & (after > 0)
            basis = tf.concat([basis, newest[:, None, :]], axis=1)
            return j + 1, newest, basis, upper, rotations, steps, active

        active &= (size > target) & (budget > 0)
        newest = safe_divide(r, size[:, None])
        loop = (
            tf.constant(0),
            newest,
            newest[:, None, :],
            tf.zeros((count, m, m), dtype),
            tf.eye(m + 1, batch_shape=[count], dtype=dtype),
            tf.zeros_like(budget),
            active,
        )
        j, _, basis, upper, rotations, steps, _ = tf.while_loop(
            keep_going, body, loop, shape_invariants=ranks_only(loop)
        )
        right = size[:, None] * rotations[:, :m, 0]
        coefficients = _back_substitute(upper, right, steps, m)[:, :j]
        return precondition(_combine(basis[:, :j], coefficients)), steps


# Row vectors times matrices: TensorFlow's products with column vectors take up to twice the time.
def _project(basis, v):
    """Inner products `(batch, j)` of `v` with the images of the basis `(batch, j, n)`."""
    return tf.matmul(v[:, None, :], basis, transpose_b=True)[:, 0]


def _combine(basis, coefficients):
    return tf.matmul(coefficients[:, None, :], basis)[:, 0]


def _rotate(rotations, c, s, j, here, there):
    """The product of one more Givens rotation, of the rows `j` and `j + 1`, with `rotations`."""
    a, b = tf.gather(rotations, j, axis=1), tf.gather(rotations, j + 1, axis=1)
    c, s = c[:, None], s[:, None]
    others = rotations * (1 - here - there)[:, :, None]
    others += here[:, :, None] * (c * a + s * b)[:, None, :]
    return others + there[:, :, None] * (c * b - s * a)[:, None, :]


def _back_substitute(upper, right, used, size):
    """Solve the leading `used[i]` rows of each triangle; unknowns beyond are zero."""
    valid = tf.range(size)[None] < used[:, None]
    identity = tf.eye(size, dtype=upper.dtype)[None]
    both = valid[:, :, None] & valid[:, None, :]
    diagonal = tf.linalg.diag_part(upper)
    safe = valid & (tf.abs(diagonal) > 0)
    upper = tf.where(both & safe[:, :, None], upper, identity)
    right = tf.where(safe, right, tf.zeros_like(right))
    return tf.linalg.triangular_solve(upper, right[..., None], lower=False)[..., 0]

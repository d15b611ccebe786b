"""GMRES with restarts."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.linear_solvers.base import LinearSolver
from deq_keras.registry import positive_int
from deq_keras.rows import norm, ranks_only, safe_divide


@keras.saving.register_keras_serializable(package="deq_keras")
class GMRES(LinearSolver):
    """GMRES(m): minimises the residual over Krylov spaces, for any nonsingular `A`.

    The choice for deep equilibrium models, whose Jacobian is not symmetric. The basis is made
    orthogonal by classical Gram-Schmidt done twice (two products of a small matrix with the basis
    and as stable as the modified one); Givens rotations update the residual at each step, so every
    image stops by itself. Memory: `restart + 1` images.

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

    def correct(self, matvec, r, target, active, budget):
        m, dtype = self.restart, r.dtype
        eps = float(np.finfo(dtype.as_numpy_dtype).eps)
        count = tf.shape(r)[0]
        size = norm(r)
        basis = safe_divide(r, size[:, None])[:, None, :]
        basis = tf.concat([basis, tf.zeros_like(tf.repeat(basis, m, axis=1))], axis=1)

        def keep_going(j, basis, upper, g, cosines, sines, steps, active):
            return (j < m) & tf.reduce_any(active)

        def body(j, basis, upper, g, cosines, sines, steps, active):
            v = matvec(basis[:, j])
            before = norm(v)
            # Rows of the basis beyond j are zero and take no part.
            h = tf.linalg.matvec(basis, v)
            v -= tf.linalg.matvec(basis, h, transpose_a=True)
            again = tf.linalg.matvec(basis, v)
            v -= tf.linalg.matvec(basis, again, transpose_a=True)
            h, after = h + again, norm(v)
            # What is left of v may be rounding alone: the space is then invariant.
            after = tf.where(after > 10 * eps * before, after, tf.zeros_like(after))
            v = safe_divide(v, after[:, None])
            h += after[:, None] * tf.one_hot(j + 1, m + 1, dtype=dtype)
            h = _rotate_all(h, cosines, sines, j, m + 1)
            top, below = h[:, j], tf.gather(h, j + 1, axis=1)
            radius = tf.sqrt(top**2 + below**2)
            one = tf.ones_like(radius)
            c = tf.where(radius > 0, safe_divide(top, radius), one)
            s = safe_divide(below, radius)
            place, next_place = (
                tf.one_hot(j, m + 1, dtype=dtype),
                tf.one_hot(j + 1, m + 1, dtype=dtype),
            )
            h = h * (1 - place - next_place) + radius[:, None] * place
            # An image that is done takes no more columns: its triangle and right side stay.
            keep = tf.cast(active, dtype)[:, None]
            upper += keep[:, :, None] * h[:, :m, None] * tf.one_hot(j, m, dtype=dtype)[None, None]
            g_next = g * (1 - place) + (c * g[:, j])[:, None] * place
            g_next -= (s * g[:, j])[:, None] * next_place
            g = tf.where(active[:, None], g_next, g)
            cosines += c[:, None] * tf.one_hot(j, m, dtype=dtype)
            sines += s[:, None] * tf.one_hot(j, m, dtype=dtype)
            basis += v[:, None, :] * next_place[None, :, None]
            steps += tf.cast(active, tf.int32)
            left = tf.abs(tf.gather(g, j + 1, axis=1))
            active &= (left > target) & (steps < budget) & (after > 0) & tf.math.is_finite(left)
            return j + 1, basis, upper, g, cosines, sines, steps, active

        active &= (size > target) & (budget > 0)
        loop = (
            tf.constant(0),
            basis,
            tf.zeros((count, m, m), dtype),
            size[:, None] * tf.one_hot(0, m + 1, dtype=dtype),
            tf.zeros((count, m), dtype),
            tf.zeros((count, m), dtype),
            tf.zeros_like(budget),
            active,
        )
        _, basis, upper, g, _, _, steps, _ = tf.while_loop(
            keep_going, body, loop, shape_invariants=ranks_only(loop)
        )
        coefficients = _back_substitute(upper, g[:, :m], steps, m)
        return tf.linalg.matvec(basis[:, :m], coefficients, transpose_a=True), steps


def _rotate_all(h, cosines, sines, count, size):
    """Apply the first `count` Givens rotations to the new column `(batch, m + 1)`."""

    def body(i, h):
        c, s = tf.gather(cosines, i, axis=1), tf.gather(sines, i, axis=1)
        a, b = tf.gather(h, i, axis=1), tf.gather(h, i + 1, axis=1)
        here, after = tf.one_hot(i, size, dtype=h.dtype), tf.one_hot(i + 1, size, dtype=h.dtype)
        h = h * (1 - here - after)
        return i + 1, h + (c * a + s * b)[:, None] * here + (c * b - s * a)[:, None] * after

    loop = (tf.constant(0), h)
    return tf.while_loop(lambda i, h: i < count, body, loop, shape_invariants=ranks_only(loop))[1]


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

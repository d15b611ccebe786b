"""Limited-memory Broyden's method."""

from typing import NamedTuple

import keras
import tensorflow as tf

from deq_keras.checks import positive, positive_int
from deq_keras.numerics.rows import column, dot, norm, safe_divide, where
from deq_keras.problems.problem import evaluate_residual
from deq_keras.solvers.base import Solver


class BroydenState(NamedTuple):
    """State of `Broyden`; the estimate is `H = I + sum_j u_j v_j^T` over the terms that are valid.

    Terms that an image does not use are zero in `u`.
    """

    z: tf.Tensor
    fz: tf.Tensor
    g: tf.Tensor  # z - f(z)
    best: tf.Tensor  # the point with the least residual since the last restart
    best_g: tf.Tensor  # g there
    u: tuple  # newest first
    v: tuple  # newest first


@keras.saving.register_keras_serializable(package="deq_keras")
class Broyden(Solver):
    """Broyden's "good" method for `g(z) = z - f(z) = 0`, with limited memory.

    It keeps an estimate `H` of `(I - J_f)^{-1}`, the identity at first, and takes steps

        s = -damping H g(z_k),    z_{k+1} = z_k + s,    y = g(z_{k+1}) - g(z_k)
        H <- H + (s - H y) s^T H / (s^T H y)

    so that the new estimate satisfies the secant equation `H y = s`. It is a sum of rank-one
    terms. When the memory is full the oldest is dropped before the new one is computed, so the
    equation still holds. An image whose denominator is too small leaves out the update. One whose
    residual has grown to `growth` times its best one forgets all terms and goes on from that best
    point with the plain iteration: the method converges locally, and far away it needs this.

    `apply_inverse` multiplies by the estimate, or its transpose, that a solve ended with: SHINE's
    approximation of the implicit derivative costs no linear solve.

    Args:
        memory: Number of rank-one terms kept, 1 to 50.
        damping: Number in (0, 1].
        growth: Factor by which the residual may exceed the best one since the last restart, >= 1.
        guard: An update is left out if `|s^T H y| <= guard ||s|| ||H y||`.
        tolerance: Relative residual at which an image stops.
        max_steps: Largest number of evaluations of the map.
        compact: Let images that have stopped leave the batch; see `Solver`.
        stopping: `"image"`, or `"batch"` for one residual of the whole batch; see `Solver`.

    Reference:
        Broyden, A class of methods for solving nonlinear simultaneous equations, Math. Comp. 1965;
        Ramzi et al., SHINE: sharing the inverse estimate from the forward pass for bi-level
        optimization and implicit models, ICLR 2022.

    Example:

    >>> solver = deq_keras.solvers.Broyden()
    >>> half = lambda z: 0.5 * z + 1.0
    >>> solution = solver.solve(half, tf.zeros((3, 4)), return_state=True)
    >>> inverse = solver.apply_inverse(solution.state, tf.ones((3, 4)))
    >>> inverse[0].numpy().round(3)  # that of 1 - 0.5
    array([2., 2., 2., 2.], dtype=float32)
    """

    adapts = True

    def __init__(
        self,
        memory: int = 10,
        damping: float = 1.0,
        growth: float = 2.0,
        guard: float = 1e-4,
        tolerance: float = 1e-5,
        max_steps: int = 1000,
        compact: bool = False,
        stopping: str = "image",
    ):
        super().__init__(tolerance, max_steps, compact, stopping)
        self.memory = positive_int("memory", memory, upper=50)
        self.damping = positive("damping", damping, upper=1.0)
        self.growth = positive("growth", growth)
        if self.growth < 1:
            raise ValueError(f"Expected `growth` >= 1. Received growth={growth!r}.")
        self.guard = positive("guard", guard, zero=True, upper=1.0)

    def init(self, problem, z):
        fz, residual, _ = evaluate_residual(problem, z)
        nothing = tuple(tf.zeros_like(z) for _ in range(self.memory))
        return BroydenState(z, fz, -residual, z, -residual, nothing, nothing)

    def step(self, problem, state):
        g = state.g
        restart = norm(g) > self.growth * norm(state.best_g)
        u, v = self.coefficients((state.u, state.v))
        u = tuple(where(restart, tf.zeros_like(g), term) for term in u)
        base, base_g = where(restart, state.best, state.z), where(restart, state.best_g, g)
        z = base - self.damping * _apply(u, v, base_g)
        fz, residual, noise = evaluate_residual(problem, z)
        g = -residual
        # A difference that is all rounding would make the estimate huge.
        y = g - base_g
        y = where(norm(y) > noise, y, tf.zeros_like(y))
        u, v = self._update(u, v, z - base, y)
        better = restart | (norm(g) < norm(state.best_g))
        best, best_g = where(better, z, state.best), where(better, g, state.best_g)
        return BroydenState(z, fz, g, best, best_g, u, v)

    def _update(self, u, v, s, y):
        """The terms with a new one, such that `H y = s`."""
        # Without the oldest: the new term is made of the estimate that it is added to.
        u, v = u[:-1], v[:-1]
        hy, row = _apply(u, v, y), _apply(v, u, s)
        denominator, size = dot(s, hy), norm(s) * norm(hy)
        used = (tf.abs(denominator) > self.guard * size) & tf.math.is_finite(size)
        quotient = safe_divide(s - hy, column(denominator))
        nothing = tf.zeros_like(s)
        return (where(used, quotient, nothing), *u), (where(used, row, nothing), *v)

    def apply_inverse(self, state, rows, transpose: bool = False):
        """Multiply by the estimate of `(I - J_f)^{-1}`.

        Args:
            state: That of `solve(..., return_state=True)`.
            rows: Tensor `(batch, n)`: the vector of each image, in the order of
                `deq_keras.numerics.rows.to_rows`.
            transpose: Multiply by the transposed estimate.

        Returns:
            Tensor `(batch, n)`.
        """
        left, right = (state.v, state.u) if transpose else (state.u, state.v)
        return _apply(left, right, rows)

    def get_config(self):
        return {
            "memory": self.memory,
            "damping": self.damping,
            "growth": self.growth,
            "guard": self.guard,
            **super().get_config(),
        }


def _apply(u, v, x):
    """`(I + sum_j u_j v_j^T) x`."""
    result = x
    for left, right in zip(u, v, strict=True):
        result += dot(right, x, True) * left
    return result

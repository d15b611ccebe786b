"""Nesterov's accelerated iteration with known constants and adaptive restart."""

from typing import NamedTuple

import keras
import tensorflow as tf

from deq_keras.numerics.rows import column, dot, first, where
from deq_keras.problems.problem import evaluate_residual
from deq_keras.solvers.base import Solver


class NesterovState(NamedTuple):
    """State of `Nesterov`."""

    z: tf.Tensor  # the extrapolated point
    fz: tf.Tensor  # the step taken from it
    residual: tf.Tensor  # their difference, with all its digits where a gradient is known
    previous: tf.Tensor  # the step before
    t: tf.Tensor  # (batch,), Nesterov's sequence


@keras.saving.register_keras_serializable(package="deq_keras")
class Nesterov(Solver):
    """Accelerated gradient descent for `f(u) = u - tau grad E(u)` with `tau <= 1 / L`.

    With `x_k = f(z_k)` and the certified modulus `q = tau mu` (zero if none is known),

        t_{k+1} = (1 - q t_k^2 + sqrt((1 - q t_k^2)^2 + 4 t_k^2)) / 2
        z_{k+1} = x_k + (t_k - 1) (1 - q t_{k+1}) / (t_{k+1} (1 - q)) (x_k - x_{k-1})

    which is FISTA for `q = 0` and attains the linear rate `1 - sqrt(q)` otherwise. An energy is
    usually better conditioned at its minimiser than its certificate says; the momentum of an image
    is therefore dropped whenever it points uphill.

    Args:
        restart: Drop the momentum of an image when `<z_k - x_k, x_k - x_{k-1}> > 0`.
        tolerance: Relative residual at which an image stops.
        max_steps: Largest number of evaluations of the map.
        compact: Let images that have stopped leave the batch; see `Solver`.
        stopping: `"image"`, or `"batch"` for one residual of the whole batch; see `Solver`.

    Reference:
        Chambolle and Pock, An introduction to continuous optimization for imaging, Acta Numerica
        2016, Algorithm 5; O'Donoghue and Candes, Adaptive restart for accelerated gradient
        schemes, 2015, equation (13).

    Example:

    >>> curvature = tf.constant([1.0, 10.0])
    >>> step = lambda u: u - 0.1 * curvature * (u - 3.0)
    >>> solution = deq_keras.solvers.Nesterov().solve(step, tf.zeros((1, 2)))
    >>> solution.value.numpy().round(2)
    array([[3., 3.]], dtype=float32)
    """

    def __init__(
        self,
        restart: bool = True,
        tolerance: float = 1e-5,
        max_steps: int = 1000,
        compact: bool = False,
        stopping: str = "image",
    ):
        super().__init__(tolerance, max_steps, compact, stopping)
        self.restart = bool(restart)

    def init(self, problem, z):
        fz, residual, _ = evaluate_residual(problem, z)
        # `previous = fz` makes the first extrapolation zero.
        return NesterovState(z, fz, residual, fz, tf.ones_like(first(z)))

    def step(self, problem, state):
        known = problem.strong_convexity
        q = tf.cast(0.0 if known is None else known, state.z.dtype)
        q = tf.clip_by_value(q, 0.0, 0.999)
        x, t = state.fz, state.t
        difference = x - state.previous
        if self.restart:
            uphill = dot(state.residual, difference) < 0
            t = tf.where(uphill, tf.ones_like(t), t)
            difference = where(uphill, tf.zeros_like(difference), difference)
        a = 1.0 - q * t**2
        t_next = 0.5 * (a + tf.sqrt(a**2 + 4.0 * t**2))
        momentum = tf.maximum((t - 1.0) / t_next * (1.0 - t_next * q) / (1.0 - q), 0.0)
        z = x + column(momentum) * difference
        fz, residual, _ = evaluate_residual(problem, z)
        return NesterovState(z, fz, residual, x, t_next)

    def get_config(self):
        return {"restart": self.restart, **super().get_config()}

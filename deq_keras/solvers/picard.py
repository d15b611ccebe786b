"""Picard's iteration, damped."""

from typing import NamedTuple

import keras
import tensorflow as tf

from deq_keras.checks import positive
from deq_keras.solvers.base import Solver


class PicardState(NamedTuple):
    """State of `Picard`."""

    z: tf.Tensor
    fz: tf.Tensor


@keras.saving.register_keras_serializable(package="deq_keras")
class Picard(Solver):
    """Damped fixed-point iteration `z <- (1 - damping) z + damping f(z)`.

    Converges linearly if `f` is a contraction, and with `damping < 1` if `f` is nonexpansive
    (Krasnoselskii and Mann). For a gradient step it is gradient descent: the paper's method, and
    the slowest one here. It may also diverge: an image whose residual has grown to `divergence`
    times its smallest one is given up, long before its iterates overflow.

    Args:
        damping: Number in (0, 1]; 1 is the plain iteration.
        divergence: Growth of the residual at which an image is given up, > 1.
        tolerance: Relative residual at which an image stops.
        max_steps: Largest number of evaluations of the map.
        compact: Let images that have stopped leave the batch; see `Solver`.
        stopping: `"image"`, or `"batch"` for one residual of the whole batch; see `Solver`.

    Example:

    >>> half = lambda z: 0.5 * z + 1.0
    >>> deq_keras.solvers.Picard().solve(half, tf.zeros((3, 4))).value[0].numpy().round(3)
    array([2., 2., 2., 2.], dtype=float32)
    """

    def __init__(
        self,
        damping: float = 1.0,
        divergence: float = 1e4,
        tolerance: float = 1e-5,
        max_steps: int = 1000,
        compact: bool = False,
        stopping: str = "image",
    ):
        super().__init__(tolerance, max_steps, compact, stopping)
        self.damping = positive("damping", damping, upper=1.0)
        self.divergence = positive("divergence", divergence)
        if self.divergence <= 1:
            raise ValueError(f"Expected `divergence` > 1. Received divergence={divergence!r}.")

    def init(self, problem, z):
        return PicardState(z, problem.f(z))

    def step(self, problem, state):
        if self.damping == 1.0:
            z = state.fz
        else:
            z = state.z + self.damping * (state.fz - state.z)
        return PicardState(z, problem.f(z))

    def get_config(self):
        return {"damping": self.damping, "divergence": self.divergence, **super().get_config()}

"""Picard's iteration, damped."""

from typing import NamedTuple

import keras
import tensorflow as tf

from deq_keras.registry import positive
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
    the slowest one here.

    Args:
        damping: Number in (0, 1]; 1 is the plain iteration.
        tolerance: Relative residual at which an image stops.
        max_steps: Largest number of evaluations of the map.

    Example:

    >>> half = lambda z: 0.5 * z + 1.0
    >>> deq_keras.solvers.Picard().solve(half, tf.zeros((3, 4))).value  # 2 everywhere
    """

    def __init__(self, damping=1.0, tolerance=1e-5, max_steps=1000):
        super().__init__(tolerance, max_steps)
        self.damping = positive("damping", damping, upper=1.0)

    def init(self, f, z, modulus):
        return PicardState(z, f(z))

    def step(self, f, state, modulus):
        if self.damping == 1.0:
            z = state.fz
        else:
            z = state.z + self.damping * (state.fz - state.z)
        return PicardState(z, f(z))

    def get_config(self):
        return {"damping": self.damping, **super().get_config()}

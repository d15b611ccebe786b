"""Anderson acceleration."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deq_keras.checks import positive, positive_int
from deq_keras.numerics.rows import column, dot, norm, safe_divide, where
from deq_keras.numerics.small_systems import solve_positive_definite, with_newest
from deq_keras.problems.problem import evaluate_residual
from deq_keras.solvers.base import Solver


class AndersonState(NamedTuple):
    """State of `Anderson`."""

    z: tf.Tensor
    fz: tf.Tensor
    residual: tf.Tensor  # f(z) - z, with all its digits where the gradient of an energy is known
    dz: tuple  # differences of iterates, newest first
    dr: tuple  # differences of residuals, newest first
    gram: tf.Tensor  # (batch, memory, memory), inner products of the dr
    age: tf.Tensor  # (batch,), how many differences are valid
    phase: tf.Tensor  # (batch,), steps since the history was dropped


@keras.saving.register_keras_serializable(package="deq_keras")
class Anderson(Solver):
    """Anderson acceleration (type II), safeguarded, for any map.

    With `r_k = f(z_k) - z_k` and the last `memory` differences `dZ`, `dR` of iterates and of
    residuals,

        gamma = argmin ||r_k - dR gamma||
        z_{k+1} = z_k + damping r_k - (dZ + damping dR) gamma

    in every `period`-th step, and `z_{k+1} = z_k + damping r_k` in the others. The plain steps in
    between make the differences more independent, which more than pays for them on ill-conditioned
    problems (there, extrapolating in each step may stall) and costs nothing on others.

    The small system is solved through its Gram matrix, scaled to unit diagonal, with a ridge that
    is relative to it: an absolute one dominates near convergence and turns the acceleration off.
    When the residual of an image grows by more than `growth`, its history is dropped. If the
    map is a step along a known gradient, residuals are made of that: in single precision
    `f(z) - z` has lost its digits when it nears the rounding of `z`.

    The history is a tuple of tensors that are passed on, not an array that is written to, so a step
    costs `memory` inner products and `2 memory` additions of images and no copy.

    Args:
        memory: Number of differences kept, 1 to 20.
        damping: Number in (0, 1].
        ridge: Added to the unit diagonal of the scaled Gram matrix.
        growth: Factor by which the residual may grow from one step to the next.
        period: Extrapolate in every `period`-th step; 1 is the classical method.
        tolerance: Relative residual at which an image stops.
        max_steps: Largest number of evaluations of the map.
        compact: Let images that have stopped leave the batch; see `Solver`.
        stopping: `"image"`, or `"batch"` for one residual of the whole batch; see `Solver`.

    Reference:
        Walker and Ni, Anderson acceleration for fixed-point iterations, SIAM J. Numer. Anal. 2011;
        Banerjee, Suryanarayana and Pask, Periodic Pulay method for robust and efficient convergence
        acceleration of self-consistent field iterations, Chem. Phys. Lett. 2016 (`period`).

    Example:

    >>> f = lambda z: tf.cos(z)
    >>> solution = deq_keras.solvers.Anderson().solve(f, tf.zeros((1, 2)))
    >>> solution.value.numpy().round(3)
    array([[0.739, 0.739]], dtype=float32)
    """

    def __init__(
        self,
        memory: int = 5,
        damping: float = 1.0,
        ridge: float = 1e-6,
        growth: float = 2.0,
        period: int = 2,
        tolerance: float = 1e-5,
        max_steps: int = 1000,
        compact: bool = False,
        stopping: str = "image",
    ):
        super().__init__(tolerance, max_steps, compact, stopping)
        self.memory = positive_int("memory", memory, upper=20)
        self.damping = positive("damping", damping, upper=1.0)
        self.ridge = positive("ridge", ridge, zero=True)
        self.growth = positive("growth", growth)
        self.period = positive_int("period", period)

    def init(self, problem, z):
        nothing = tuple(tf.zeros_like(z) for _ in range(self.memory))
        count = tf.shape(z)[0]
        gram = tf.zeros((count, self.memory, self.memory), z.dtype)
        none = tf.zeros((count,), tf.int32)
        fz, residual, _ = evaluate_residual(problem, z)
        return AndersonState(z, fz, residual, nothing, nothing, gram, none, none)

    def step(self, problem, state):
        residual = state.residual
        plain = state.z + self.damping * residual
        due = (state.age > 0) & ((state.phase + 1) % self.period == 0)
        z = tf.cond(
            tf.reduce_any(due),
            lambda: where(due, self._extrapolate(state, plain), plain),
            lambda: plain,
        )
        fz, new_residual, noise = evaluate_residual(problem, z)
        grew = norm(new_residual) > self.growth * norm(residual)
        age = tf.where(grew, 0, tf.minimum(state.age + 1, self.memory))
        phase = tf.where(grew, 0, state.phase + 1)
        difference = new_residual - residual
        # A difference that is all rounding would be extrapolated without limit; zeros are left out.
        difference = where(norm(difference) > noise, difference, tf.zeros_like(difference))
        dz = (z - state.z, *state.dz[:-1])
        dr = (difference, *state.dr[:-1])
        row = tf.stack([dot(one, dr[0]) for one in dr], axis=-1)
        gram = with_newest(state.gram, row, self.memory)
        return AndersonState(z, fz, new_residual, dz, dr, gram, age, phase)

    def _extrapolate(self, state, z):
        """The plain step `z`, less what the differences explain of it."""
        projections = tf.stack([dot(one, state.residual) for one in state.dr], axis=-1)
        gamma = self._coefficients(state, projections)
        for j, weight in enumerate(tf.split(gamma, self.memory, axis=1)):
            z -= weight * (state.dz[j] + self.damping * state.dr[j])
        return z

    def _coefficients(self, state, projections):
        """Weights `(batch, memory)` of the differences, zero for those that are not valid."""
        # Neither `tf.linalg.diag` nor `tf.eye`: ONNX and OpenVINO lack what they are made of.
        identity = tf.constant(np.eye(self.memory), state.gram.dtype)
        scale = tf.sqrt(tf.reduce_sum(state.gram * identity, axis=-1))
        valid = (column(state.age) > np.arange(self.memory, dtype=np.int32)) & (scale > 0)
        inverse = tf.where(valid, safe_divide(tf.ones_like(scale), scale), tf.zeros_like(scale))
        gram = state.gram * tf.expand_dims(inverse, 2) * tf.expand_dims(inverse, 1)
        added = tf.where(valid, self.ridge * tf.ones_like(scale), tf.ones_like(scale))
        gram += tf.expand_dims(added, 2) * identity
        return inverse * solve_positive_definite(gram, inverse * projections, self.memory)

    def get_config(self):
        return {
            "memory": self.memory,
            "damping": self.damping,
            "ridge": self.ridge,
            "growth": self.growth,
            "period": self.period,
            **super().get_config(),
        }

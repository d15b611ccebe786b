"""Anderson acceleration as it is commonly published, for comparison."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deq_keras.checks import positive, positive_int
from deq_keras.numerics.rows import column, dot, safe_divide, where
from deq_keras.numerics.small_systems import solve_positive_definite, with_newest
from deq_keras.solvers.base import Solver


class PlainAndersonState(NamedTuple):
    """State of `PlainAnderson`."""

    z: tf.Tensor
    fz: tf.Tensor
    iterates: tuple  # the last `memory` of them, newest first
    residuals: tuple  # f(x) - x of each
    gram: tf.Tensor  # (batch, memory, memory), inner products of the residuals
    age: tf.Tensor  # (batch,), how many of them are there


@keras.saving.register_keras_serializable(package="deq_keras")
class PlainAnderson(Solver):
    """Anderson acceleration as published equilibrium models use it. Take `Anderson` instead.

    It is here to reproduce published results. With the last `n = min(k, memory)` iterates
    `x_j` and the rows `g_j = f(x_j) - x_j` of `G`, for each image,

        alpha = argmin 1/2 alpha^T (G G^T + ridge I) alpha    subject to    sum_j alpha_j = 1
        x_{k+1} = sum_j alpha_j (damping f(x_j) + (1 - damping) x_j)

    from `x_0` as given and `x_1 = f(x_0)`. There is no scaling, restart or safeguard, and the last
    iterate is returned, whether it has converged or is the best one or not. Published codes mostly
    stop by one residual of the batch: `stopping="batch"`.

    What goes wrong: the ridge is in the units of `f` squared. As soon as `||g||^2` is well below
    it, all weights become equal and the acceleration is gone, so steps depend on the scale of the
    problem; right-hand sides of adjoint equations, which are tiny, suffer most. `Anderson` makes
    its ridge relative, drops a history that misleads and keeps the best iterate.

    Args:
        memory: Number of iterates kept, 1 to 20.
        damping: Number in (0, 1]; often called beta.
        ridge: Added to the diagonal of `G G^T` as it is, > 0.
        tolerance: Relative residual at which an image, or the batch, stops. It is never below a
            unit of rounding.
        max_steps: Largest number of evaluations of the map, `f(x_0)` included.
        compact: Let images that have stopped leave the batch; see `Solver`.
        stopping: `"image"`, or `"batch"` for one residual of the whole batch; see `Solver`.

    Reference:
        Walker and Ni, Anderson acceleration for fixed-point iterations, SIAM J. Numer. Anal. 2011;
        Riccio, Ehrhardt and Benning, Regularization of inverse problems: deep equilibrium models
        versus bilevel learning, Numerical Algebra, Control and Optimization 2025.

    Example:

    >>> solver = deq_keras.solvers.PlainAnderson(stopping="batch")
    >>> solution = solver.solve(lambda z: tf.cos(z), tf.zeros((1, 2)))
    >>> solution.value.numpy().round(2)
    array([[0.74, 0.74]], dtype=float32)
    """

    keeps_best = False
    adapts = True

    def __init__(
        self,
        memory: int = 5,
        damping: float = 1.0,
        ridge: float = 1e-4,
        tolerance: float = 1e-3,
        max_steps: int = 50,
        compact: bool = False,
        stopping: str = "image",
    ):
        super().__init__(tolerance, max_steps, compact, stopping)
        self.memory = positive_int("memory", memory, upper=20)
        self.damping = positive("damping", damping, upper=1.0)
        self.ridge = positive("ridge", ridge)

    def init(self, problem, z):
        count = tf.shape(z)[0]
        nothing = (tf.zeros_like(z),) * self.memory
        gram = tf.zeros((count, self.memory, self.memory), z.dtype)
        empty = PlainAndersonState(z, z, nothing, nothing, gram, tf.zeros((count,), tf.int32))
        return self._remember(empty, z, problem.f(z))

    def step(self, problem, state):
        z = tf.zeros_like(state.z)
        pairs = zip(state.iterates, state.residuals, strict=True)
        weights = self.coefficients(self._weights(state))
        for weight, (x, g) in zip(weights, pairs, strict=True):
            z += weight * (x + self.damping * g)
        z = where(state.age > 1, z, state.fz)  # the first step is not damped
        return self._remember(state, z, problem.f(z))

    def _remember(self, state, z, fz):
        """The state at `z`, with this pair in place of the oldest one."""
        residuals = (fz - z, *state.residuals[:-1])
        row = tf.stack([dot(one, residuals[0]) for one in residuals], axis=-1)
        return PlainAndersonState(
            z,
            fz,
            (z, *state.iterates[:-1]),
            residuals,
            with_newest(state.gram, row, self.memory),
            tf.minimum(state.age + 1, self.memory),
        )

    def _weights(self, state):
        """The constrained minimiser `w / sum(w)`, `(G G^T + ridge I) w = 1`; a column for each."""
        identity = tf.constant(np.eye(self.memory), state.gram.dtype)
        gram = state.gram + self.ridge * identity
        # The solver of the system wants a diagonal of one; this changes its digits alone.
        inverse = tf.math.rsqrt(tf.reduce_sum(gram * identity, axis=-1))
        gram *= tf.expand_dims(inverse, 2) * tf.expand_dims(inverse, 1)
        # What is not there yet has the residual zero: with zero on the right it stays out.
        valid = column(state.age) > np.arange(self.memory, dtype=np.int32)
        right = tf.where(valid, inverse, tf.zeros_like(inverse))
        weights = inverse * solve_positive_definite(gram, right, self.memory)
        weights = safe_divide(weights, tf.reduce_sum(weights, axis=1, keepdims=True))
        return tf.split(weights, self.memory, axis=1)

    def get_config(self):
        return {
            "memory": self.memory,
            "damping": self.damping,
            "ridge": self.ridge,
            **super().get_config(),
        }

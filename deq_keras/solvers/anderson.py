"""Anderson acceleration."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deq_keras.registry import positive, positive_int
from deq_keras.rows import dot, norm, safe_divide
from deq_keras.solvers.base import Solver


class AndersonState(NamedTuple):
    """State of `Anderson`."""

    z: tf.Tensor
    fz: tf.Tensor
    dz: tuple  # differences of iterates, newest first
    dr: tuple  # differences of residuals, newest first
    gram: tf.Tensor  # (batch, memory, memory), inner products of the dr
    age: tf.Tensor  # (batch,), how many differences are valid


@keras.saving.register_keras_serializable(package="deq_keras")
class Anderson(Solver):
    """Anderson acceleration (type II), safeguarded, for any map.

    With `r_k = f(z_k) - z_k` and the last `memory` differences `dZ`, `dR` of iterates and of
    residuals,

        gamma = argmin ||r_k - dR gamma||
        z_{k+1} = z_k + damping r_k - (dZ + damping dR) gamma

    The small system is solved through its Gram matrix, scaled to unit diagonal, with a ridge that
    is relative to it: an absolute one dominates near convergence and turns the acceleration off.
    When the residual of an image grows by more than `growth`, its history is dropped.

    The history is a tuple of tensors that are passed on, not an array that is written to, so a step
    costs `memory` inner products and `2 memory` additions of images and no copy.

    Args:
        memory: Number of differences kept, 1 to 20.
        damping: Number in (0, 1].
        ridge: Added to the unit diagonal of the scaled Gram matrix.
        growth: Factor by which the residual may grow from one step to the next.
        tolerance: Relative residual at which an image stops.
        max_steps: Largest number of evaluations of the map.

    Reference:
        Walker and Ni, Anderson acceleration for fixed-point iterations, SIAM J. Numer. Anal. 2011.
    """

    def __init__(
        self, memory=5, damping=1.0, ridge=1e-6, growth=2.0, tolerance=1e-5, max_steps=1000
    ):
        super().__init__(tolerance, max_steps)
        self.memory = positive_int("memory", memory)
        if self.memory > 20:
            raise ValueError(f"Expected 1 <= `memory` <= 20. Received memory={memory!r}.")
        self.damping = positive("damping", damping, upper=1.0)
        self.ridge = positive("ridge", ridge, zero=True)
        self.growth = positive("growth", growth)

    def init(self, f, z, modulus):
        nothing = tuple(tf.zeros_like(z) for _ in range(self.memory))
        count = tf.shape(z)[0]
        gram = tf.zeros((count, self.memory, self.memory), z.dtype)
        return AndersonState(z, f(z), nothing, nothing, gram, tf.zeros((count,), tf.int32))

    def step(self, f, state, modulus):
        residual = state.fz - state.z
        projections = tf.stack([dot(column, residual) for column in state.dr], axis=-1)
        gamma = self._coefficients(state, projections)
        z = state.z + self.damping * residual
        for j in range(self.memory):
            z -= gamma[:, j, None] * (state.dz[j] + self.damping * state.dr[j])
        fz = f(z)
        new_residual = fz - z
        grew = norm(new_residual) > self.growth * norm(residual)
        age = tf.where(grew, 0, tf.minimum(state.age + 1, self.memory))
        dz = (z - state.z, *state.dz[:-1])
        dr = (new_residual - residual, *state.dr[:-1])
        row = tf.stack([dot(column, dr[0]) for column in dr], axis=-1)
        kept = state.gram[:, :-1, :-1]
        gram = tf.concat(
            [row[:, None, :], tf.concat([tf.expand_dims(row[:, 1:], 2), kept], axis=2)], axis=1
        )
        return AndersonState(z, fz, dz, dr, gram, age)

    def _coefficients(self, state, projections):
        """Weights `(batch, memory)` of the differences, zero for those that are not valid."""
        scale = tf.sqrt(tf.linalg.diag_part(state.gram))
        valid = (tf.range(self.memory)[None] < state.age[:, None]) & (scale > 0)
        inverse = tf.where(valid, safe_divide(tf.ones_like(scale), scale), tf.zeros_like(scale))
        gram = state.gram * inverse[:, :, None] * inverse[:, None, :]
        gram += tf.linalg.diag(
            tf.where(valid, self.ridge * tf.ones_like(scale), tf.ones_like(scale))
        )
        return inverse * solve_positive_definite(gram, inverse * projections, self.memory)

    def get_config(self):
        return {
            "memory": self.memory,
            "damping": self.damping,
            "ridge": self.ridge,
            "growth": self.growth,
            **super().get_config(),
        }


def solve_positive_definite(matrix, right, size):
    """Solve small systems `(batch, size, size) x = (batch, size)` by Gauss-Jordan elimination.

    In elementary operations, which LiteRT and ONNX have; `tf.linalg.solve` they have not.
    A pivot that rounding made nonpositive takes its unknown out of the system.
    """
    augmented = tf.concat([matrix, right[..., None]], axis=-1)
    eps = np.finfo(matrix.dtype.as_numpy_dtype).eps
    for i in range(size):
        pivot = augmented[:, i, i]
        usable = pivot > eps
        row = tf.where(usable[:, None], augmented[:, i, :], tf.zeros_like(augmented[:, i, :]))
        row /= tf.where(usable, pivot, tf.ones_like(pivot))[:, None]
        column = augmented[:, :, i] * (1.0 - tf.one_hot(i, size, dtype=matrix.dtype))
        augmented -= column[:, :, None] * row[:, None, :]
        here = tf.one_hot(i, size, dtype=matrix.dtype)[None, :, None]
        augmented = augmented * (1.0 - here) + here * row[:, None, :]
    return augmented[:, :, -1]

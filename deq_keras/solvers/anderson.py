"""Anderson acceleration."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deq_keras.checks import positive, positive_int
from deq_keras.numerics.rows import column, dot, norm, safe_divide, where
from deq_keras.numerics.small_systems import solve_positive_definite, with_newest
from deq_keras.problems.problem import evaluate_residual
from deq_keras.solvers import carried as carrying
from deq_keras.solvers.base import Solver

_SHORTEST = 0.1  # step along the preconditioned residual


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
    length: tf.Tensor  # (batch,), of the step along M r
    carried: tuple  # the preconditioner `M`, a `Carried`, or ()
    origin: tuple  # the first point, in a tuple if there is an `M`


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

    If the problem has a preconditioner `M`, near `(I - J)^{-1}`, residuals are multiplied by it,

        z_{k+1} = z_k - dZ gamma + length M (r_k - dR gamma),

    with the length, in [0.1, `damping`], that explains the newest pair best:
    `argmin ||dz + length M dr||`. `M` is that of the first point, and computed anew after 8, 16,
    32 … evaluations, for an evaluation and a half; in each step it takes a Fourier transform and
    its inverse. For sharp learned experts a solve then takes a third of the evaluations. An image
    for which it does not help starts again without it.

    The history is a tuple of tensors that are passed on, not an array that is written to, so a step
    costs `memory` inner products and `2 memory` additions of images and no copy.

    Args:
        memory: Number of differences kept, 1 to 20.
        damping: Number in (0, 1].
        ridge: Added to the unit diagonal of the scaled Gram matrix.
        growth: Factor by which the residual may grow from one step to the next.
        period: Extrapolate in every `period`-th step; 1 is the classical method, and what is done
            while a preconditioner is used.
        tolerance: Relative residual at which an image stops.
        max_steps: Largest number of evaluations of the map.
        compact: Let images that have stopped leave the batch; see `Solver`.
        stopping: `"image"`, or `"batch"` for one residual of the whole batch; see `Solver`.
        precondition: Whether the `deq_keras.problems.Preconditioner` of the problem is used, if it
            has one; `"auto"`: if it says that it is cheap.

    Raises:
        ValueError: In `solve`, if `compact=True` and the preconditioner of the problem hides its
            tensors.

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

    adapts = True

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
        precondition: bool | str = "auto",
    ):
        super().__init__(tolerance, max_steps, compact, stopping)
        self.precondition = carrying.check_option(precondition)
        self.memory = positive_int("memory", memory, upper=20)
        self.damping = positive("damping", damping, upper=1.0)
        self.ridge = positive("ridge", ridge, zero=True)
        self.growth = positive("growth", growth)
        self.period = positive_int("period", period)

    def preconditions(self, problem):
        return carrying.wanted(self.precondition, problem)

    def init(self, problem, z):
        nothing = tuple(tf.zeros_like(z) for _ in range(self.memory))
        count = tf.shape(z)[0]
        gram = tf.zeros((count, self.memory, self.memory), z.dtype)
        none = tf.zeros((count,), tf.int32)
        fz, residual, _ = evaluate_residual(problem, z)
        carried = origin = ()
        if self.preconditions(problem):
            carried = carrying.start(problem, z, residual, self.memory)
            origin = (z,)
        length = self.damping * tf.ones_like(norm(residual))
        return AndersonState(
            z, fz, residual, nothing, nothing, gram, none, none, length, carried, origin
        )

    def step(self, problem, state):
        carried, residual = state.carried, state.residual
        due = (state.phase + 1) % self.period == 0
        due = (state.age > 0) & (due | carried.trusted if carried else due)
        z = tf.cond(
            tf.reduce_any(due),
            lambda: self._extrapolated(state, due),
            lambda: self._stepped(state, ()),
        )
        again = tf.zeros_like(due)
        if carried:  # from where it led to, the plain iteration may take for ever
            again = carried.failed
            z = where(again, state.origin[0], z)
        fz, new_residual, noise = evaluate_residual(problem, z)
        grew = again | (norm(new_residual) > self.growth * norm(residual))
        age = tf.where(grew, 0, tf.minimum(state.age + 1, self.memory))
        phase = tf.where(grew, 0, state.phase + 1)
        difference = new_residual - residual
        # A difference that is all rounding would be extrapolated without limit; zeros are left out.
        known = norm(difference) > noise
        difference = where(known, difference, tf.zeros_like(difference))
        dz = (z - state.z, *state.dz[:-1])
        dr = (difference, *state.dr[:-1])
        row = tf.stack([dot(one, dr[0]) for one in dr], axis=-1)
        gram = with_newest(state.gram, row, self.memory)
        length = state.length
        if carried:
            carried = carrying.update(problem, carried, z, new_residual, dr, known)
            length = self._next_length(dz[0], carried.products[0], length)
            length = self.coefficients(length)
        return AndersonState(
            z, fz, new_residual, dz, dr, gram, age, phase, length, carried, state.origin
        )

    def _extrapolated(self, state, due):
        """The step, less what the differences explain of it in the images that are due."""
        projections = tf.stack([dot(one, state.residual) for one in state.dr], axis=-1)
        gamma = self.coefficients(self._mixing(state, projections))
        gamma = where(due, gamma, tf.zeros_like(gamma))
        return self._stepped(state, tf.split(gamma, self.memory, axis=1))

    def _stepped(self, state, weights):
        z, rest, carried = state.z, state.residual, state.carried
        for weight, dz, dr in zip(weights, state.dz, state.dr, strict=False):  # or there are none
            z -= weight * dz
            rest -= weight * dr
        rest *= self.damping
        if carried:
            product = column(state.length) * carrying.combined(carried, weights)
            rest = where(carried.trusted, product, rest)
        return z + rest

    def _next_length(self, dz, product, last):
        """The length that explains the newest pair best, `product = M dr`."""
        square = dot(product, product)
        found = tf.clip_by_value(-safe_divide(dot(dz, product), square), _SHORTEST, 1.0)
        return tf.where(square > 0, tf.minimum(found, self.damping), last)

    def _mixing(self, state, projections):
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
            "precondition": self.precondition,
        }

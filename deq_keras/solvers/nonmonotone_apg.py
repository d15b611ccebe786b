"""Nonmonotone accelerated proximal gradient method for energies that need not be convex."""

from typing import NamedTuple

import keras
import tensorflow as tf

from deq_keras.checks import positive
from deq_keras.numerics.rows import column, dot, safe_divide, where
from deq_keras.problems.problem import evaluate, step_length
from deq_keras.solvers.base import Solver
from deq_keras.solvers.rounding import Rounding

_SUFFICIENT = 1e-4
_SHRINK = 0.5
_BLUR = 256.0  # an excess over the average below this, in estimates of the rounding, is ignored


class NonmonotoneAPGState(NamedTuple):
    """State of `NonmonotoneAPG`. Scalars of an image have shape `(batch,)`."""

    z: tf.Tensor  # where the gradient was evaluated: an extrapolated point, or x
    fz: tf.Tensor
    gradient: tf.Tensor  # of the smooth part F
    length: tf.Tensor  # of the next proximal step, from z
    shortest: tf.Tensor  # lower bound of initial lengths
    monitor: tf.Tensor  # bool: z is x, after the step from the extrapolated point failed
    x: tf.Tensor  # the last accepted point
    accelerated: tf.Tensor  # the last step from an extrapolated point
    accelerated_energy: tf.Tensor
    t: tf.Tensor  # Nesterov's sequence
    average: tf.Tensor  # of past energies: what a new one is compared with
    weight: tf.Tensor  # of `average`
    rounding: Rounding


@keras.saving.register_keras_serializable(package="deq_keras")
class NonmonotoneAPG(Solver):
    """Li and Lin's nonmonotone accelerated proximal gradient method, for `E = F + G`.

    `F` is smooth and `G` has a proximal map; neither need be convex. From an extrapolated point `y`
    the step `a = prox_{length G}(y - length grad F(y))` is accepted if it lies sufficiently below a
    weighted average of past energies (with `averaging = 0`: below the last one). Otherwise the
    plain step from `x` is tried as well, with a line search, and the better one of both is taken.
    Lengths start from those of Barzilai and Borwein. (The paper also searches along the step from
    `y` before it turns to `x`; that search would be given up by most images.)

    A step evaluates `grad F` once, at `z` of the state, and `E` once; each image accepts, turns to
    the plain step or shrinks its length on its own. Residuals are those of the map at `z`, whose
    step is fixed, computed from the same gradient. Without `G` the proximal map is the identity.

    Args:
        averaging: Number in [0, 1): weight of the past in the average of energies.
        max_length: Upper bound of the initial length, in units of the map's own step, >= 1; this
            step is the lower bound.
        restart: Drop the momentum of an image when it points uphill, as `Nesterov` does.
        noise: First estimate of the rounding of an energy, in units of the largest `|E|` seen times
            the machine epsilon. It is raised when a search fails.
        tolerance: Relative residual at which an image stops.
        max_steps: Largest number of evaluations of the map.
        compact: Let images that have stopped leave the batch; see `Solver`.
        stopping: `"image"`, or `"batch"` for one residual of the whole batch; see `Solver`.

    Raises:
        ValueError: In `solve`, if the energy has a proximal map but no gradient.

    Reference:
        Li and Lin, Accelerated proximal gradient methods for nonconvex programming, NeurIPS 2015,
        algorithm 2 and its form with line search in the supplement; O'Donoghue and Candes, Adaptive
        restart for accelerated gradient schemes, 2015.

    Example:

    >>> b = tf.constant([[-1.0, 2.0]])  # and its nearest point without negative entries
    >>> step = deq_keras.solvers.Step(
    ...     energy=lambda u: 0.5 * tf.reduce_sum((u - b) ** 2, axis=1),
    ...     length=0.5,
    ...     gradient=lambda u: u - b,
    ...     proximal=lambda u, length: tf.nn.relu(u))
    >>> problem = deq_keras.solvers.Problem(
    ...     lambda u: tf.nn.relu(u - 0.5 * (u - b)), tf.zeros_like(b), step=step)
    >>> deq_keras.solvers.NonmonotoneAPG().solve(problem).value.numpy().round(3)
    array([[0., 2.]], dtype=float32)
    """

    needs_energy = True
    adapts = True

    def __init__(
        self,
        averaging: float = 0.8,
        max_length: float = 1e4,
        restart: bool = True,
        noise: float = 16.0,
        tolerance: float = 1e-5,
        max_steps: int = 1000,
        compact: bool = False,
        stopping: str = "image",
    ):
        super().__init__(tolerance, max_steps, compact, stopping)
        self.averaging = positive("averaging", averaging, zero=True)
        if self.averaging >= 1:
            raise ValueError(f"Expected 0 <= `averaging` < 1. Received averaging={averaging!r}.")
        self.max_length = positive("max_length", max_length)
        if self.max_length < 1:
            raise ValueError(f"Expected `max_length` >= 1. Received max_length={max_length!r}.")
        self.restart = bool(restart)
        self.noise = positive("noise", noise)

    def init(self, problem, z):
        fz, gradient = evaluate(problem, z)
        energy, step = problem.step.energy(z), step_length(problem, z)
        no, one = tf.zeros_like(step, tf.bool), tf.ones_like(step)
        rounding = Rounding.start(energy, self.noise)
        return NonmonotoneAPGState(
            z, fz, gradient, step, step, no, z, z, energy, one, energy, one, rounding
        )

    def step(self, problem, state):
        proximal, step = problem.step.proximal, step_length(problem, state.z)
        candidate = state.z - column(state.length) * state.gradient
        if proximal is not None:
            candidate = proximal(candidate, state.length)
        energy = problem.step.energy(candidate)
        moved = candidate - state.z
        decrease, noise = dot(moved, moved) / state.length, state.rounding.level()
        limit = state.average + noise - 0.5 * _SUFFICIENT * decrease
        accepted = tf.math.is_finite(energy) & (energy <= limit)
        # The map's own step fails if it is too long, or, by little, for rounding.
        failed = ~accepted & (state.length <= state.shortest)
        shortest = tf.where(failed, _SHRINK * state.length, state.shortest)
        blurred = failed & (energy - state.average <= _BLUR * noise)

        # Of an accelerated and a plain step the better one is taken.
        plain = state.monitor
        prefer = plain & (state.accelerated_energy < energy)
        accelerated = where(plain, state.accelerated, candidate)
        accelerated_energy = tf.where(plain, state.accelerated_energy, energy)
        x = where(prefer, state.accelerated, candidate)
        energy = tf.where(prefer, state.accelerated_energy, energy)

        t = 0.5 * (1.0 + tf.sqrt(1.0 + 4.0 * state.t**2))
        extrapolated = (
            x
            + column(state.t / t) * (accelerated - x)
            + column((state.t - 1.0) / t) * (x - state.x)
        )
        # Momentum that points uphill is dropped.
        uphill = self.restart & (dot(state.z - x, x - state.x) > 0)
        t = tf.where(uphill, tf.ones_like(t), t)
        z = where(accepted, where(uphill, x, extrapolated), state.x)
        weight = self.averaging * state.weight + 1.0
        average = (self.averaging * state.weight * state.average + energy) / weight
        fz, gradient = evaluate(problem, z)
        length = self._length(
            state, shortest, self.max_length * step, z - state.z, gradient - state.gradient
        )
        # Where energies differ by rounding alone, only the map's own step is safe.
        length = self.coefficients(tf.where(decrease > noise, length, shortest))
        length = tf.where(accepted, length, tf.minimum(length, _SHRINK * state.length))
        return NonmonotoneAPGState(
            z,
            fz,
            gradient,
            length,
            shortest,
            ~accepted,
            where(accepted, x, state.x),
            accelerated,
            accelerated_energy,
            tf.where(accepted, t, state.t),
            tf.where(accepted, average, state.average),
            tf.where(accepted, weight, state.weight),
            state.rounding.update(tf.where(accepted, energy, state.average), blurred),
        )

    def _length(self, state, shortest, longest, s, y):
        """Barzilai and Borwein's, safeguarded."""
        curvature = dot(s, y)
        length = safe_divide(curvature, dot(y, y))
        usable = (curvature > 0) & tf.math.is_finite(length)
        length = tf.where(usable, length, state.length)
        return tf.clip_by_value(length, shortest, longest)

    def _check(self, problem, compact=None):
        problem = super()._check(problem, compact)
        if problem.step.proximal is not None and problem.step.gradient is None:
            raise ValueError(
                "NonmonotoneAPG expected the `gradient` of the smooth part of an energy with a "
                "proximal map. Received None. Pass Step(energy, length, gradient, proximal)."
            )
        return problem

    def get_config(self):
        return {
            "averaging": self.averaging,
            "max_length": self.max_length,
            "restart": self.restart,
            "noise": self.noise,
            **super().get_config(),
        }

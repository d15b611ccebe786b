"""Limited-memory BFGS for smooth energies, with a line search for each image."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deq_keras.checks import positive, positive_int
from deq_keras.numerics.rows import column, dot, first, safe_divide, where
from deq_keras.problems.problem import certified_convex, evaluate, step_length
from deq_keras.solvers import carried, line_search, metric
from deq_keras.solvers.base import Solver
from deq_keras.solvers.rounding import Rounding

_TRIALS = 6  # after so many rejected trials a search starts again along the gradient
_RESTARTS = 3  # so often; after that the length shrinks until a trial is accepted


class LBFGSState(NamedTuple):
    """State of `LBFGS`."""

    z: tf.Tensor  # the last accepted point
    fz: tf.Tensor
    residual: tf.Tensor  # f(z) - z, from the gradient
    gradient: tf.Tensor
    energy: tf.Tensor  # (batch,)
    direction: tf.Tensor
    slope: tf.Tensor  # (batch,), <gradient, direction> < 0
    length: tf.Tensor  # (batch,), of the next trial along `direction`
    trials: tf.Tensor  # (batch,), rejected since a point was accepted
    rounding: Rounding
    s: tuple  # differences of points, newest first
    y: tuple  # differences of gradients, newest first
    rho: tf.Tensor  # (batch, memory), 1 / <s, y>, and zero where a pair is not used
    scale: tf.Tensor  # (batch,), a multiple of the identity as initial inverse Hessian
    metric: tuple  # a `Metric` as the other one, or ()


@keras.saving.register_keras_serializable(package="deq_keras")
class LBFGS(Solver):
    """Limited-memory BFGS for `f(u) = u - tau grad E(u)` with a smooth energy `E`.

    A step is one trial: `E` and its gradient, `(u - f(u)) / tau` unless the step has it, are
    evaluated once at `z + length * direction`. Each image then accepts its point and computes a new
    direction by the two-loop recursion, or shrinks its own length by safeguarded quadratic
    interpolation. No image waits for the line search of another one, and `Solution.steps` counts
    evaluations, not iterations.

    A trial is accepted if it satisfies Armijo's condition or, where the energies differ by no more
    than their rounding, the approximate Wolfe condition, which looks at slopes: near a minimiser
    energies lose all their digits long before gradients do. If the energy is certified to be
    convex, by its kind or by a positive modulus that its present weights give it (of a weakly
    convex prior), it is not evaluated at all: a trial whose slope is not far on the rise
    is accepted, as `E(z + t d) - E(z) <= t <grad E(z + t d), d>`. Pairs whose curvature
    is not safely positive are left out, so the energy need not be convex; a pair that is left
    out, and a trial that is rejected, takes a place in the memory.

    The initial inverse Hessian of the recursion is a multiple of the identity, or of the problem's
    preconditioner, if it has one: for each image that which explains its last pairs the better.
    A `GradientStep` on an energy has one where it knows spectra, and with it a solve takes up to
    half of the evaluations less. Computing it takes an evaluation and a half, at the start and
    after 8, 16, 32 … of them; using it a Fourier transform and its inverse in each step. The first
    trial is the map's own step, preconditioned.

    Args:
        memory: Number of pairs kept, 1 to 20.
        caution: A pair is used if `<s, y> >= caution ||s||^2 / tau`.
        noise: First estimate of the rounding of an energy, in units of the largest `|E|` seen times
            the machine epsilon. It is raised when a search fails.
        tolerance: Relative residual at which an image stops.
        max_steps: Largest number of evaluations of the map.
        compact: Let images that have stopped leave the batch; see `Solver`.
        stopping: `"image"`, or `"batch"` for one residual of the whole batch; see `Solver`.
        precondition: Whether the `deq_keras.problems.Preconditioner` of the problem is used, if it
            has one; `"auto"`: if it says that it is cheap.

    Raises:
        ValueError: In `solve`, if the energy has a proximal term: it is not smooth; or if
            `compact=True` and the preconditioner of the problem hides its tensors.

    Reference:
        Nocedal and Wright, Numerical Optimization, 2006, algorithm 7.4; Hager and Zhang, A new
        conjugate gradient method with guaranteed descent, SIAM J. Optim. 2005, (approximate Wolfe
        condition); Li and Fukushima, On the global convergence of the BFGS method for nonconvex
        unconstrained optimization problems, SIAM J. Optim. 2001 (cautious updates).

    Example:

    >>> curvature = tf.constant([1.0, 10.0])
    >>> energy = lambda u: 0.5 * tf.reduce_sum(curvature * (u - 3.0) ** 2, axis=1)
    >>> problem = deq_keras.solvers.Problem(
    ...     lambda u: u - 0.1 * curvature * (u - 3.0),
    ...     initial_value=tf.zeros((1, 2)),
    ...     step=deq_keras.solvers.Step(energy, length=0.1))
    >>> deq_keras.solvers.LBFGS().solve(problem).value.numpy().round(2)
    array([[3., 3.]], dtype=float32)
    """

    needs_energy = True
    adapts = True

    def __init__(
        self,
        memory: int = 5,
        caution: float = 1e-6,
        noise: float = 16.0,
        tolerance: float = 1e-5,
        max_steps: int = 1000,
        compact: bool = False,
        stopping: str = "image",
        precondition: bool | str = "auto",
    ):
        super().__init__(tolerance, max_steps, compact, stopping)
        self.precondition = carried.check_option(precondition)
        self.memory = positive_int("memory", memory, upper=20)
        self.caution = positive("caution", caution, zero=True)
        self.noise = positive("noise", noise)

    def preconditions(self, problem):
        return carried.wanted(self.precondition, problem)

    def init(self, problem, z):
        fz, gradient = evaluate(problem, z)
        energy, step = self._energy(problem, z), step_length(problem, z)
        direction, found = -column(step) * gradient, ()
        if self.preconditions(problem):
            found = metric.start(problem, z, gradient, self.memory)
            direction = metric.apply(found, direction, ())
        nothing = tuple(tf.zeros_like(z) for _ in range(self.memory))
        return LBFGSState(
            z,
            fz,
            -column(step) * gradient,
            gradient,
            energy,
            direction,
            dot(gradient, direction),
            tf.ones_like(step),
            tf.zeros_like(step, tf.int32),
            Rounding.start(energy, self.noise),
            nothing,
            nothing,
            tf.zeros((tf.shape(z)[0], self.memory), z.dtype),
            step,
            found,
        )

    def step(self, problem, state):
        trial = state.z + column(state.length) * state.direction
        fz, gradient = evaluate(problem, trial)
        energy, slope = self._energy(problem, trial), dot(gradient, state.direction)
        search = energy - state.energy, state.length, state.slope, slope
        level = state.rounding.level()
        accepted = line_search.judge(certified_convex(problem), energy, *search, level)

        s, y, rho, scale = self._remember(
            problem, state, accepted, trial - state.z, gradient - state.gradient
        )
        z = where(accepted, trial, state.z)
        fz = where(accepted, fz, state.fz)
        gradient = where(accepted, gradient, state.gradient)
        found = state.metric
        if found:
            found = metric.update(problem, found, z, gradient, s[0], y, first(rho) > 0)
        length = tf.where(accepted, tf.ones_like(scale), line_search.shorter(*search))
        s, y, rho, scale, found, length = self.coefficients((s, y, rho, scale, found, length))
        direction = _two_loops(gradient, s, y, rho, scale, found)
        direction = where(accepted, direction, state.direction)
        trials = tf.where(accepted, 0, state.trials + 1)

        # Rounding may spoil a direction or the energies: start again, along the gradient.
        failed = ~accepted & (trials % _TRIALS == 0) & (trials <= _RESTARTS * _TRIALS)
        step = step_length(problem, z)
        steepest = -column(step) * gradient
        slope = dot(gradient, direction)
        restart = failed | ~(slope < 0)
        direction = where(restart, steepest, direction)
        slope = tf.where(restart, dot(gradient, steepest), slope)
        length = tf.where(restart, tf.ones_like(length), length)
        rho = where(restart, tf.zeros_like(rho), rho)
        scale = tf.where(restart, step, scale)
        if found:
            found = found._replace(scale=tf.where(restart, step, found.scale))
        energy = tf.where(accepted, energy, state.energy)
        rounding = state.rounding.update(energy, failed)
        return LBFGSState(
            z,
            fz,
            -column(step) * gradient,
            gradient,
            energy,
            direction,
            slope,
            length,
            trials,
            rounding,
            s,
            y,
            rho,
            scale,
            found,
        )

    def _energy(self, problem, z):
        convex, nothing = certified_convex(problem), tf.zeros_like(first(z))
        if not tf.is_tensor(convex):
            return nothing if convex else problem.step.energy(z)
        needed = tf.reduce_any(~convex)
        energy = tf.cond(needed, lambda: problem.step.energy(z), lambda: nothing)
        return tf.where(convex, nothing, energy)

    def _remember(self, problem, state, accepted, s, y):
        """The memory with a new pair. A pair that is not used must not hold NaNs."""
        curvature, size = dot(s, y), dot(s, s)
        used = accepted & (curvature > self.caution * size / step_length(problem, s))
        s, y = where(used, s, tf.zeros_like(s)), where(used, y, tf.zeros_like(y))
        curvature = tf.where(used, curvature, tf.zeros_like(curvature))
        rho = safe_divide(tf.ones_like(curvature), curvature)
        scale = tf.where(used, safe_divide(curvature, dot(y, y)), state.scale)
        kept = tf.slice(state.rho, *np.array([(0, 0), (-1, self.memory - 1)], np.int32))
        rho = tf.concat([column(rho), kept], axis=1)
        return (s, *state.s[:-1]), (y, *state.y[:-1]), rho, scale

    def _check(self, problem, compact=None):
        problem = super()._check(problem, compact)
        if problem.step.proximal is not None:
            raise ValueError(
                "LBFGS expected a smooth energy. Received one with a proximal map. Use "
                "deq_keras.solvers.NonmonotoneAPG."
            )
        return problem

    def get_config(self):
        return {
            "memory": self.memory,
            "caution": self.caution,
            "noise": self.noise,
            **super().get_config(),
            "precondition": self.precondition,
        }


def _two_loops(gradient, s, y, rho, scale, found=()):
    """Minus the inverse Hessian's estimate times the gradient."""
    q, weights, rhos = -gradient, [], tf.split(rho, len(s), axis=1)
    for i in range(len(s)):
        weights.append(rhos[i] * dot(s[i], q, True))
        q -= weights[i] * y[i]
    q = metric.apply(found, column(scale) * q, weights)
    for i in reversed(range(len(s))):
        q += (weights[i] - rhos[i] * dot(y[i], q, True)) * s[i]
    return q

"""Inexact Newton-Krylov methods, for maps that are far from contractions and for energies."""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deq_keras import linear_solvers
from deq_keras.checks import positive, positive_int
from deq_keras.config import serialise
from deq_keras.numerics.rows import column, dot, first, norm, safe_divide, scaled, where
from deq_keras.problems.linearized import has_smooth_energy, is_symmetric, linearized
from deq_keras.problems.problem import evaluate_residual, step_length
from deq_keras.solvers import line_search, newton_control
from deq_keras.solvers.base import Solver
from deq_keras.solvers.loop import Allowance
from deq_keras.solvers.rounding import Rounding

_TRIALS = 8  # after so many rejected trials a search starts again along the map's own step
_NOISE = 16.0  # first estimate of the rounding of an energy; see `LBFGS`


class NewtonKrylovState(NamedTuple):
    """State of `NewtonKrylov`. Scalars of an image have shape `(batch,)`."""

    z: tf.Tensor  # the last accepted point
    fz: tf.Tensor
    residual: tf.Tensor  # f(z) - z, from the gradient where that is known
    direction: tf.Tensor  # of the trials
    length: tf.Tensor  # of the next trial along it; 0 at the start, where there is no direction
    trials: tf.Tensor  # rejected since a point was accepted
    forcing: tf.Tensor  # relative residual that the direction is computed to
    shift: tf.Tensor  # of the linear system; of an energy, what stands for negative curvature
    reference: tf.Tensor  # average of past norms of residuals: what a new one is compared with
    weight: tf.Tensor  # of `reference`
    energy: tf.Tensor  # zero where none is looked at
    rounding: Rounding


@keras.saving.register_keras_serializable(package="deq_keras")
class NewtonKrylov(Solver):
    """Inexact Newton-Krylov method, for any map that can be differentiated twice in form.

    With `F(z) = f(z) - z` and the Jacobian `J` of `f` at `z_k`, a matrix-free linear solver finds

        s = ((1 + shift_k) I - J)^{-1} F(z_k)  to the relative residual forcing_k,
        z_{k+1} = z_k + length s.

    It pays where `I - J` is badly conditioned, as it is for sharp learned experts, where the plain
    iteration and its accelerations take hundreds of evaluations. Forcing terms are those of
    Eisenstat and Walker: no digits are computed that the nonlinearity takes away again. With the
    shift the first steps are implicit ones along the flow `dz/dt = F(z)`, which leads to fixed
    points from far away, where Newton's own direction is useless; it falls with the residual, and
    grows where a step failed. The preconditioner of the problem is applied, if it has one and the
    shift is small. `Solution.steps` counts evaluations of the map and products with its Jacobian,
    and `max_steps` limits both together; `Solution.products` says how many were products.

    A step evaluates the map once, at a trial. An image that accepts it computes its next direction
    from derivatives of this very evaluation; one that rejects it shrinks its own length, and where
    no trial is accepted goes on from the map's own step. A trial is accepted

    - **for maps**, if the norm of the residual lies sufficiently below a weighted average of past
      ones: where `J` is not symmetric, the way to a fixed point may lead over higher residuals;
    - **for gradient steps on an energy**, by the conditions of `LBFGS`: sufficient decrease of the
      energy (not evaluated if it is certified to be convex). There is no shift: conjugate gradients
      are truncated where they meet negative curvature, and where they do so at once the direction
      is that of the gradient, the longer the more often that succeeds.

    No image waits for the line search of another one, but all do for the longest linear solve.

    Args:
        linear_solver: A name, a `deq_keras.linear_solvers.LinearSolver` whose own limits do not
            matter, or `"auto"`: conjugate gradients for energies, MINRES for other symmetric
            Jacobians, GMRES for all others.
        forcing: Largest forcing term, and the first one, at most 0.95.
        inner_steps: Largest number of products for a direction.
        shift: First shift of the linear systems, in [0, 1]; for energies none is made.
        precondition: Use the preconditioner of the problem, if the linear solver takes any.
        tolerance: Relative residual at which an image stops.
        max_steps: Largest number of evaluations of the map and products with its Jacobian.
        compact: Let images that have stopped leave the batch; see `Solver`.
        stopping: `"image"`, or `"batch"` for one residual of the whole batch; see `Solver`.

    Raises:
        ValueError: If the linear solver is a `FixedPoint`; in `unroll`; in `solve`, if
            `compact=True` and the preconditioner of the problem hides its tensors.

    Reference:
        Dembo, Eisenstat and Steihaug, Inexact Newton methods, SIAM J. Numer. Anal. 1982; Eisenstat
        and Walker, Choosing the forcing terms in an inexact Newton method, SIAM J. Sci. Comput.
        1996; Kelley, Solving nonlinear equations with Newton's method, SIAM 2003; Kelley and Keyes,
        Convergence analysis of pseudo-transient continuation, SIAM J. Numer. Anal. 1998 (the
        shift); Zhang and Hager, A nonmonotone line search technique, SIAM J. Optim. 2004.

    Example:

    >>> rates = tf.constant([[0.9999, -200.0, 3.0]])  # no contraction
    >>> f = lambda z: rates * tf.sin(z) + 1.0
    >>> solution = deq_keras.solvers.NewtonKrylov().solve(f, tf.zeros((1, 3)))
    >>> solution.converged.numpy(), bool(solution.products[0] < solution.steps[0])
    (array([ True]), True)
    """

    takes_products = True

    def __init__(
        self,
        linear_solver: str | linear_solvers.LinearSolver = "auto",
        forcing: float = 0.5,
        inner_steps: int = 30,
        shift: float = 0.1,
        precondition: bool = True,
        tolerance: float = 1e-5,
        max_steps: int = 1000,
        compact: bool = False,
        stopping: str = "image",
    ):
        super().__init__(tolerance, max_steps, compact, stopping)
        if linear_solver != "auto":
            linear_solver = linear_solvers.get(linear_solver)
            if type(linear_solver).correct is linear_solvers.LinearSolver.correct:
                raise ValueError(
                    "NewtonKrylov expected a linear solver that defines `correct`. Received "
                    f"linear_solver={linear_solver!r}. Take 'gmres', or leave it out."
                )
        self.linear_solver = linear_solver
        self.forcing = positive("forcing", forcing, upper=0.95)
        self.inner_steps = positive_int("inner_steps", inner_steps)
        self.shift = positive("shift", shift, zero=True, upper=1.0)
        self.precondition = bool(precondition)

    def choose(self, problem) -> linear_solvers.LinearSolver:
        """The linear solver for a problem: that of this solver, or the best if it is `"auto"`."""
        if self.linear_solver != "auto":
            return self.linear_solver
        if has_smooth_energy(problem):
            return linear_solvers.ConjugateGradient()
        if is_symmetric(problem):
            return linear_solvers.MINRES()
        return linear_solvers.GMRES(restart=self.inner_steps)

    def init(self, problem, z):
        fz, residual, _ = evaluate_residual(problem, z)
        energy, size = self._energy(problem, z), norm(residual)
        one = tf.ones_like(size)
        return NewtonKrylovState(
            z=z,
            fz=fz,
            residual=residual,
            direction=tf.zeros_like(z),
            length=tf.zeros_like(size),
            trials=tf.zeros_like(size, tf.int32),
            forcing=self.forcing * one,
            shift=one if has_smooth_energy(problem) else self.shift * one,
            reference=size,
            weight=one,
            energy=energy,
            rounding=Rounding.start(energy, _NOISE),
        )

    def step(self, problem, state):
        enough = np.iinfo(np.int32).max * tf.ones_like(state.trials)
        return self.advance(problem, state, Allowance(enough > 0, enough, self.tolerance))[0]

    def advance(self, problem, state, allowance):
        # At the start the trial is z itself: its derivatives are wanted.
        trial = state.z + scaled(state.direction, state.length)
        new = linearized(problem, trial)
        energy = self._energy(problem, trial)
        accepted, shorter = self._judge(problem, state, new, energy)
        trials = tf.where(accepted, 0, state.trials + 1)
        failed = ~accepted & (trials % _TRIALS == 0)
        moved = accepted & (state.length > 0)
        size = norm(new.residual)
        reference, weight = newton_control.averaged(state.reference, state.weight, size)
        before = norm(state.residual)
        forcing = newton_control.forcing_term(
            safe_divide(size, before), state.forcing, self.forcing
        )
        if has_smooth_energy(problem):
            shift = newton_control.next_curvature(state.shift, state.length)
        else:
            far = norm(state.direction)
            shift = newton_control.next_shift(state.shift, state.length, before, size, far)
        state = state._replace(
            z=where(accepted, trial, state.z),
            fz=where(accepted, new.fz, state.fz),
            residual=where(accepted, new.residual, state.residual),
            length=tf.where(accepted | failed, tf.ones_like(shorter), shorter),
            trials=trials,
            shift=tf.where(moved, shift, state.shift),
            forcing=tf.where(moved, forcing, state.forcing),
            reference=tf.where(moved, reference, state.reference),
            weight=tf.where(moved, weight, state.weight),
            energy=tf.where(accepted, energy, state.energy),
            rounding=state.rounding.update(tf.where(accepted, energy, state.energy), failed),
        )
        relative, done, _ = self.assess(problem, state, allowance.tolerance)
        # No more digits than it takes to stop.
        enough = safe_divide(0.5 * tf.cast(allowance.tolerance, relative.dtype), relative)
        forcing = tf.minimum(tf.maximum(state.forcing, enough), self.forcing)
        # Beside this evaluation, that of the next trial.
        budget = tf.minimum(allowance.steps - 2, self.inner_steps)
        solving = allowance.active & accepted & ~done & (budget > 0)
        found, products = self._direction(problem, state, new.product, forcing, solving, budget)
        direction = where(accepted | failed, state.residual, state.direction)
        direction = where(solving, found, direction)
        return state._replace(direction=direction, forcing=forcing), products

    def _judge(self, problem, state, new, energy):
        """Which images accept their trials, and the length of the next one of those that do not."""
        length = state.length
        if has_smooth_energy(problem):
            step = step_length(problem, state.z)
            before = -dot(state.residual, state.direction) / step
            after = -dot(new.residual, state.direction) / step
            search = energy - state.energy, length, before, after
            level = state.rounding.level()
            accepted = line_search.judge(problem.convex, energy, *search, level)
            shorter = line_search.shorter(*search)
        else:
            after, known = norm(new.residual), (new.noise, state.reference, state.forcing, length)
            accepted, shorter = newton_control.judge(norm(state.residual), after, *known)
            # Where nothing helped the step of the map is taken as it is.
            own = (state.trials > 0) & (state.trials % _TRIALS == 0)
            accepted |= own & tf.math.is_finite(after)
        return accepted | (length == 0), shorter

    def _direction(self, problem, state, product, forcing, active, budget):
        """The Newton direction of the images in `active`, and the products that each took."""
        solver, precondition = self.choose(problem), lambda w: w
        if self.preconditions(problem):
            precondition = problem.preconditioner(state.z)
        shifted = product
        if not has_smooth_energy(problem):
            shifted = lambda w: product(w) + column(state.shift) * w  # noqa: E731
            small, plain = state.shift < newton_control.SMALL_SHIFT, precondition
            if self.preconditions(problem):
                precondition = lambda w: where(small, plain(w), w)  # noqa: E731
        # Squares of tiny residuals vanish in single precision.
        largest = tf.reduce_max(tf.abs(state.residual), axis=1)
        r = safe_divide(state.residual, column(largest))
        target = column(forcing * norm(r))
        e, spent = solver.correct(shifted, r, target, column(active), column(budget), precondition)
        direction = scaled(e, largest)
        size = norm(direction)
        usable = (size > 0) & tf.math.is_finite(size)
        own = state.residual
        if has_smooth_energy(problem):
            usable &= dot(own, direction) > 0  # downhill
            own /= column(state.shift)
        direction = where(usable, direction, own)
        products = tf.where(active, tf.squeeze(spent, 1), 0)
        if self.stopping == "batch":  # all images have the same steps
            products = tf.ones_like(products) * tf.reduce_max(products)
        return direction, products

    def _energy(self, problem, z):
        if problem.convex or not has_smooth_energy(problem):
            return tf.zeros_like(first(z))
        return problem.step.energy(z)

    def preconditions(self, problem):
        wanted = self.precondition and self.choose(problem).takes_any_preconditioner
        return wanted and problem.preconditioner is not None

    def unroll(self, problem, steps, initial_value=None, hold_coefficients=False):
        """Raises an error: the number of evaluations in a step depends on the image."""
        raise ValueError(
            "NewtonKrylov cannot be unrolled: its linear solves stop by themselves. Take "
            "adjoint='implicit', or unroll another solver such as 'picard'."
        )

    def get_config(self):
        return {
            "linear_solver": serialise(self.linear_solver),
            "forcing": self.forcing,
            "inner_steps": self.inner_steps,
            "shift": self.shift,
            "precondition": self.precondition,
            **super().get_config(),
        }

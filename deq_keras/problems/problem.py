"""What a solver may know of a fixed-point problem `z = f(z)`, all of it optional but `f`."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from deq_keras.numerics.rows import norm


class Objective(NamedTuple):
    """The energy `E = F + G` of which `f(z) = prox_{step G}(z - step grad F(z))` is a step.

    Attributes:
        value: `E`: from a structure like `z` to the energy of each image, `(batch,)`.
        step: Length of the gradient step in `f`, > 0: a scalar or `(batch,)`.
        gradient: `grad F`. May be left out where there is no `G`: it is `(z - f(z)) / step`.
        proximal: `(z, step) -> argmin_x G(x) + ||x - z||^2 / (2 step)` for steps `(batch,)`, or
            `None` where there is no `G`.
        convex: Whether `E` is certified to be convex; slopes alone then tell descent.
    """

    value: Callable
    step: Any
    gradient: Callable | None = None
    proximal: Callable | None = None
    convex: bool = False


class Problem(NamedTuple):
    """A map `f` whose fixed point is wanted, and what is known about it.

    Attributes:
        f: Callable from a structure like `z` to one of the same shape and dtype. Row `i` of the
            result depends on row `i` of the argument only.
        reference: Tensor `(batch,)`, what the residual is relative to; see `Solver`.
        modulus: Scalar or tensor `(batch,)`, a certified `m >= 0` with
            `<(a - f(a)) - (b - f(b)), a - b> >= m ||a - b||^2`, if known.
        objective: The `Objective` that `f` decreases, if it is a step on an energy.
        take: Callable from an integer tensor `(k,)` to the `Problem` of these rows of the batch:
            what a solver needs to let converged images leave it (`compact=True`).
    """

    f: Callable
    reference: Any = None
    modulus: Any = None
    objective: Objective | None = None
    take: Callable | None = None

    def in_rows(self, ravel, unravel):
        """The same problem for `(batch, n)` matrices of rows."""

        def lift(function):
            return None if function is None else lambda rows: ravel(function(unravel(rows)))

        objective = self.objective
        if objective is not None:
            proximal = objective.proximal
            objective = objective._replace(
                value=lambda rows: self.objective.value(unravel(rows)),
                gradient=lift(objective.gradient),
                proximal=proximal and (lambda rows, step: ravel(proximal(unravel(rows), step))),
            )
        take = self.take
        return self._replace(
            f=lift(self.f),
            objective=objective,
            take=take and (lambda index: take(index).in_rows(ravel, unravel)),
        )


def as_problem(problem):
    """A `Problem` from one, or from a map alone."""
    if isinstance(problem, Problem):
        return problem
    if callable(problem):
        return Problem(problem)
    raise TypeError(f"Expected a map, or a deq_keras.solvers.Problem. Received {problem!r}.")


def step_length(problem, z):
    """`objective.step` for each row of `z`, `(batch,)`."""
    return tf.ones_like(z[:, 0]) * tf.cast(problem.objective.step, z.dtype)


def evaluate(problem, z):
    """`(f(z), grad F(z))` for rows `z` from one evaluation of either of them."""
    step, objective = step_length(problem, z), problem.objective
    if objective.gradient is None:
        fz = problem.f(z)
        return fz, (z - fz) / step[:, None]
    gradient = objective.gradient(z)
    fz = z - step[:, None] * gradient
    if objective.proximal is not None:
        fz = objective.proximal(fz, step)
    return fz, gradient


def evaluate_residual(problem, z):
    """`(f(z), f(z) - z, noise)` for rows `z`, and the rounding `(batch,)` of a difference of those.

    Where the gradient of an energy is known the residual has all its digits, and the noise is zero.
    """
    objective = problem.objective
    if objective is None or objective.gradient is None or objective.proximal is not None:
        fz = problem.f(z)
        eps = float(np.finfo(z.dtype.as_numpy_dtype).eps)
        return fz, fz - z, 2.0 * eps * norm(z)
    residual = -step_length(problem, z)[:, None] * objective.gradient(z)
    return z + residual, residual, tf.zeros_like(residual[:, 0])


class Rounding(NamedTuple):
    """What an image knows of the rounding of its energies; `(batch,)` each.

    How much the terms of an energy cancel is not known beforehand. The estimate starts from the
    largest energy seen and is raised whenever a search fails that should not.
    """

    size: tf.Tensor  # largest |E|
    factor: tf.Tensor  # times the machine epsilon

    @classmethod
    def start(cls, energy, factor):
        """The first estimate: `factor` roundings of the energy."""
        return cls(tf.abs(energy), factor * tf.ones_like(energy))

    def level(self):
        """A difference of energies below this says nothing."""
        eps = float(np.finfo(self.size.dtype.as_numpy_dtype).eps)
        return tf.minimum(self.factor * eps, eps**0.5) * self.size

    def update(self, energy, failed):
        """After another accepted energy, or a search that failed."""
        limit = 1.0 / float(np.finfo(energy.dtype.as_numpy_dtype).eps)
        raised = tf.minimum(16.0 * self.factor, limit)
        factor = tf.where(failed, raised, self.factor)
        return Rounding(tf.maximum(self.size, tf.abs(energy)), factor)

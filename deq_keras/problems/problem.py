"""The record of all that a solver and an adjoint may know of a fixed-point problem `z = f(z)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from deq_keras.numerics import partial
from deq_keras.numerics.partial import Partial
from deq_keras.numerics.rows import column, first, norm, where
from deq_keras.problems.preconditioner import Preconditioner


class Step(NamedTuple):
    """How `f(z) = prox_{length G}(z - length g(z))` is made, if it is a step along `-g`.

    Residuals and linear systems that are made of `g` have more digits than `z - f(z)`. If `g` is
    the gradient of a function `F`, the step is one on the energy `E = F + G`.

    Attributes:
        energy: `E`: from a structure like `z` to the energy of each image, `(batch,)`; `None` if
            there is none.
        length: > 0: a scalar or `(batch,)`.
        gradient: `g`. May be left out where there is no `G`: it is `(z - f(z)) / length`.
        proximal: `(z, length) -> argmin_x G(x) + ||x - z||^2 / (2 length)` for lengths `(batch,)`,
            or `None` where there is no `G`.

    Example:

    >>> target = tf.constant([[1.0, 3.0]])
    >>> step = deq_keras.solvers.Step(
    ...     energy=lambda u: 0.5 * tf.reduce_sum((u - target) ** 2, axis=1),
    ...     length=0.5,
    ...     gradient=lambda u: u - target)
    >>> float(step.energy(tf.zeros((1, 2)))[0])
    5.0
    """

    energy: Callable | None
    length: Any
    gradient: Callable | None = None
    proximal: Callable | None = None


class Problem(NamedTuple):
    """A map `f` whose fixed point is wanted, and what is known about it.

    Where the functions are `deq_keras.numerics.Partial`, the tensors that they depend on are known:
    a solver may then iterate a `frozen` problem, drop converged images (`take`), and derivatives
    of every order exist.

    Attributes:
        f: Callable from a structure like `z` to one of the same shape and dtype. Row `i` of the
            result depends on row `i` of the argument only.
        initial_value: Where to start, a tensor `(batch, ...)` or a nested structure of them.
        scale: Tensor `(batch,)`, what the residual is relative to; see `Solver`.
        strong_convexity: Scalar or tensor `(batch,)`, a certified `m >= 0` with
            `<(a - f(a)) - (b - f(b)), a - b> >= m ||a - b||^2`, if known. For a gradient step it
            is the modulus of strong convexity of the energy, times the step.
        step: The `Step` that `f` is, if it is one.
        symmetric: Whether the Jacobian of `f` is symmetric everywhere; `None`: not known.
        convex: Whether the energy of the step is certified to be convex.
        preconditioner: From a point `z` to a linear map near `(I - J)^{-1}` and its transposed,
            symmetric and positive definite: a `deq_keras.problems.Preconditioner`, or another
            function, which a solver cannot carry from step to step; or `None`.
        record: `f`, recorded by tapes, which may change the state of layers: an adjoint calls it
            once, at the solution. `None`: `f` itself.

    Example:

    >>> f = deq_keras.numerics.Partial(lambda z, y: 0.5 * z + y, rows=(tf.ones((3, 4)),))
    >>> problem = deq_keras.solvers.Problem(f, tf.zeros((3, 4)), symmetric=True)
    >>> problem.take([0, 2]).initial_value.shape
    TensorShape([2, 4])
    >>> deq_keras.solvers.Anderson(compact=True).solve(problem).value[0].numpy().round(3)
    array([2., 2., 2., 2.], dtype=float32)
    """

    f: Callable
    initial_value: Any = None
    scale: Any = None
    strong_convexity: Any = None
    step: Step | None = None
    symmetric: bool | None = False
    convex: bool = False
    preconditioner: Callable | None = None
    record: Callable | None = None

    def frozen(self) -> Problem:
        """The problem cut off from gradients: what solvers iterate."""
        return partial.stopped(self)

    @property
    def can_take(self) -> bool:
        """Whether `take` works: all functions that a solver calls show their tensors."""
        functions = (self.f, *(self.step or ()))
        return all(isinstance(f, Partial) for f in functions if callable(f))

    @property
    def can_take_preconditioner(self) -> bool:
        """Whether the rows of the preconditioner can be taken as well."""
        found = self.preconditioner
        return isinstance(found.prepare if isinstance(found, Preconditioner) else found, Partial)

    def take(self, index) -> Problem:
        """The problem for the rows `index` `(k,)` of the batch: images that converged leave it."""

        def each(value):  # what is a scalar holds for all images
            ranked = tf.is_tensor(value) and value.shape.rank
            return partial.gather(value, index) if ranked else value

        step = self.step
        if step is not None:
            step = partial.take_rows(step, index)._replace(length=each(step.length))
        return self._replace(
            f=partial.take_rows(self.f, index),
            initial_value=partial.gather(self.initial_value, index),
            scale=each(self.scale),
            strong_convexity=each(self.strong_convexity),
            step=step,
            preconditioner=partial.take_rows(self.preconditioner, index),
        )

    def recorded_in(self, active) -> Problem:
        """A problem of rows without derivatives in those outside of `active` `(batch,)`.

        A derivative that is infinite there, times zero, would otherwise be a NaN in all weights.
        """
        step, found = self.step, self.preconditioner
        if step is not None:
            step = step._replace(
                energy=_recorded_in(step.energy, active),
                gradient=_recorded_in(step.gradient, active),
                proximal=_recorded_in(step.proximal, active),
            )
        if isinstance(found, Preconditioner):
            found = found._replace(apply=_recorded_in(found.apply, active))
        return self._replace(f=_recorded_in(self.f, active), step=step, preconditioner=found)

    def in_rows(self, ravel, unravel) -> Problem:
        """The same problem for `(batch, n)` matrices of rows; see `deq_keras.numerics.rows`."""

        def lift(function):
            return None if function is None else lambda rows: ravel(function(unravel(rows)))

        step = self.step
        if step is not None:
            energy, proximal = step.energy, step.proximal
            step = step._replace(
                energy=energy and (lambda rows: energy(unravel(rows))),
                gradient=lift(step.gradient),
                proximal=proximal and (lambda rows, size: ravel(proximal(unravel(rows), size))),
            )
        at = self.preconditioner
        if isinstance(at, Preconditioner):
            preconditioner = at.in_rows(ravel, unravel)
        else:
            preconditioner = at and (lambda rows: lift(at(unravel(rows))))
        return self._replace(f=lift(self.f), step=step, preconditioner=preconditioner)


def _recorded_in(function, active):
    if function is None:
        return None

    def recorded(*arguments):
        value = function(*arguments)
        return where(active, value, tf.stop_gradient(value))

    return recorded


def as_problem(problem) -> Problem:
    """A `Problem` from one, or from a map alone."""
    if isinstance(problem, Problem):
        return problem
    if callable(problem):
        return Problem(problem)
    raise TypeError(f"Expected a map, or a deq_keras.solvers.Problem. Received {problem!r}.")


def certified_convex(problem):
    """Whether the energy of the step is certified to be convex, by its kind or by a modulus.

    Returns:
        A boolean; or, where a weakly convex energy depends on its weights, a tensor of them,
        scalar or `(batch,)`: each image has a certificate of its own.
    """
    modulus = problem.strong_convexity
    if problem.convex or modulus is None:
        return bool(problem.convex)
    return modulus > 0 if isinstance(modulus, int | float) else tf.convert_to_tensor(modulus) > 0


def step_length(problem, z):
    """`step.length` for each row of `z`, `(batch,)`."""
    return tf.ones_like(first(z)) * tf.cast(problem.step.length, z.dtype)


def evaluate(problem, z):
    """`(f(z), g(z))` for rows `z` from one evaluation of either of them."""
    length, step = step_length(problem, z), problem.step
    if step.gradient is None:
        fz = problem.f(z)
        return fz, (z - fz) / column(length)
    gradient = step.gradient(z)
    fz = z - column(length) * gradient
    if step.proximal is not None:
        fz = step.proximal(fz, length)
    return fz, gradient


def evaluate_residual(problem, z):
    """`(f(z), f(z) - z, noise)` for rows `z`, and the rounding `(batch,)` of a difference of those.

    Where `g` is known the residual has all its digits, and the noise is zero.
    """
    step = problem.step
    if step is None or step.gradient is None or step.proximal is not None:
        fz = problem.f(z)
        eps = float(np.finfo(z.dtype.as_numpy_dtype).eps)
        return fz, fz - z, 2.0 * eps * norm(z)
    residual = -column(step_length(problem, z)) * step.gradient(z)
    return z + residual, residual, tf.zeros_like(first(residual))

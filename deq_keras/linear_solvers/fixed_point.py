"""Linear systems by a solver of fixed points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from deq_keras.config import deserialise, serialise
from deq_keras.linear_solvers.base import LinearSolver
from deq_keras.numerics.rows import norm, safe_divide, to_rows, where
from deq_keras.problems import Problem, Solution


@keras.saving.register_keras_serializable(package="deq_keras")
class FixedPoint(LinearSolver):
    """The fixed point of `w -> w + (b - A w)`, from `w = b`, by any solver for maps.

    With `A = I - J^T` that is `w = J^T w + b`, and with
    `FixedPoint(PlainAnderson(stopping="batch"))` the backward pass of most published equilibrium
    models: it is here to reproduce their results. The iteration is the solver's own: the rows are
    not scaled, there is no preconditioner, and nothing is refined. Take `"gmres"`, or
    `"conjugate_gradient"` for the steps on a convex energy, which need fewer products and stop by
    the true residual.

    **Stopping** is the solver's too. Its tolerance is one for `||b - A w|| / ||w + (b - A w)||`,
    relative to the solution, not to `b`; by it `Solution.converged` is decided. The residual that
    is returned is the true one of each image, `||b - A w|| / ||b||`, as of other linear solvers. It
    takes one more product, so `steps` is up to `max_steps + 1`. For small `b` mind the squares of
    norms, which vanish in single precision below about 1e-38: the solver then believes to be done.

    Args:
        solver: A `deq_keras.solvers.Solver` that needs nothing but a map, with its `tolerance`, its
            `max_steps` and its `stopping`. `compact=True` is not possible: the map hides what it
            depends on.

    Raises:
        ValueError: If the solver needs an energy or compacts, and in `solve` if there is a
            preconditioner.

    Reference:
        Bai, Kolter and Koltun, Deep equilibrium models, NeurIPS 2019; Riccio, Ehrhardt and Benning,
        Regularization of inverse problems: deep equilibrium models versus bilevel learning,
        Numerical Algebra, Control and Optimization 2025.

    Example:

    >>> plain = deq_keras.solvers.PlainAnderson(tolerance=1e-3, max_steps=50, stopping="batch")
    >>> solver = deq_keras.linear_solvers.FixedPoint(plain)
    >>> solver.solve(lambda w: 0.5 * w, tf.ones((2, 5))).value[0].numpy().round(2)
    array([2., 2., 2., 2., 2.], dtype=float32)
    >>> adjoint = deq_keras.adjoints.Implicit(linear_solver=solver)
    """

    # There is no place for one: what is iterated is the map of the paper.
    takes_any_preconditioner = False

    def __init__(self, solver):
        # By what it can do: these solvers are built on this room, which imports none of them.
        if not hasattr(solver, "stopping"):
            raise ValueError(
                "FixedPoint expected a `deq_keras.solvers.Solver`, such as "
                f"`deq_keras.solvers.Anderson()`. Received solver={solver!r}."
            )
        self.solver = solver
        if self.solver.needs_energy:
            raise ValueError(
                "FixedPoint expected a solver that needs nothing but a map. Received "
                f"solver={solver!r}, which searches along an energy. Take "
                "`deq_keras.solvers.Anderson()`, for example."
            )
        if self.solver.compact:
            raise ValueError(
                "FixedPoint expected a solver with `compact=False`: the rows of a linear map that "
                f"hides its tensors cannot be taken. Received solver={solver!r}."
            )

    @property
    def tolerance(self):
        """That of the solver, relative to the solution."""
        return self.solver.tolerance

    @property
    def max_steps(self):
        """The solver's largest number of products, without the one for the true residual."""
        return self.solver.max_steps

    def within(self, tolerance) -> FixedPoint:
        return FixedPoint(self.solver.within(tolerance))

    def solve(
        self,
        matvec: Callable,
        b: Any,
        preconditioner: Callable | None = None,
        initial_value: Any = None,
    ) -> Solution:
        if preconditioner is not None:
            raise ValueError(
                "FixedPoint iterates `w + (b - A w)` and expected `preconditioner=None`. Received "
                f"{preconditioner!r}. Leave it out, or take 'gmres', which makes use of one."
            )

        def residual(w):
            return tf.nest.map_structure(tf.subtract, b, matvec(w))

        def f(w):
            return tf.nest.map_structure(tf.add, w, residual(w))

        found = self.solver.solve(Problem(f, b if initial_value is None else initial_value))
        rows, ravel, unravel = to_rows(b)
        # Divided by the largest entry: squares of small numbers would vanish here too.
        largest = tf.reduce_max(tf.abs(rows), axis=1, keepdims=True)
        size = norm(safe_divide(ravel(residual(found.value)), largest))
        scale = norm(safe_divide(rows, largest))
        # An image that cannot be computed with has the answer zero, as of other linear solvers.
        usable = tf.math.is_finite(size)
        value = ravel(found.value)
        value = unravel(where(usable, value, tf.zeros_like(value)))
        relative = safe_divide(tf.where(usable, size, scale), scale)
        return Solution(value, relative, found.steps + 1, found.converged)

    def get_config(self):
        return {"solver": serialise(self.solver)}

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "solver"))

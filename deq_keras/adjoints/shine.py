"""SHINE: the adjoint equation from what the forward solve has learned of the Jacobian."""

import keras
import tensorflow as tf

from deq_keras import linear_solvers
from deq_keras.adjoints.base import (
    Adjoint,
    adjoint_operator,
    at_solution,
    attach,
    solve_off_tape,
)
from deq_keras.checks import positive
from deq_keras.config import serialise
from deq_keras.numerics import partial
from deq_keras.numerics.rows import norm, safe_divide, to_rows, where
from deq_keras.problems import Solution


@keras.saving.register_keras_serializable(package="deq_keras")
class SHINE(Adjoint):
    """Takes `(I - J^T)^{-1}` from Broyden's estimate, at no cost, and checks it.

    Broyden's method ends with an estimate `H` of `(I - J)^{-1}`, good in the directions that the
    solve went through. `w = H^T d` is put into the adjoint equation, which costs one product with
    `J^T`; an image for which the relative residual is larger than `tolerance` falls back:

    - to a linear solver, which goes on from the better one of `w` and zero to `tolerance`;
    - with `fallback="jacobian_free"` to the better one of `w` and `d`, as in the paper.

    Needs `solver="broyden"`.

    Args:
        tolerance: Relative residual `||(I - J^T) w - d|| / ||d||` that is good enough.
        fallback: Name of a linear solver or `"jacobian_free"`. A linear solver of your own keeps
            its own tolerance.

    Reference:
        Ramzi, Mannel, Bai, Starck, Ciuciu and Moreau, SHINE: sharing the inverse estimate from the
        forward pass for bi-level optimization and implicit models, ICLR 2022.

    Example:

    >>> y = tf.constant([[3.0]])
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(y)
    ...     problem = deq_keras.solvers.Problem(lambda z: 0.5 * z + y, tf.zeros_like(y))
    ...     adjoint = deq_keras.adjoints.SHINE()
    ...     z, solution = adjoint.solve(problem, deq_keras.solvers.Broyden())
    >>> tape.gradient(z, y).numpy().round(3)  # z = 2 y
    array([[2.]], dtype=float32)
    """

    def __init__(
        self, tolerance: float = 0.1, fallback: str | linear_solvers.LinearSolver = "gmres"
    ):
        self.tolerance = positive("tolerance", tolerance)
        self.fallback = fallback
        if fallback != "jacobian_free":
            self.fallback = linear_solvers.get(fallback)
            if isinstance(fallback, str):
                self.fallback = self.fallback.within(self.tolerance)

    def solve(self, problem, solver, report=None):
        if not hasattr(solver, "apply_inverse"):
            raise ValueError(
                "SHINE takes the derivative from the solver's estimate of the inverse Jacobian and "
                f"expected solver='broyden'. Received {solver!r}."
            )
        frozen, solution = solve_off_tape(problem, solver, return_state=True)

        def correct(z, d):
            operator = adjoint_operator(frozen, z)
            rows, ravel, unravel = to_rows(d)
            estimate = solver.apply_inverse(solution.state, rows, transpose=True)
            estimate = where(tf.math.is_finite(norm(estimate)), estimate, rows)
            if self.fallback != "jacobian_free":
                found = self.fallback.solve(operator, d, initial_value=unravel(estimate))
            else:
                found = self._best(lambda w: ravel(operator(unravel(w))), rows, estimate)
                found = found._replace(value=unravel(found.value))
            if report is not None:
                report(partial.stopped(found))
            return found.value

        return attach(at_solution(problem)(solution.value), correct), solution

    def _best(self, operator, d, estimate):
        """The better one of the estimate and `d` itself."""
        first, second = (norm(d - operator(w)) for w in (estimate, d))
        residual = safe_divide(tf.minimum(first, second), norm(d))
        value = where(first <= second, estimate, d)
        steps = tf.fill(tf.shape(residual), 2)
        return Solution(value, residual, steps, residual <= self.tolerance)

    def get_config(self):
        return {"tolerance": self.tolerance, "fallback": serialise(self.fallback)}

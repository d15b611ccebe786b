"""The implicit function theorem."""

import keras

from deq_keras import linear_solvers
from deq_keras.adjoints import higher_order as recursion
from deq_keras.adjoints.base import (
    Adjoint,
    adjoint_operator,
    at_solution,
    attach,
    solve_off_tape,
)
from deq_keras.config import serialise
from deq_keras.numerics import partial


@keras.saving.register_keras_serializable(package="deq_keras")
class Implicit(Adjoint):
    """The implicit function theorem: exact at a converged solution.

    The fixed point is found without a tape. Then `f` is called once, normally, at the solution, so
    the tape sees `out = f(z*)` with every variable, input and closed-over tensor that `f` depends
    on. `out` goes through an identity whose gradient replaces an incoming cotangent `d` by the
    solution `w` of the adjoint equation

        (I - J^T) w = d,    J = df/dz at the fixed point,

    and the single recorded call carries `w` on to all of them. No list of variables is needed,
    state is updated once, and memory does not grow with the number of steps.

    Args:
        linear_solver: For the adjoint equation: a name, a `deq_keras.linear_solvers.LinearSolver`,
            or `"auto"`: conjugate gradients if `f` is a gradient step on a convex energy, MINRES
            for another symmetric Jacobian, and GMRES where it is not symmetric or not known to be.
        precondition: Use the preconditioner of the map, if it has one: that of a `GradientStep`
            (`deq_keras.linear_solvers.fourier_preconditioner`) halves the steps.
            It is not used for Neumann's series, which may diverge with one, nor for `FixedPoint`,
            which has no place for it.
        higher_order: Make derivatives differentiable, to any order, by the measurement and the
            weights of the cell: the adjoint equation is then itself differentiated by the implicit
            function theorem. A few more evaluations of the map for each derivative. Tensors that
            the cell closes over get their first derivatives, and an error for the second.

    Reference:
        Bai, Kolter and Koltun, Deep equilibrium models, NeurIPS 2019.

    Example:

    >>> y = tf.constant([[3.0]])
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(y)
    ...     problem = deq_keras.solvers.Problem(lambda z: 0.5 * z + y, tf.zeros_like(y))
    ...     adjoint = deq_keras.adjoints.Implicit()
    ...     z, solution = adjoint.solve(problem, deq_keras.solvers.Picard())
    >>> tape.gradient(z, y).numpy().round(3)  # z = 2 y
    array([[2.]], dtype=float32)
    """

    def __init__(
        self,
        linear_solver: str | linear_solvers.LinearSolver = "auto",
        precondition: bool = True,
        higher_order: bool = False,
    ):
        if linear_solver != "auto":
            linear_solver = linear_solvers.get(linear_solver)
        self.linear_solver = linear_solver
        self.precondition = bool(precondition)
        self.higher_order = bool(higher_order)

    def choose(self, problem):
        """The linear solver for a problem."""
        return choose(self.linear_solver, problem)

    def preconditioner(self, problem, z):
        """What the linear solver of a problem is given at `z` as a preconditioner, or `None`."""
        if not (self.precondition and self.choose(problem).takes_any_preconditioner):
            return None
        return problem.preconditioner and problem.preconditioner(z)

    def solve(self, problem, solver, report=None):
        frozen, solution = solve_off_tape(problem, solver)
        linear_solver = self.choose(problem)
        if self.higher_order:
            return recursion.output(problem, solution.value, linear_solver, report), solution

        def correct(z, d):
            found = linear_solver.solve(
                adjoint_operator(frozen, z), d, self.preconditioner(frozen, z)
            )
            if report is not None:
                report(partial.stopped(found))
            return found.value

        return attach(at_solution(problem)(solution.value), correct), solution

    def get_config(self):
        return {
            "linear_solver": serialise(self.linear_solver),
            "precondition": self.precondition,
            "higher_order": self.higher_order,
        }


def choose(linear_solver, problem):
    """The linear solver itself, or the best one for a problem if it is `"auto"`."""
    if linear_solver != "auto":
        return linear_solver
    if problem.convex and problem.symmetric:
        return linear_solvers.get("conjugate_gradient")
    return linear_solvers.get("minres" if problem.symmetric else "gmres")

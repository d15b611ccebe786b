"""How a derivative passes through the solution of `z = f(z)`.

**The hook.** The fixed point is found without a tape. Then `f` is called once, normally, at the
solution, so the tape sees `out = f(z*)` with every variable, input and closed-over tensor that `f`
depends on. `out` goes through an identity whose custom gradient replaces an incoming cotangent `d`
by the solution `w` of the adjoint equation

    (I - J^T) w = d,    J = df/dz at the fixed point,

and the single recorded call carries `w` on to all of them: the implicit function theorem. No list
of variables is needed, and state is updated once.

Derivatives of derivatives would need the recorded call to move with the fixed point, which a single
call cannot do: they would be silently wrong, so they are refused.

References:
    Bai, Kolter and Koltun, Deep equilibrium models, NeurIPS 2019; Fung et al., JFB: Jacobian-free
    backpropagation for implicit networks, AAAI 2022; Domke, Generic methods for optimization-based
    modeling, AISTATS 2012 (unrolling).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from deq_keras import linear_solvers, registry
from deq_keras.registry import positive_int
from deq_keras.solvers import Solution

_SECOND_ORDER = (
    "Second derivatives through an implicit solution are not available. Use adjoint='unrolled', "
    "which has derivatives of every order."
)


class FixedPointProblem(NamedTuple):
    """A map `f` and what is known about it.

    Attributes:
        call: `f`, recorded by tapes; may update state (it is called exactly once).
        pure: `f` without changes of state, still differentiable with respect to everything.
        frozen: `f` without changes of state and cut off from tapes: what solvers iterate.
        reference: See `deq_keras.solvers.Solver.solve`.
        modulus: See `deq_keras.solvers.Solver.solve`.
        symmetric: Whether the Jacobian of `f` is symmetric everywhere.
        convex: Whether, in addition, `f` is a gradient step on a convex function.
    """

    call: Callable
    pure: Callable
    frozen: Callable
    reference: Any = None
    modulus: Any = None
    symmetric: bool = False
    convex: bool = False


class Adjoint(registry.Configurable):
    """Base class: solves a `FixedPointProblem` and says how a derivative passes through it.

    Subclasses define `solve(problem, z0, solver, report) -> (output, Solution)`. `output` is
    differentiable; nothing in the `Solution` is. `report`, if given, is called with the `Solution`
    of each adjoint equation that is solved in a backward pass.
    """

    def solve(self, problem, z0, solver, report=None):
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="deq_keras")
class Implicit(Adjoint):
    """The implicit function theorem: exact at a converged solution.

    Memory does not grow with the number of forward or backward steps.

    Args:
        linear_solver: For the adjoint equation: `"conjugate_gradient"`, `"gmres"`, `"minres"`,
            `"neumann"`, a `deq_keras.linear_solvers.LinearSolver`, or `"auto"`:
            conjugate gradients if `f` is a gradient step on a convex energy, MINRES on any other
            energy, GMRES otherwise.
    """

    def __init__(self, linear_solver="auto"):
        if linear_solver != "auto":
            linear_solver = linear_solvers.get(linear_solver)
        self.linear_solver = linear_solver

    def choose(self, problem):
        """The linear solver for a problem."""
        if self.linear_solver != "auto":
            return self.linear_solver
        if problem.convex:
            return linear_solvers.get("conjugate_gradient")
        return linear_solvers.get("minres" if problem.symmetric else "gmres")

    def solve(self, problem, z0, solver, report=None):
        solution = _solve_off_tape(problem, z0, solver)
        output = problem.call(solution.value)
        return attach(output, problem.frozen, self.choose(problem), report), solution

    def get_config(self):
        solver = self.linear_solver
        if solver != "auto":
            solver = keras.saving.serialize_keras_object(solver)
        return {"linear_solver": solver}


@keras.saving.register_keras_serializable(package="deq_keras")
class JacobianFree(Adjoint):
    """Takes `(I - J^T)^{-1}` for the identity: no adjoint equation, and not the exact gradient.

    A descent direction if `f` is contractive enough and well conditioned (Fung et al., 2022).
    """

    def solve(self, problem, z0, solver, report=None):
        solution = _solve_off_tape(problem, z0, solver)
        return attach(problem.call(solution.value)), solution


@keras.saving.register_keras_serializable(package="deq_keras")
class Unrolled(Adjoint):
    """Back-propagates through a fixed number of the solver's own steps, with no early stop.

    The exact gradient of what is computed, converged or not. Memory grows with `steps`.

    Args:
        steps: Number of evaluations of the map, the one that gives the output included.
    """

    def __init__(self, steps=20):
        self.steps = positive_int("steps", steps)
        if self.steps < 2:
            raise ValueError(f"Expected `steps` >= 2. Received steps={steps!r}.")

    def solve(self, problem, z0, solver, report=None):
        solution = solver.unroll(
            problem.pure, z0, self.steps - 1, problem.reference, problem.modulus
        )
        return problem.call(solution.value), _stopped(solution)

    def get_config(self):
        return {"steps": self.steps}


def attach(output, frozen=None, linear_solver=None, report=None):
    """Pass cotangents of `output = f(z*)` through the adjoint equation of `f`.

    Args:
        output: Tensor or nested structure: one recorded evaluation of `f` at its fixed point.
        frozen: `f` without changes of state and cut off from tapes.
        linear_solver: A `deq_keras.linear_solvers.LinearSolver` for `(I - J^T) w = d`, or `None`
            for `w = d`.
        report: Callable that receives the `Solution` of the adjoint equation, or `None`.

    Returns:
        The same values, whose derivatives are those of the fixed point.
    """
    leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(output)]

    @tf.custom_gradient
    def hook(*values):
        def grad(*cotangents):
            if linear_solver is None:
                return [_once_only(d) for d in cotangents]
            z, d = (tf.nest.pack_sequence_as(output, list(flat)) for flat in (values, cotangents))
            z = tf.nest.map_structure(tf.stop_gradient, z)
            # Linearised once; each product with J^T is then one backward pass.
            with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
                tape.watch(z)
                fz = frozen(z)

            def matvec(w):
                product = tape.gradient(
                    fz, z, w, unconnected_gradients=tf.UnconnectedGradients.ZERO
                )
                return tf.nest.map_structure(tf.subtract, w, product)

            solution = linear_solver.solve(matvec, d)
            if report is not None:
                report(_stopped(solution))
            return [_once_only(w) for w in tf.nest.flatten(solution.value)]

        return [tf.identity(value) for value in values], grad

    hooked = hook(*leaves)
    hooked = list(hooked) if isinstance(hooked, (list, tuple)) else [hooked]
    return tf.nest.pack_sequence_as(output, hooked)


def _once_only(tensor):
    return tf.raw_ops.PreventGradient(input=tensor, message=_SECOND_ORDER)


def _solve_off_tape(problem, z0, solver):
    z0 = tf.nest.map_structure(tf.stop_gradient, z0)
    reference, modulus = (
        None if value is None else tf.stop_gradient(value)
        for value in (problem.reference, problem.modulus)
    )
    return _stopped(solver.solve(problem.frozen, z0, reference, modulus))


def _stopped(solution):
    return Solution(*tf.nest.map_structure(tf.stop_gradient, tuple(solution)))


_BY_NAME = {"implicit": Implicit, "jacobian_free": JacobianFree, "unrolled": Unrolled}


def get(identifier):
    """An `Adjoint` from a name (`"implicit"`, `"jacobian_free"`, `"unrolled"`), configuration or
    adjoint."""
    return registry.get(identifier, "adjoint", _BY_NAME, Adjoint)

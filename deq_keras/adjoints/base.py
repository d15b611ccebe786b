"""The contract of an adjoint, and the only custom gradient of a fixed point."""

import tensorflow as tf

from deq_keras.config import Configurable
from deq_keras.problems.problem import as_problem
from deq_keras.problems.solution import Solution

_SECOND_ORDER = (
    "Second derivatives through this implicit solution are not available. Use "
    "adjoint=deq_keras.adjoints.Implicit(higher_order=True), which has derivatives of every order "
    "by the measurement and the weights, or adjoint='unrolled'."
)


class Adjoint(Configurable):
    """Base class: solves a `FixedPointProblem` and says how a derivative passes through it.

    Subclasses define `solve(problem, z0, solver, report) -> (output, Solution)`. `output` is
    differentiable; nothing in the `Solution` is. `report`, if given, is called with the `Solution`
    of each adjoint equation that is solved in a backward pass.
    """

    def solve(self, problem, z0, solver, report=None):
        raise NotImplementedError


def identity_with_gradient(values, sources, pull_back):
    """The tensors `values` as they are, with derivatives of their own.

    Args:
        values: List of tensors.
        sources: List of tensors that derivatives may go to as well.
        pull_back: From a cotangent of each value to `(of_values, of_sources)`, a cotangent of each.

    Returns:
        List of tensors, equal to `values`.
    """
    count = len(values)

    @tf.custom_gradient
    def function(*tensors):
        def grad(*cotangents):
            of_values, of_sources = pull_back(list(cotangents))
            return [*of_values, *of_sources]

        return [tf.identity(value) for value in tensors[:count]], grad

    result = function(*values, *sources)
    return list(result) if isinstance(result, (list, tuple)) else [result]


def attach(output, correct):
    """Pass cotangents of `output = f(z*)` through a linear map before they reach `f`.

    Args:
        output: Tensor or nested structure: one recorded evaluation of `f` at its fixed point.
        correct: `(z, d) -> w`: what to put in place of the cotangent `d`, where `z` is the
            output. For the implicit derivative, the solution of `(I - J^T) w = d`.

    Returns:
        The same values. Their derivatives cannot be differentiated: they do not move with `z*`.
    """
    leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(output)]

    def pull_back(cotangents):
        z = tf.nest.map_structure(tf.stop_gradient, tf.nest.pack_sequence_as(output, leaves))
        w = correct(z, tf.nest.pack_sequence_as(output, cotangents))
        return [once_only(leaf) for leaf in tf.nest.flatten(w)], []

    return tf.nest.pack_sequence_as(output, identity_with_gradient(leaves, [], pull_back))


def once_only(tensor):
    """The tensor, with an error in place of its derivative."""
    return tf.raw_ops.PreventGradient(input=tensor, message=_SECOND_ORDER)


def transposed_product(f, z):
    """The map `w -> J^T w` with `J = df/dz`, linearised once: each product is a backward pass."""
    z = tf.nest.map_structure(tf.stop_gradient, z)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(z)
        fz = f(z)

    def product(w):
        return tape.gradient(fz, z, w, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    return product


def adjoint_operator(problem, z):
    """The map `w -> (I - J^T) w` of a `deq_keras.solvers.Problem` or a map at `z`.

    For a gradient step it is the product with the Hessian times the step, computed as such:
    `w - J^T w` has lost the digits of short steps.
    """
    problem = as_problem(problem)
    objective = problem.objective
    if objective is None or objective.gradient is None or objective.proximal is not None:
        product = transposed_product(problem.f, z)
        return lambda w: tf.nest.map_structure(tf.subtract, w, product(w))
    hessian = transposed_product(objective.gradient, z)

    def scaled(leaf):
        step = tf.cast(objective.step, leaf.dtype)
        if step.shape.rank:
            step = tf.reshape(step, [-1] + [1] * (leaf.shape.rank - 1))
        return step * leaf

    return lambda w: tf.nest.map_structure(scaled, hessian(w))


def solve_off_tape(problem, z0, solver, return_state=False):
    """`Solver.solve` of the frozen problem, of whose result nothing is differentiated."""
    frozen = as_problem(problem.frozen)
    stop = tf.nest.map_structure
    frozen = frozen._replace(
        **{
            name: None if value is None else tf.stop_gradient(value)
            for name, value in (("reference", frozen.reference), ("modulus", frozen.modulus))
        }
    )
    result = solver.solve(frozen, stop(tf.stop_gradient, z0), return_state=return_state)
    if return_state:
        return stopped(result[0]), stop(tf.stop_gradient, result[1])
    return stopped(result)


def stopped(solution):
    """A `Solution` that is not differentiated."""
    return Solution(*tf.nest.map_structure(tf.stop_gradient, tuple(solution)))

"""The contract of an adjoint, and the only custom gradient of a fixed point."""

import tensorflow as tf

from deq_keras.config import Configurable
from deq_keras.numerics import partial
from deq_keras.numerics.jacobian import transposed_product
from deq_keras.numerics.partial import Partial
from deq_keras.problems import as_problem

_SECOND_ORDER = (
    "Second derivatives through this implicit solution are not available. Use "
    "adjoint=deq_keras.adjoints.Implicit(higher_order=True), which has derivatives of every order "
    "by the measurement and the weights, or adjoint='unrolled'. For a product with the Jacobian, "
    "the forward mode of tf.autodiff.ForwardAccumulator, take deq_keras.layers.jvp(layer, inputs, "
    "tangents), whatever the adjoint."
)


class Adjoint(Configurable):
    """Base class of adjoints: solves a `Problem`, and passes derivatives through its solution.

    Subclasses define `solve(problem, solver, report) -> (output, Solution)`. `output` is
    differentiable; nothing in the `Solution` is. `report`, if given, is called with the `Solution`
    of each adjoint equation that is solved in a backward pass.

    Example:

    >>> class Constant(deq_keras.adjoints.Adjoint):  # no derivative passes through it
    ...     def solve(self, problem, solver, report=None):
    ...         solution = solver.solve(problem.frozen())
    ...         return solution.value, solution
    >>> problem = deq_keras.solvers.Problem(lambda z: 0.5 * z + 1.0, tf.zeros((1, 1)))
    >>> z, solution = Constant().solve(problem, deq_keras.solvers.Anderson())
    >>> z.numpy().round(3)
    array([[2.]], dtype=float32)
    """

    def solve(self, problem, solver, report=None):
        """The solution, differentiable in what the problem was made from, and its `Solution`."""
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


def once_only(tensor, message=_SECOND_ORDER):
    """The tensor, with an error in place of its derivative."""
    return tf.raw_ops.PreventGradient(input=tensor, message=message)


def adjoint_operator(problem, z):
    """The map `w -> (I - J^T) w` of a `deq_keras.solvers.Problem` or a map at `z`.

    For a gradient step it is a product with the derivative of the gradient, computed as such:
    `w - J^T w` has lost the digits of short steps.
    """
    problem, z = as_problem(problem), tf.nest.map_structure(tf.stop_gradient, z)
    step = problem.step
    if step is None or step.gradient is None or step.proximal is not None:
        product = transposed_product(problem.f, z)
        return lambda w: tf.nest.map_structure(tf.subtract, w, product(w))
    product = transposed_product(step.gradient, z)

    def scaled(leaf):
        length = tf.cast(step.length, leaf.dtype)
        if length.shape.rank:
            length = tf.reshape(length, [-1] + [1] * (leaf.shape.rank - 1))
        return length * leaf

    return lambda w: tf.nest.map_structure(scaled, product(w))


def solve_off_tape(problem, solver, return_state: bool = False):
    """The frozen problem, and the `Solution` that the solver finds of it."""
    frozen = problem.frozen()
    return frozen, partial.stopped(solver.solve(frozen, return_state=return_state))


def at_solution(problem):
    """The map that an adjoint records once, at the fixed point.

    The length of a gradient step moves no fixed point, so no derivative passes through it.
    """
    if problem.record is not None:
        return problem.record
    return _without_step(problem)


def explicit(problem, option):
    """`((z, sources) -> f(z), sources)`: the map as a function of all tensors it depends on.

    Raises:
        ValueError: If the problem hides them.
    """
    f = _without_step(problem)
    if not isinstance(f, Partial):
        raise ValueError(
            f"{option} expected a problem that shows what its map depends on. Received one with "
            "a plain function. Make `f` a `deq_keras.numerics.Partial`, or leave out the option."
        )
    sources = partial.differentiable(f)
    return lambda z, given: partial.replaced(f, sources, given)(z), sources


def _without_step(problem):
    length = problem.step and problem.step.length
    if not tf.is_tensor(length) or not isinstance(problem.f, Partial):
        return problem.f
    return partial.replaced(problem.f, [length], [tf.stop_gradient(length)])

"""Derivatives of every order of a fixed point, by recursion.

For `z = f(z, s)` and a cotangent `d`, the implicit function theorem gives `(df/ds)^T w` with
`w = J^T w + d`. Its own derivative needs that `z` and `w` move with the sources `s`. `w` is a fixed
point too, of the map `g(w) = J(z, s)^T w + d` with the sources `s`, `z` and `d`. So both are
differentiated by the same rule, and what that rule computes is made of differentiable pieces again.
"""

import tensorflow as tf

from deq_keras.adjoints.base import (
    adjoint_operator,
    explicit,
    identity_with_gradient,
    once_only,
)
from deq_keras.numerics import partial

_NOT_THIS_WAY = (
    "Implicit(higher_order=True) has derivatives of every order, in reverse mode, by measurements "
    "and weights. Not available are second derivatives by other tensors that the cell closes "
    "over (pass them with the measurement), and the forward mode of tf.autodiff.ForwardAccumulator "
    "(for a product with the Jacobian take deq_keras.layers.jvp(layer, inputs, tangents))."
)


def output(problem, z, linear_solver, report=None):
    """`f(z)` at the fixed point `z`, differentiable to any order in the tensors of `f`.

    Args:
        problem: A `deq_keras.solvers.Problem` whose map is a `deq_keras.numerics.Partial`.
        z: The fixed point, a tensor or nested structure.
        linear_solver: A `deq_keras.linear_solvers.LinearSolver`.
        report: Callable that receives the `Solution` of each adjoint equation, or `None`.
    """
    f, sources = explicit(problem, "Implicit(higher_order=True)")
    if problem.record is not None:
        problem.record(z)  # for the changes of state alone
    return fixed_point(f, sources, z, linear_solver, report)


def fixed_point(f, sources, z, linear_solver, report=None):
    """The fixed point `z = f(z, sources)`, given its value, with derivatives by the sources.

    Tensors that `f` closes over get a first derivative from the recorded call here, and an error
    in place of a second one, which that call could not give.
    """
    constants = [tf.stop_gradient(source) for source in sources]
    z = tf.nest.map_structure(tf.stop_gradient, z)
    values = f(z, constants)

    def pull_back(cotangents):
        d = tf.nest.pack_sequence_as(z, cotangents)
        moving = fixed_point(f, sources, z, linear_solver)
        w = _adjoint_state(f, sources, moving, d, linear_solver, report)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            fz = f(moving, sources)
        of_sources = tape.gradient(
            fz, sources, w, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        return [once_only(leaf, _NOT_THIS_WAY) for leaf in tf.nest.flatten(w)], of_sources

    leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(values)]
    return tf.nest.pack_sequence_as(z, identity_with_gradient(leaves, sources, pull_back))


def _adjoint_state(f, sources, z, d, linear_solver, report):
    """The solution of `w = J^T w + d`, differentiable in all it depends on."""
    count, structure = len(sources), z
    leaves = [*tf.nest.flatten(z), *tf.nest.flatten(d)]

    def g(w, given):
        given_z, given_d = (
            tf.nest.pack_sequence_as(structure, part)
            for part in (given[count : count + len(leaves) // 2], given[count + len(leaves) // 2 :])
        )
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(given_z)
            fz = f(given_z, given[:count])
        product = tape.gradient(fz, given_z, w, unconnected_gradients=tf.UnconnectedGradients.ZERO)
        return tf.nest.map_structure(tf.add, product, given_d)

    constants = [tf.stop_gradient(source) for source in sources]
    found = linear_solver.solve(
        adjoint_operator(lambda z: f(z, constants), z),
        tf.nest.map_structure(tf.stop_gradient, d),
    )
    if report is not None:
        report(partial.stopped(found))
    return fixed_point(g, [*sources, *leaves], found.value, linear_solver)

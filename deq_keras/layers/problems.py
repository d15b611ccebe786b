"""From a cell and a measurement to the fixed-point problem that solvers and adjoints see."""

import keras
import tensorflow as tf

from deq_keras import solvers
from deq_keras.adjoints import FixedPointProblem
from deq_keras.layers.calling import call_cell


def fixed_point_problem(cell, y, training, symmetric=False):
    """The problem `z = cell(z, y)`.

    While a solver iterates it, the cell sees a snapshot of its variables: the masks of dropout and
    the statistics of normalisation are the same in all evaluations of a solve.

    Args:
        cell: See `deq_keras.layers.Equilibrium`.
        y: Measurement, a tensor or structure of them.
        training: Passed on to the cell.
        symmetric: Whether the Jacobian of a cell that does not say so itself is symmetric.

    Returns:
        A `deq_keras.adjoints.FixedPointProblem`.
    """
    inputs = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(y)]
    recorded = [(v, tf.convert_to_tensor(v)) for v in (*cell.variables, *cell.metrics_variables)]
    stopped = [(v, tf.stop_gradient(value)) for v, value in recorded]
    stopped_y = tf.nest.map_structure(tf.stop_gradient, y)
    of_inputs = [i for i, leaf in enumerate(inputs) if leaf.dtype.is_floating]
    of_state = [i for i, (_, value) in enumerate(recorded) if value.dtype.is_floating]

    def explicit(z, sources):
        leaves, state = list(inputs), list(recorded)
        for i, source in zip(of_inputs, sources, strict=False):
            leaves[i] = source
        for i, source in zip(of_state, sources[len(of_inputs) :], strict=True):
            state[i] = (state[i][0], source)
        return _evaluator(cell, tf.nest.pack_sequence_as(y, leaves), state, training)(z)

    convex = bool(getattr(cell, "is_convex", False))
    return FixedPointProblem(
        call=_committing(cell, y, recorded, training),
        pure=lambda: describe(cell, y, recorded, training),
        frozen=describe(cell, stopped_y, stopped, training),
        symmetric=bool(getattr(cell, "has_energy", symmetric)),
        convex=convex,
        explicit=explicit,
        sources=[*(inputs[i] for i in of_inputs), *(recorded[i][1] for i in of_state)],
        preconditioner=_preconditioner(cell, stopped_y, stopped),
    )


def describe(cell, y, state, training):
    """The map for a snapshot of state, and what the cell says of it, for a solver."""
    with _snapshot(state):
        if hasattr(cell, "describe"):
            bound, known = cell.describe(y)
        else:
            bound = None
            known = {
                name: getattr(cell, name)(y)
                for name in ("reference", "modulus", "objective")
                if hasattr(cell, name)
            }

    def take(index):
        def rows(leaf):
            # What is the same for all images has one row.
            return tf.gather(leaf, tf.minimum(index, tf.shape(leaf)[0] - 1))

        return describe(cell, tf.nest.map_structure(rows, y), state, training)

    return solvers.Problem(_evaluator(cell, y, state, training, bound), take=take, **known)


def _committing(cell, y, state, training):
    """The map `z -> cell(z, y)` that changes the state and adds losses as a call of the cell does.

    It reads the snapshot too: a layer that assigns its kernel before it is used (spectral
    normalisation) then has the derivative of what is computed, by the kernel that was there.
    """

    def f(z):
        scope = keras.StatelessScope(state_mapping=state, collect_losses=True)
        result = _evaluator(cell, y, scope, training)(z)
        for variable, old in state:
            new = scope.get_current_value(variable)
            if new is not old:
                variable.assign(new)
        for loss in scope.losses:
            cell.add_loss(loss)
        return result

    return f


def _evaluator(cell, y, state, training, bound=None):
    """The map `z -> cell(z, y)` for a snapshot of state, or in a scope of Keras."""
    bound = bound or _bound(cell, y, state, training)

    def f(z):
        with _snapshot(state):
            result = bound(z)
        tf.nest.assert_same_structure(result, z)
        return tf.nest.map_structure(lambda new, old: tf.cast(new, old.dtype), result, z)

    return f


def _bound(cell, y, state, training):
    if not hasattr(cell, "bind"):
        return lambda z: call_cell(cell, z, y, training)
    with _snapshot(state):
        return cell.bind(y)


def _preconditioner(cell, y, state):
    if not hasattr(cell, "preconditioner"):
        return None

    def at(z):
        with _snapshot(state):
            make = cell.preconditioner(y)
            return None if make is None else make(z)

    return at


def _snapshot(state):
    """Reads of variables give the snapshot, and changes of them are dropped."""
    if isinstance(state, keras.StatelessScope):
        return state
    return keras.StatelessScope(state_mapping=state)

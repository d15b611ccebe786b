"""Solves of layers and of whole Keras models, compiled: what is found, and how well."""

import keras
import tensorflow as tf

import deq_keras as dk


def solving_layers(model):
    """The layers of a Keras model that have a method `solve`, in nested models as well."""
    if hasattr(model, "solve"):
        return [model]
    return [found for layer in getattr(model, "layers", ()) for found in solving_layers(layer)]


class LayerSolver:
    """A layer whose solves are compiled, once for all measurements.

    Called eagerly, a solver's loop runs in Python, which is slow. The values of weights may change
    between the solves; after a change of a hyperparameter another `LayerSolver` is needed.

    Args:
        layer: A built layer with a method `solve`.
    """

    def __init__(self, layer):
        self.layer = layer
        self._solve = _compiled(layer.solve)
        self._history = _compiled(lambda y: layer.solve(y, return_history=True))
        self._within = tf.function(
            lambda y, limit: layer.solve(y, max_steps=limit), autograph=False, reduce_retracing=True
        )

    def solve(self, measurement):
        """The `deq_keras.solvers.Solution` of a batch of measurements."""
        return self._solve(measurement)

    def solve_within(self, measurement, max_steps):
        """The solution after at most `max_steps` evaluations of the map."""
        return self._within(measurement, tf.constant(max_steps))

    def residuals(self, measurement):
        """The relative residuals `(steps, batch)` of a solve, at every evaluation of the map."""
        solution = self._history(measurement)
        return solution.history[: tf.reduce_max(solution.steps)]

    def error_bound(self, measurement, value):
        """How far some images are from the solutions, `(value, certified)`: see the layer."""
        return self.layer.error_bound(measurement, value)


class ModelSolver:
    """A Keras model in the place of a layer with `solve`: what its layers say of their solves.

    Args:
        model: A built Keras model. What solves inside of a layer that is not a model is not seen,
            nor is anything inside of a model whose graph Keras does not know (a subclass).

    Attributes:
        layers: Pairs of a `LayerSolver` and the function from the model's input to its input.
    """

    def __init__(self, model):
        # Graphs: the loops of a solver are slow without. Of several outputs the last is the image,
        # as it is for a `CorrectedEquilibrium`.
        self.reconstruct = _compiled(lambda y: tf.nest.flatten(model(y, training=False))[-1])
        self.layers = [
            (LayerSolver(layer), _compiled(lambda y, before=before: before(y, training=False)))
            for layer in solving_layers(model)
            if (before := _model_before(layer, model)) is not None
        ]

    def solve(self, measurement):
        """The image, and for each row the total of steps, the worst residual, all converged.

        Where no solve is seen the `deq_keras.Solution` holds nothing but the image.
        """
        value = self.reconstruct(measurement)
        found = [solver.solve(before(measurement)) for solver, before in self.layers]
        if not found:
            return dk.solvers.Solution(value, None, None, None)
        return dk.solvers.Solution(
            value,
            tf.reduce_max([solution.residual for solution in found], axis=0),
            tf.reduce_sum([solution.steps for solution in found], axis=0),
            tf.reduce_all([solution.converged for solution in found], axis=0),
        )


def solver_of(model):
    """A `LayerSolver` of a model that is nothing but a layer with `solve`, else a `ModelSolver`."""
    for layer in solving_layers(model):
        if _model_before(layer, model) is not None:
            ends = [tf.nest.flatten(part) for part in (model.inputs, model.outputs)]
            own = [tf.nest.flatten(part) for part in (layer.input, layer.output)]
            if [[id(x) for x in end] for end in ends] == [[id(x) for x in end] for end in own]:
                return LayerSolver(layer)
    return ModelSolver(model)


def _compiled(function):
    return tf.function(lambda y: function(y), autograph=False, reduce_retracing=True)


def _model_before(layer, model):
    """The part of a model from its input to that of a layer; `None` if Keras does not know it."""
    try:
        return keras.Model(model.inputs, layer.input)
    except (AttributeError, ValueError):  # never called, or more than once, or in another graph
        return None

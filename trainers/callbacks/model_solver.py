"""The solves inside of a Keras model: which of its layers solve, and what they say of it."""

import keras
import tensorflow as tf

import deq_keras as dk


def solving_layers(model):
    """The layers of a Keras model that have a method `solve`, in nested models as well."""
    if hasattr(model, "solve"):
        return [model]
    return [found for layer in getattr(model, "layers", ()) for found in solving_layers(layer)]


class ModelSolver:
    """A Keras model in the place of a layer with `solve`: what its layers say of their solves.

    Args:
        model: A built Keras model. What solves inside of a layer that is no model is not seen, nor
            is anything inside of a model whose graph Keras does not know (a subclass).

    Attributes:
        layers: Pairs of a layer with `solve` and the function from the model's input to its input.
    """

    def __init__(self, model):
        # Graphs: the loops of a solver are slow without. Of several outputs the last is the image,
        # as it is for a layer with `corrections`.
        self.reconstruct = _compiled(
            lambda y, training: tf.nest.flatten(model(y, training=training))[-1]
        )
        self.layers = [
            (layer, _compiled(before))
            for layer in solving_layers(model)
            if (before := _model_before(layer, model)) is not None
        ]

    def solve(self, measurement):
        """The image, and for each row the total of steps, the worst residual, all converged.

        Where no solve is seen the `deq_keras.Solution` holds nothing but the image.
        """
        value = self.reconstruct(measurement)
        found = [layer.solve(before(measurement)) for layer, before in self.layers]
        if not found:
            return dk.solvers.Solution(value, None, None, None)
        return dk.solvers.Solution(
            value,
            tf.reduce_max([solution.residual for solution in found], axis=0),
            tf.reduce_sum([solution.steps for solution in found], axis=0),
            tf.reduce_all([solution.converged for solution in found], axis=0),
        )


def solver_of(model):
    """The layer of a model that is nothing but a layer with `solve`, else a `ModelSolver`."""
    for layer in solving_layers(model):
        if _model_before(layer, model) is not None:
            ends = [tf.nest.flatten(part) for part in (model.inputs, model.outputs)]
            own = [tf.nest.flatten(part) for part in (layer.input, layer.output)]
            if [[id(x) for x in end] for end in ends] == [[id(x) for x in end] for end in own]:
                return layer
    return ModelSolver(model)


def _compiled(model):
    return tf.function(
        lambda inputs: model(inputs, training=False), autograph=False, reduce_retracing=True
    )


def _model_before(layer, model):
    """The part of a model from its input to that of a layer; `None` if Keras does not know it."""
    try:
        return keras.Model(model.inputs, layer.input)
    except (AttributeError, ValueError):  # never called, or more than once, or in another graph
        return None

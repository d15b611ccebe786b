"""Solves of layers and of whole Keras models, compiled: what is found, and how well."""

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
        self._solve = _compiled(lambda y, start: layer.solve(y, initial_value=start))
        self._history = _compiled(lambda y: layer.solve(y, return_history=True))
        self._within = _compiled(lambda y, limit: layer.solve(y, max_steps=limit))

    def solve(self, measurement, initial_value=None):
        """The `deq_keras.solvers.Solution` of a batch of measurements, maybe from a start."""
        return self._solve(measurement, initial_value)

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
        model: A Keras model. What solves in layers that are no part of this library is not seen.
    """

    def __init__(self, model):
        def observed(measurement):
            with dk.layers.observe() as observation:
                # Of several outputs the last is the image, as for a `CorrectedEquilibrium`.
                image = tf.nest.flatten(model(measurement, training=False))[-1]
            each = [(seen.layer.name, seen.solution._replace(value=())) for seen in observation]
            return observation.solution(image), dict(each)

        # A graph: the loops of a solver are slow without.
        self._observed = _compiled(observed)

    def solve(self, measurement):
        """The image, and for each row the total of steps, the worst residual, all converged.

        Where no solve is seen the `deq_keras.solvers.Solution` holds nothing but the image.
        """
        return self.solve_each(measurement)[0]

    def solve_each(self, measurement):
        """`solve`, and a dictionary from the names of layers to what each of them says."""
        return self._observed(measurement)


def solver_of(model):
    """A `LayerSolver` of a model that is nothing but a layer with `solve`, else a `ModelSolver`."""
    layer = sole_layer(model)
    return ModelSolver(model) if layer is None else LayerSolver(layer)


def sole_layer(model):
    """The layer with `solve` that a Keras model is, if it is nothing but such a layer."""
    for layer in solving_layers(model):
        try:
            own = [layer.input, layer.output]
        except (AttributeError, ValueError):  # never called, or more than once, or in another graph
            continue
        ends = [model.inputs, model.outputs]
        if [[id(x) for x in tf.nest.flatten(end)] for end in ends] == [
            [id(x) for x in tf.nest.flatten(end)] for end in own
        ]:
            return layer
    return None


def _compiled(function):
    return tf.function(lambda *inputs: function(*inputs), autograph=False, reduce_retracing=True)

"""How an equilibrium calls a cell that is any Keras layer or model."""

import inspect

import keras

from deq_keras.layers.cells import is_shape


class WithTraining(keras.layers.Layer):
    """Gives the layers that a function calls a `training` flag that it does not take itself."""

    def __init__(self, function, **kwargs):
        super().__init__(autocast=False, name="cell", **kwargs)
        self.function = function
        self.built = True

    def call(self, *inputs, training=None):
        return self.function(*inputs)


def call_cell(cell, z, y, training):
    """`cell(z, y)`, or `cell([z, y])` if its `call` takes one argument, in training or not."""
    parameters = inspect.signature(cell.call).parameters
    positional = [
        p
        for p in parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        and p.name not in ("training", "mask")
    ]
    variadic = any(p.kind == p.VAR_POSITIONAL for p in parameters.values())
    together = len(positional) < 2 and not variadic

    def call(z, y, **kwargs):
        return cell([z, y], **kwargs) if together else cell(z, y, **kwargs)

    if "training" in parameters:
        return call(z, y, training=training)
    return WithTraining(call)(z, y, training=training)


class InitialState(keras.Operation):
    """A cell's `initial_state` for symbolic tensors."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def call(self, y):
        return self.cell.initial_state(y)


def first_shape(shape):
    """The first shape in a nested structure of shapes: that of the measurement."""
    if is_shape(shape):
        return tuple(shape)
    return first_shape(shape[min(shape) if isinstance(shape, dict) else 0])


def symbolic(shape, dtype):
    """Symbolic tensors for a nested structure of shapes."""
    if is_shape(shape):
        return keras.KerasTensor(shape, dtype)
    if isinstance(shape, dict):
        return {name: symbolic(part, dtype) for name, part in shape.items()}
    return [symbolic(part, dtype) for part in shape]

"""Partial functions, which show the tensors that they depend on beside their arguments.

A closure hides what it was made from. A `Partial` shows it, so that what was computed once can be
used in several ways: cut off from gradients for a solver, as it is for the one evaluation that a
tape records, for some rows of the batch, or with other tensors in place of its own.
"""

from collections.abc import Callable
from typing import NamedTuple

import keras
import tensorflow as tf


class Partial(NamedTuple):
    """The function `(*arguments) -> function(*arguments, *shared, *rows)`.

    It is a structure of tensors for `tf.nest`, like every named tuple, and may hold other partial
    functions in `shared`.

    Attributes:
        function: Callable that depends on nothing but its arguments.
        shared: Tuple of tensors, structures of them, or partial functions.
        rows: Tuple of tensors (or structures of them) with a row per image: the first axis is that
            of the batch, or has length one where all images share a row. `None` is left alone.

    Example:

    >>> scale = deq_keras.numerics.Partial(lambda u, a: a * u, shared=(tf.constant(2.0),))
    >>> float(scale(tf.constant(3.0)))
    6.0
    """

    function: Callable
    shared: tuple = ()
    rows: tuple = ()

    def __call__(self, *arguments):
        return self.function(*arguments, *self.shared, *self.rows)


def of_layer(layers, function, rows=()):
    """The partial function `(*arguments) -> function(*arguments, *rows)` of Keras layers.

    It reads a snapshot of their variables, which are its shared tensors, and drops what it assigns
    to them: it has no side effects, and a solver may iterate it.

    Args:
        layers: A Keras layer, or a list of layers.
        function: A method of theirs, or what calls one.
        rows: As in `Partial`.
    """
    layers = layers if isinstance(layers, (list, tuple)) else [layers]
    variables = [v for layer in layers for v in (*layer.variables, *layer.metrics_variables)]
    count = len(rows)

    def evaluate(*arguments):
        place = len(arguments) - count - 1
        mapping = list(zip(variables, arguments[place], strict=True))
        with keras.StatelessScope(state_mapping=mapping):
            return function(*arguments[:place], *arguments[place + 1 :])

    return Partial(evaluate, ([tf.convert_to_tensor(v) for v in variables],), tuple(rows))


def stopped(structure):
    """The structure with each of its tensors cut off from gradients."""
    tensors = _distinct(structure)
    return replaced(structure, tensors, [tf.stop_gradient(tensor) for tensor in tensors])


def differentiable(structure):
    """The distinct floating-point and complex tensors in a structure, in its order."""
    return [t for t in _distinct(structure) if t.dtype.is_floating or t.dtype.is_complex]


def replaced(structure, old, new):
    """The structure with each tensor of the list `old` replaced by that of `new`."""
    table = {id(before): after for before, after in zip(old, new, strict=True)}
    return tf.nest.map_structure(lambda leaf: table.get(id(leaf), leaf), structure)


def take_rows(structure, index):
    """The structure for some rows of the batch.

    Args:
        structure: Partial functions, in structures of any kind; other leaves stay as they are.
        index: Integer tensor `(k,)`.
    """
    if isinstance(structure, Partial):
        shared, rows = take_rows(structure.shared, index), gather(structure.rows, index)
        return Partial(structure.function, shared, rows)
    if isinstance(structure, dict):
        return {key: take_rows(part, index) for key, part in structure.items()}
    if isinstance(structure, (list, tuple)):
        parts = [take_rows(part, index) for part in structure]
        return type(structure)(*parts) if hasattr(structure, "_fields") else type(structure)(parts)
    return structure


def gather(structure, index):
    """The rows `index` of each tensor; one with a single row has it for all images."""

    def rows(leaf):
        return (
            tf.gather(leaf, tf.minimum(index, tf.shape(leaf)[0] - 1))
            if tf.is_tensor(leaf)
            else leaf
        )

    return tf.nest.map_structure(rows, structure)


def _distinct(structure):
    found = {id(leaf): leaf for leaf in tf.nest.flatten(structure) if tf.is_tensor(leaf)}
    return list(found.values())

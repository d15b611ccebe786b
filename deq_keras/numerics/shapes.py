"""Shapes of images, measurements and data, as far as they are known."""

import tensorflow as tf


def tensors_of(structure):
    """The structure with each array turned into a tensor; `None` is left alone."""
    return tf.nest.map_structure(
        lambda leaf: None if leaf is None else tf.convert_to_tensor(leaf), structure
    )


def sizes_of(tensor):
    """The shape as a tuple of integers, and of scalar tensors where a size is not known."""
    static = tf.TensorShape(tensor.shape)
    if static.rank is None or static.is_fully_defined():
        return tuple(static)
    dynamic = tf.shape(tensor)
    return tuple(dynamic[axis] if size is None else size for axis, size in enumerate(static))


def static_shape(shape):
    """The shape as a tuple of integers, and of `None` where a size is not known."""
    return tuple(
        None if size is None else tf.get_static_value(size) if tf.is_tensor(size) else size
        for size in shape
    )


def shapes_of(structure, static=False):
    """The shape of each tensor in a structure of lists, tuples and dictionaries; `None` stays.

    Args:
        structure: Tensors or symbolic tensors.
        static: Whether sizes that are not known are `None`; else they are scalar tensors.
    """
    if structure is None:
        return None
    if isinstance(structure, dict):
        return {key: shapes_of(part, static) for key, part in structure.items()}
    if isinstance(structure, (list, tuple)):
        return [shapes_of(part, static) for part in structure]
    return tuple(structure.shape) if static else sizes_of(tf.convert_to_tensor(structure))


def map_shapes(function, shapes):
    """Applies a function to each shape in a structure of them; `None` stays."""
    if shapes is None:
        return None
    if isinstance(shapes, dict):
        return {key: map_shapes(function, part) for key, part in shapes.items()}
    if isinstance(shapes, list | tuple) and any(_is_nested(part) for part in shapes):
        return [map_shapes(function, part) for part in shapes]
    return function(tuple(shapes))


def check_like(what, value, like, advice=""):
    """Raises a `ValueError` unless tensors are nested as others, and of their shapes but the batch.

    Args:
        what: Whose result it is, for the message.
        value: Nested structure of tensors, symbolic ones too.
        like: Another one.
        advice: A sentence for the message.
    """
    pairs = zip(tf.nest.flatten(value), tf.nest.flatten(like), strict=False)
    try:
        tf.nest.assert_same_structure(value, like)
        fits = all(_fits(tf.TensorShape(a.shape), tf.TensorShape(b.shape)) for a, b in pairs)
    except (AttributeError, TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"Expected {what} to return what it is given, nested and shaped in the same way: "
            f"{_words(like)}. Received {_words(value)}.{advice}"
        )


def _fits(shape, like):
    return shape[1:].is_compatible_with(like[1:])


def _words(structure):
    shapes = tf.nest.map_structure(
        lambda leaf: _Text(tuple(leaf.shape)) if hasattr(leaf, "shape") else leaf, structure
    )
    if isinstance(shapes, list) and len(shapes) == 1:
        shapes = shapes[0]
    return f"a tensor of shape {shapes!r}" if isinstance(shapes, _Text) else repr(shapes)


class _Text(str):
    """A shape, so that it is no structure itself."""

    def __new__(cls, shape):
        return super().__new__(cls, str(shape))

    __repr__ = str.__str__


def is_known(shape):
    """Whether no size is `None`."""
    return all(size is not None for size in shape)


def _is_nested(part):
    return isinstance(part, list | tuple | dict | tf.TensorShape)

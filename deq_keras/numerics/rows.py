"""A nested structure of `(batch, ...)` tensors seen as one `(batch, n)` matrix.

Solvers treat every image of a batch as a problem of its own: a row. They are written for
matrices of rows and need to know neither image shapes nor nesting; a reshape costs nothing.

Outside of graphs an operation on small images costs less than a list of integers beside it, or an
index in brackets; so shapes that are known are arrays here.
"""

import numpy as np
import tensorflow as tf

from deq_keras.numerics.shapes import check_like


def to_rows(structure):
    """The structure as a `(batch, n)` matrix, and the function that turns it back."""
    leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(structure)]
    shapes = [_shape_of_rows(leaf) for leaf in leaves]
    # A map may be asked for fewer rows (solvers that compact), so their number is not fixed here.
    static = [[None, *leaf.shape[1:]] for leaf in leaves]

    def ravel(nested):
        parts = tf.nest.flatten(nested)
        check_like("the map", parts, leaves)
        parts = [flat(leaf) for leaf in parts]
        return parts[0] if len(parts) == 1 else tf.concat(parts, axis=1)

    def unravel(rows):
        if len(leaves) == 1:
            parts = [rows]
        else:
            parts = tf.split(rows, [tf.reduce_prod(shape[1:]) for shape in shapes], axis=1)
        parts = [
            tf.ensure_shape(tf.reshape(part, shape), known)
            for part, shape, known in zip(parts, shapes, static, strict=True)
        ]
        return tf.nest.pack_sequence_as(structure, parts)

    return ravel(structure), ravel, unravel


def at_least_one(structure):
    """A structure of `(batch, ...)` tensors in which a batch of no rows has one of ones.

    A replica gets none of the last batch, and TensorFlow's convolutions and paddings fail for such
    a batch. What is made of it is cut off by `first_rows`.

    Returns:
        The structure, and the number of rows; `None` if it is known that there are some.
    """
    leaves = [leaf for leaf in tf.nest.flatten(structure) if _may_be_empty(leaf)]
    if not leaves:
        return structure, None

    def extended(leaf):
        if not _may_be_empty(leaf):
            return leaf
        shape = tf.shape(leaf)
        missing = tf.cast(shape[:1] < 1, tf.int32)
        more = tf.ones(tf.concat([missing, shape[1:]], 0), leaf.dtype)
        return tf.ensure_shape(tf.concat([leaf, more], 0), [None, *leaf.shape[1:]])

    return tf.nest.map_structure(extended, structure), tf.shape(leaves[0])[0]


def first_rows(structure, count):
    """The first `count` rows of each tensor; all if it is `None`."""
    if count is None:
        return structure
    return tf.nest.map_structure(lambda t: t[:count] if tf.is_tensor(t) else t, structure)


def _may_be_empty(leaf):
    return tf.is_tensor(leaf) and bool(leaf.shape.rank) and not leaf.shape[0]


def flat(leaf):
    """A tensor `(batch, ...)` as a `(batch, n)` matrix."""
    size = leaf.shape[1:].num_elements()
    if size:
        return tf.reshape(leaf, np.array([-1, size], np.int32))
    return tf.reshape(leaf, (tf.shape(leaf)[0], -1))


def first(a):
    """The first number of each row, `(batch,)`; quicker than `a[:, 0]`."""
    return tf.squeeze(tf.slice(a, _ORIGIN, _FIRST_COLUMN), 1)


def dot(a, b, keepdims=False):
    """Inner product of each row of `a` with the same row of `b`: `(batch,)`, or `(batch, 1)`."""
    return tf.reduce_sum(a * b, axis=-1, keepdims=keepdims)


def norm(a, keepdims=False):
    """Euclidean norm of each row: `(batch,)`, or `(batch, 1)` with `keepdims`."""
    return tf.sqrt(dot(a, a, keepdims))


def column(a):
    """A number of each row, `(batch,)`, as `(batch, 1)`: to multiply rows with."""
    return tf.expand_dims(a, 1)


def scaled(a, factor):
    """Each row of `a` times its number of `factor` `(batch,)`; zero where that is zero.

    A row that has stopped takes zero steps, even where its entries have become infinite or NaN.
    """
    return tf.math.multiply_no_nan(a, column(factor))


def where(condition, a, b):
    """`a` in the rows where `condition` `(batch,)` holds, `b` elsewhere; no NaN gets through.

    The rows may be numbers, vectors or images.
    """
    return tf.where(tf.reshape(condition, [-1] + [1] * (a.shape.rank - 1)), a, b)


def safe_divide(a, b):
    """`a / b` with broadcasting, and zero where `b` is zero (its gradient is zero there too)."""
    return tf.math.divide_no_nan(a, b)


def ranks_only(loop):
    """Shape invariants of a `tf.while_loop` that fix ranks alone.

    A map of rows may know less about the shape of its result than of its argument.
    """
    return tf.nest.map_structure(
        lambda t: tf.TensorShape([None] * t.shape.rank) if tf.is_tensor(t) else None, loop
    )


_ORIGIN, _FIRST_COLUMN = np.array([0, 0], np.int32), np.array([-1, 1], np.int32)


def _shape_of_rows(leaf):
    """The shape of a tensor with any number of rows, an array if it is known."""
    if leaf.shape[1:].is_fully_defined():
        return np.array([-1, *leaf.shape[1:]], np.int32)
    return tf.concat([[-1], tf.shape(leaf)[1:]], axis=0)

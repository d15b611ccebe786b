"""Small dense systems, one for each image, in elementary operations.

LiteRT and ONNX have these; they lack `tf.linalg.solve` and `tf.linalg.triangular_solve`.
"""

import numpy as np
import tensorflow as tf


def solve_positive_definite(matrix, right, size):
    """Solve symmetric positive definite systems by Gauss-Jordan elimination.

    A pivot that rounding made nonpositive, beside a diagonal of about one, takes its unknown out
    of the system: that is zero in the result.

    Args:
        matrix: `(batch, size, size)`, scaled to have a diagonal of about one.
        right: `(batch, size)`.
        size: Python integer; the elimination is unrolled.

    Returns:
        `(batch, size)`.
    """

    def part(x, begin, size):
        return tf.slice(x, np.array(begin, np.int32), np.array(size, np.int32))

    augmented = tf.concat([matrix, tf.expand_dims(right, 2)], axis=-1)
    eps = np.finfo(matrix.dtype.as_numpy_dtype).eps
    for i in range(size):
        row = part(augmented, (0, i, 0), (-1, 1, -1))
        pivot = part(row, (0, 0, i), (-1, 1, 1))
        row = tf.math.divide_no_nan(row, tf.where(pivot > eps, pivot, tf.zeros_like(pivot)))
        column = part(augmented, (0, 0, i), (-1, -1, 1))
        here = np.arange(size)[None, :, None] == i
        augmented = tf.where(here, row, augmented - column * row)
    return tf.squeeze(part(augmented, (0, 0, size), (-1, -1, 1)), 2)


def with_newest(gram, row, size):
    """The Gram matrix when the newest of `size` vectors comes in front and the oldest leaves.

    Args:
        gram: `(batch, size, size)`, inner products of the vectors so far, newest first.
        row: `(batch, size)`, inner products of the new vector with itself and with those that stay.
        size: Python integer.

    Returns:
        `(batch, size, size)`.
    """
    # A slice by arrays is quicker than an index in brackets.
    kept = tf.slice(gram, *np.array([(0, 0, 0), (-1, size - 1, size - 1)], np.int32))
    side = tf.slice(row, *np.array([(0, 1), (-1, size - 1)], np.int32))
    gram = tf.concat([tf.expand_dims(side, 2), kept], axis=2)
    return tf.concat([tf.expand_dims(row, 1), gram], axis=1)

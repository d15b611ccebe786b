"""Small dense systems, one for each image, in elementary operations.

LiteRT and ONNX have those; `tf.linalg.solve` and `tf.linalg.triangular_solve` they have not.
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
    augmented = tf.concat([matrix, right[..., None]], axis=-1)
    eps = np.finfo(matrix.dtype.as_numpy_dtype).eps
    for i in range(size):
        pivot = augmented[:, i, i]
        usable = pivot > eps
        row = tf.where(usable[:, None], augmented[:, i, :], tf.zeros_like(augmented[:, i, :]))
        row /= tf.where(usable, pivot, tf.ones_like(pivot))[:, None]
        column = augmented[:, :, i] * (1.0 - tf.one_hot(i, size, dtype=matrix.dtype))
        augmented -= column[:, :, None] * row[:, None, :]
        here = tf.one_hot(i, size, dtype=matrix.dtype)[None, :, None]
        augmented = augmented * (1.0 - here) + here * row[:, None, :]
    return augmented[:, :, -1]

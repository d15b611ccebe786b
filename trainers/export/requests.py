"""Checks of a request, as operations of its graph: a wrong one fails, and no other."""

import tensorflow as tf


def checked(inputs, max_pixels):
    """The tensors, with an error where they are empty, not finite, too large, or of two batches.

    Args:
        inputs: Tensors `(batch, ...)`.
        max_pixels: Limit of height times width.

    Raises:
        tf.errors.InvalidArgumentError: With what was expected and received.

    Example:

    >>> checked([tf.zeros((1, 2, 2, 1))], max_pixels=3)
    Traceback (most recent call last):
    ...
    tensorflow.python.framework.errors_impl.InvalidArgumentError: ...
    """
    counts = check_counts(inputs)
    found = []
    for tensor in inputs:
        tensor = tf.ensure_shape(tensor, tensor.shape)  # a server may hand on anything
        shape = tf.shape(tensor)
        checks = [_require(tf.size(tensor) > 0, "Expected an image. Received the shape", shape)]
        if tensor.shape.rank == 4 and max_pixels < float("inf"):
            pixels = tf.cast(shape[1], tf.int64) * tf.cast(shape[2], tf.int64)
            message = f"Expected at most {max_pixels} pixels. Received the shape"
            checks.append(_require(pixels <= max_pixels, message, shape))
        size = tf.abs(tensor) if tensor.dtype.is_complex else tensor
        finite = tf.reduce_all(tf.math.is_finite(size))
        message = "Expected finite numbers. Received NaN or infinite ones, in the shape"
        checks.append(_require(finite, message, shape))
        with tf.control_dependencies(_operations(counts, *checks)):
            found.append(tf.identity(tensor))
    return found


def check_counts(inputs):
    """Raises an error unless all tensors have the same number of rows, one at least."""
    counts = tf.stack([tf.shape(tensor)[0] for tensor in inputs])
    message = "Expected as many of each input, and one at least. Received"
    return _require(tf.reduce_all(counts == tf.maximum(counts[0], 1)), message, counts)


def for_each(name, value, count):
    """A limit for each image: `(batch,)`, or one number for all."""
    fits = tf.reduce_all((tf.shape(value) == count) | (tf.shape(value) == 1))
    message = f"Expected {name} to have one number, or one for each image. Received the shape"
    with tf.control_dependencies(_operations(_require(fits, message, tf.shape(value)))):
        return tf.broadcast_to(value, count)


def _operations(*checks):
    return [check for check in checks if check is not None]  # out of graphs they are none


def _require(condition, message, value):
    return tf.debugging.Assert(condition, [message, value], summarize=8)

"""Norms by power iteration: an estimate, and a bound for operators without negative entries."""

import numpy as np
import tensorflow as tf

from deq_keras.numerics.partial import stopped
from deq_keras.numerics.shapes import static_shape

STEPS = 30
SAFETY = 1.05  # power iteration approaches the norm from below
SEED = (0, 0)
BOUND_STEPS = 3


def operator_norm(operator, data, image_shape):
    """`1.05 * ||K u||` for the unit image `u` that 30 power iterations found.

    Args:
        operator: A `LinearOperator`.
        data: Its data; then each image has its own norm.
        image_shape: `(batch, height, width, channels)`, integers or scalar tensors; the batch may
            be `None` if there are no data.

    Returns:
        A scalar tensor, `(batch,)` if there are data. Its derivative is that of the norm for a
        fixed image.
    """
    alone = all(leaf is None for leaf in tf.nest.flatten(data))
    needed = [] if image_shape is None else list(image_shape)[1 if alone else 0 :]
    if not needed or any(size is None for size in needed):
        name = type(operator).__name__
        received = None if image_shape is None else static_shape(image_shape)
        raise ValueError(
            f"{name}.operator_norm is estimated on images of the real size. Received "
            f"image_shape={received}. Pass `image_shape=(batch, height, width, channels)`, or "
            "define `operator_norm(data=None, image_shape=None)`, an upper bound."
        )
    batch = 1 if alone else needed[0]
    sizes = needed if alone else needed[1:]
    dtype = tf.as_dtype(operator.compute_dtype)
    precise = tf.float64 if dtype == tf.float64 else tf.float32
    normal = operator.bind((batch, *sizes), data, dtype).normal
    fixed = stopped(normal)

    def unit(u):
        norm = tf.sqrt(tf.reduce_sum(u**2, axis=(1, 2, 3), keepdims=True))
        return u / tf.where(norm > 0, norm, 1)

    def iterate(u):
        return (unit(tf.cast(fixed(tf.cast(u, dtype)), precise)),)

    # All images start alike, so that none depends on its companions; the mean of blurs and
    # sums, whose largest singular vector is smooth, is in it.
    start = 1 + tf.random.stateless_normal((1, *sizes), SEED, dtype=precise)
    start = unit(tf.broadcast_to(start, (batch, *sizes)))
    (u,) = tf.while_loop(lambda u: True, iterate, (start,), maximum_iterations=STEPS)
    u = tf.stop_gradient(u)
    square = tf.reduce_sum(u * tf.cast(normal(tf.cast(u, dtype)), precise), axis=(1, 2, 3))
    positive = square > 0
    norm = SAFETY * tf.where(positive, tf.sqrt(tf.where(positive, square, 1)), 0)
    return tf.cast(norm[0] if alone else norm, operator.variable_dtype)


def nonnegative_norm(normal, shape, dtype):
    """An upper bound on the norm of an operator `K` with no negative entry, proven.

    The largest eigenvalue of `K^T K` is then at most the largest ratio of `K^T K x` to `x` in a
    pixel, for each image `x > 0` (Collatz and Wielandt); power iteration makes the ratios alike.

    Args:
        normal: `u -> K^T K u`.
        shape: Of an image, `(1, height, width, channels)`, integers or scalar tensors.
        dtype: Of it, float32 or float64.

    Returns:
        A scalar tensor.
    """

    def better(image, bound):
        following = normal(image)
        bound = tf.minimum(bound, tf.reduce_max(following / image))
        # Pixels that no line meets stay positive, and large against rounding errors.
        return following / tf.reduce_max(following) + 1e-3, bound

    start = tf.ones(shape, dtype), tf.constant(dtype.max, dtype)
    _, bound = tf.while_loop(lambda *_: True, better, start, maximum_iterations=BOUND_STEPS)
    return (1 + 100 * float(np.finfo(dtype.as_numpy_dtype).eps)) * tf.sqrt(bound)

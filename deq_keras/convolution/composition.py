"""Convolutions one after the other as one convolution."""

import tensorflow as tf


def compose(first, second) -> tf.Tensor:
    """The filters of two correlations one after the other: their full convolution.

    `correlate(u, compose(first, second), "valid")` is `correlate(correlate(u, first, "valid"),
    second, "valid")`, and so it is with `"circular"`. With other paddings it is the correlation of
    an image that is padded once, for both. Associative: chains of any length follow.

    Args:
        first: `(kh, kw, c, m)`, of static shape.
        second: `(kh', kw', m, f)`, of static shape.

    Returns:
        `(kh + kh' - 1, kw + kw' - 1, c, f)`, differentiable to any order in both.

    Raises:
        ValueError: If the second does not take the channels that the first one gives.

    Example:

    >>> difference = tf.reshape([-1.0, 1.0], (2, 1, 1, 1))
    >>> deq_keras.convolution.compose(difference, difference)[:, 0, 0, 0].numpy()
    array([ 1., -2.,  1.], dtype=float32)
    """
    if first.shape[3] != second.shape[2]:
        raise ValueError(
            f"Expected `second` to take {first.shape[3]} channels, as many as `first` gives. "
            f"Received filters of shapes {tuple(first.shape)} and {tuple(second.shape)}."
        )
    kh, kw = second.shape[:2]
    composed = tf.nn.conv2d(
        tf.transpose(first, [2, 0, 1, 3]),
        tf.reverse(second, [0, 1]),
        1,
        [[0, 0], [kh - 1, kh - 1], [kw - 1, kw - 1], [0, 0]],
    )
    return tf.transpose(composed, [1, 2, 0, 3])

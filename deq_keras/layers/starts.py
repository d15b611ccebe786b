"""Where a solve starts: at the backprojection of the measurement, unless it is far too large."""

import tensorflow as tf

_FAR = 2.0  # an operator of norm sqrt(2) cannot take a start further


def of_fair_size(image, forward):
    """`s image`, with `s = ||image||^2 / ||K image||^2` for each image where that is below 1/2.

    For `image = K^T y` that multiple explains the measurement best. An operator that adds up many
    pixels, a Radon transform say, has a norm far above 1 and a backprojection whose values are
    thousands where the image has ones: a solver in single precision would lose all digits to it.

    Args:
        image: `(batch, height, width, channels)`.
        forward: `K`.
    """
    square = _square(image)
    measured = tf.add_n([_square(leaf) for leaf in tf.nest.flatten(forward(image))])
    far = measured > _FAR * square
    scale = tf.where(far, square / tf.where(far, measured, 1), 1)
    return tf.cast(tf.reshape(scale, [-1, 1, 1, 1]), image.dtype) * image


def _square(leaf):
    rows = tf.reshape(leaf, [tf.shape(leaf)[0], -1])
    return tf.reduce_sum(tf.math.real(rows * tf.math.conj(rows)), 1)

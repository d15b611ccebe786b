"""Where a solve starts: at the backprojection of the measurement, unless it is far too large."""

import tensorflow as tf

from deq_keras.fidelities.base import square, sum_entries

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
    squares = sum_entries(square(image))
    measured = sum(sum_entries(square(leaf)) for leaf in tf.nest.flatten(forward(image)))
    far = measured > _FAR * squares
    scale = tf.where(far, squares / tf.where(far, measured, 1), 1)
    return tf.reshape(scale, [-1, 1, 1, 1]) * image

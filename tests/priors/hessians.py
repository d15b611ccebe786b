"""The dense Hessian of a prior, for small images."""

import numpy as np
import tensorflow as tf


def dense_hessian(prior, u):
    """The Jacobian of `prior.gradient` at the first image of `u`, `(pixels, pixels)`.

    The image is repeated, once for each row, so that one reverse pass has them all.
    """
    size = int(np.prod(u.shape[1:]))
    images = tf.repeat(u[:1], size, axis=0)
    chosen = np.eye(size).reshape(images.shape)
    with tf.GradientTape() as tape:
        tape.watch(images)
        entries = tf.reduce_sum(chosen * prior.gradient(images))
    return tf.reshape(tape.gradient(entries, images), (size, size)).numpy()

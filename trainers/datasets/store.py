"""The images of a set in one tensor, for tf.data to cut patches from without a copy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainers.datasets.images import ImageSet


class Store(NamedTuple):
    """All images of a set end to end in one uint8 tensor, and where each of them lies."""

    flat: tf.Tensor
    offsets: tf.Tensor
    sizes: tf.Tensor
    channels: int

    @classmethod
    def of(cls, images: ImageSet) -> Store:
        """Puts the images of a set together."""
        # Made eagerly, so that the graphs of tf.data refer to it and do not hold a copy (a graph
        # may not exceed 2 GB), and on the CPU, where tf.data runs.
        with tf.init_scope(), tf.device("CPU:0"):
            lengths = [image.size for image in images.images]
            return cls(
                tf.constant(np.concatenate([image.ravel() for image in images.images])),
                tf.constant(np.cumsum([0, *lengths[:-1]]), tf.int64),
                tf.constant([image.shape[:2] for image in images.images], tf.int64),
                images.channels,
            )

    def patch(self, image: tf.Tensor, size: int, draws: tf.Tensor) -> tf.Tensor:
        """A square patch, turned or mirrored into one of the 8 positions of a square.

        The pixels are gathered already in their final order, so that no image is copied whole.

        Args:
            image: number of the image, int64.
            size: side of the patch in pixels.
            draws: three non-negative int64 numbers that choose top, left and position.

        Returns:
            A float32 tensor `(size, size, channels)` on [0, 1].
        """
        height, width = tf.unstack(self.sizes[image])
        top = draws[0] % (height - size + 1)
        left = draws[1] % (width - size + 1)
        bits = tf.range(3, dtype=tf.int64)
        flip_rows, flip_columns, swap = tf.unstack(tf.bitwise.right_shift(draws[2], bits) % 2 == 1)
        steps = tf.range(size, dtype=tf.int64)
        rows = (top + tf.where(flip_rows, steps[::-1], steps)) * width
        columns = left + tf.where(flip_columns, steps[::-1], steps)
        pixels = tf.where(swap, rows + columns[:, None], rows[:, None] + columns)
        channels = tf.range(self.channels, dtype=tf.int64)
        at = self.offsets[image] + pixels[..., None] * self.channels + channels
        return tf.cast(tf.gather(self.flat, at), tf.float32) / 255.0

    def whole(self, image: tf.Tensor, crop: int | None = None) -> tf.Tensor:
        """An image, or its central square of `crop` pixels, float32 on [0, 1]."""
        height, width = tf.unstack(self.sizes[image])
        start = self.offsets[image]
        pixels = self.flat[start : start + height * width * self.channels]
        array = tf.reshape(pixels, [height, width, self.channels])
        if crop is not None:
            top, left = (height - crop) // 2, (width - crop) // 2
            array = array[top : top + crop, left : left + crop]
        return tf.cast(array, tf.float32) / 255.0

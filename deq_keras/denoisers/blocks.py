"""What U-shaped denoisers share: residual blocks without biases, on the levels of a pyramid."""

import keras
import tensorflow as tf

from deq_keras import checks
from deq_keras.checks import positive_int
from deq_keras.layers.convolutions import Conv2D

# Of the variance of the kernels whose results are added: at first little is changed.
SMALL = 0.01


class ResidualPyramid(keras.Model):
    """Base class of U-shaped denoisers of residual blocks without biases.

    A subclass makes its first and its last convolution and calls `build_levels`. Between two levels
    the pixels of each 2 x 2 square become channels, or channels pixels, and a convolution of 1 x 1
    follows or comes before: together one of 2 x 2 pixels with stride two, or its transposed form.

    Args:
        filters: Number of channels of each level, the finest first.
        blocks: Number of residual blocks of each level, on each way.
        noise_map: Whether the standard deviation of each image's noise is one more channel.
        activation: A Keras activation.

    Raises:
        ValueError: If an argument is none of these.
    """

    def __init__(self, filters, blocks, noise_map, activation, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(filters, list | tuple) or not filters:
            raise ValueError(
                "Expected `filters` to be a tuple with the number of channels of each level, such "
                f"as (32, 64). Received filters={filters!r}."
            )
        self.filters = tuple(positive_int("filters", count) for count in filters)
        self.blocks = positive_int("blocks", blocks)
        self.noise_map = bool(noise_map)
        self.activation = keras.activations.get(activation)

    def channels_of(self, input_shape):
        """The number of channels of the images."""
        shape = input_shape[0] if self.noise_map else input_shape
        return checks.shape_4d(type(self).__name__, shape)[-1]

    def build_levels(self):
        """Makes all between the first and the last convolution."""
        # The last of those on the way down is the body.
        self.down_blocks = [self._residual(count) for count in self.filters]
        self.up_blocks = [self._residual(count) for count in self.filters[:-1]]
        pairs = list(zip(self.filters, self.filters[1:], strict=False))
        self.down = [self.convolution(4 * fine, coarse, 1) for fine, coarse in pairs]
        self.up = [self.convolution(coarse, 4 * fine, 1) for fine, coarse in pairs]

    def convolution(self, channels, filters, side=3, scale=1.0):
        """A built one without bias, whose kernel has `scale` times the usual variance."""
        return _convolution(channels, filters, side, scale, self.dtype_policy)

    def _residual(self, count):
        return _ResidualBlocks(count, self.blocks, self.activation, dtype=self.dtype_policy)

    def with_level(self, x, noise_level, scale=1.0):
        """`x` with one more channel of `scale` times the noise level, unless that is `None`."""
        if noise_level is None:
            return x
        level = tf.reshape(tf.cast(noise_level, x.dtype), (-1, 1, 1, 1))
        return tf.concat([x, scale * level * tf.ones_like(x[..., :1])], axis=-1)

    def mirrored(self, u, multiple):
        """Images mirrored beyond their lower and right borders, so that their sides are multiples.

        Args:
            u: Images; height and width may be unknown in a graph.
            multiple: Of the sides: what the coarsest pixel has.

        Raises:
            ValueError: If a side is known to be less than half of that.
        """
        known = [size for size in u.shape[1:3] if size is not None]
        if any(2 * size < multiple for size in known):
            raise ValueError(
                f"{type(self).__name__} of {len(self.filters)} levels expected images of at least "
                f"{multiple // 2} pixels on a side. Received shape {tuple(u.shape)}. Use larger "
                "images, or fewer levels."
            )
        if len(known) == 2 and not any(size % multiple for size in known):
            return u
        beyond = -tf.shape(u)[1:3] % multiple
        pads = [[0, 0], [0, beyond[0]], [0, beyond[1]], [0, 0]]
        if len(known) == 2:
            pads = [[0, 0], *([0, -size % multiple] for size in known), [0, 0]]
        return tf.pad(u, pads, "SYMMETRIC")

    def compute_output_shape(self, input_shape):
        return tuple(input_shape[0] if self.noise_map else input_shape)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "blocks": self.blocks,
            "noise_map": self.noise_map,
            "activation": keras.activations.serialize(self.activation),
        }


class _ResidualBlocks(keras.layers.Layer):  # files of weights know it by this name
    """`x + B act(A x)`, one after the other."""

    def __init__(self, count, blocks, activation, **kwargs):
        super().__init__(**kwargs)
        self.activation = activation
        # One list, for Keras saves no lists of lists.
        self.convolutions = [
            _convolution(count, count, 3, scale, self.dtype_policy)
            for _ in range(blocks)
            for scale in (1.0, SMALL)
        ]
        self.built = True

    def call(self, x):
        for first, second in zip(self.convolutions[::2], self.convolutions[1::2], strict=True):
            x += second(self.activation(first(x)))
        return x


def _convolution(channels, filters, side, scale, dtype):
    """A built convolution without bias, whose kernel has `scale` times the usual variance."""
    layer = Conv2D(
        filters,
        side,
        padding="same",
        use_bias=False,
        kernel_initializer=keras.initializers.VarianceScaling(scale, "fan_avg", "uniform"),
        dtype=dtype,
    )
    layer.build((None, None, None, channels))
    return layer

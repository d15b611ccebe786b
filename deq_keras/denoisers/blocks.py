"""What U-shaped denoisers are made of: residual blocks without biases, on levels of a pyramid."""

import keras
import tensorflow as tf

from deq_keras.checks import positive_int
from deq_keras.layers.convolutions import Conv2D

# Of the variance of the kernels whose results are added: at first little is changed.
SMALL = 0.01


def residual_blocks(count, blocks, activation, dtype):
    """A layer of residual blocks `x + B act(A x)` of 3 x 3 convolutions, one after the other.

    Args:
        count: Number of channels.
        blocks: Number of blocks.
        activation: `act`.
        dtype: Of the layer.
    """
    return _ResidualBlocks(count, blocks, activation, dtype=dtype)


class _ResidualBlocks(keras.layers.Layer):  # files of weights know it by this name
    """`x + B act(A x)`, one after the other."""

    def __init__(self, count, blocks, activation, **kwargs):
        super().__init__(**kwargs)
        self.activation = activation
        # One list, for Keras saves no lists of lists.
        self.convolutions = [
            convolution(count, count, 3, scale, self.dtype_policy)
            for _ in range(blocks)
            for scale in (1.0, SMALL)
        ]
        self.built = True

    def call(self, x):
        for first, second in zip(self.convolutions[::2], self.convolutions[1::2], strict=True):
            x += second(self.activation(first(x)))
        return x


def convolution(channels, filters, side, scale, dtype):
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


def levels(filters) -> tuple[int, ...]:
    """The number of channels of each level, checked.

    Raises:
        ValueError: If they are no tuple of integers >= 1, or none.
    """
    if not isinstance(filters, list | tuple) or not filters:
        raise ValueError(
            "Expected `filters` to be a tuple with the number of channels of each level, such "
            f"as (32, 64). Received filters={filters!r}."
        )
    return tuple(positive_int("filters", count) for count in filters)


def mirrored(owner, u, multiple):
    """Images mirrored beyond their lower and right borders, so that their sides are multiples.

    Args:
        owner: The name of the denoiser, for messages.
        u: Images; height and width may be unknown in a graph.
        multiple: Of the sides: what the coarsest pixel has.

    Raises:
        ValueError: If a side is known to be less than half of that.
    """
    known = [size for size in u.shape[1:3] if size is not None]
    if any(2 * size < multiple for size in known):
        raise ValueError(
            f"{owner} expected images of at least {multiple // 2} pixels on a side. Received shape "
            f"{tuple(u.shape)}. Use larger images, or fewer levels."
        )
    if len(known) == 2 and not any(size % multiple for size in known):
        return u
    beyond = -tf.shape(u)[1:3] % multiple
    pads = [[0, 0], [0, beyond[0]], [0, beyond[1]], [0, 0]]
    if len(known) == 2:
        pads = [[0, 0], *([0, -size % multiple] for size in known), [0, 0]]
    return tf.pad(u, pads, "SYMMETRIC")

"""The denoiser DRUNet."""

import keras
import tensorflow as tf

from deq_keras.denoisers.blocks import ResidualPyramid


@keras.saving.register_keras_serializable(package="deq_keras")
class DRUNet(ResidualPyramid):
    """DRUNet, a U-Net of residual blocks without biases, with a map of noise levels.

    On each level, down and up again, there are residual blocks `x + B act(A x)` of 3 x 3
    convolutions. Levels are connected by convolutions of 2 x 2 pixels with stride two and by their
    transposed form, and what was found on the way down is added before the way up from there. The
    network returns the clean image itself; `UNet` returns what it subtracts, and is a hundred times
    as small. With the defaults there are 32.6 million parameters, as published:
    `deq_keras.presets.pytorch.drunet` makes it of the weights of its authors.

    Images are mirrored beyond their lower and right borders up to the next multiple of the coarsest
    pixel: 8 for four levels.

    Nothing is certified of it. With `"relu"` and no biases, `D(s u, s sigma) = s D(u, sigma)`. If
    it is to be differentiated twice, as in a `deq_keras.priors.DenoiserEnergy`, take a smooth
    `activation`.

    Args:
        filters: Number of channels of each level, the finest first.
        blocks: Number of residual blocks of each level, on each way.
        noise_map: Whether the standard deviation of each image's noise is one more channel.
        activation: A Keras activation.

    Call arguments:
        inputs: With `noise_map` a pair `[images, noise_level]`: images `(batch, height, width,
            channels)` and standard deviations `(batch,)`, both on [0, 1]; without it the images.

    Returns:
        Images of the same shape.

    Raises:
        ValueError: If an argument is none of these, or images are smaller than half of the
            coarsest pixel.

    Reference:
        Zhang, Li, Zuo, Zhang, Van Gool and Timofte, Plug-and-play image restoration with deep
        denoiser prior, IEEE TPAMI 2022.

    Example:

    >>> denoiser = deq_keras.denoisers.DRUNet(filters=(8, 16), blocks=1)
    >>> denoiser([tf.random.uniform((2, 33, 45, 1)), tf.constant([0.05, 0.1])]).shape
    TensorShape([2, 33, 45, 1])
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (64, 128, 256, 512),
        blocks: int = 4,
        noise_map: bool = True,
        activation="relu",
        **kwargs,
    ):
        super().__init__(filters, blocks, noise_map, activation, **kwargs)

    def build(self, input_shape):
        channels, finest = self.channels_of(input_shape), self.filters[0]
        self.head = self.convolution(channels + self.noise_map, finest)
        self.tail = self.convolution(finest, channels)
        self.build_levels()
        self.built = True

    def call(self, inputs):
        u, noise_level = inputs if self.noise_map else (inputs, None)
        x = self.mirrored(u, 2 ** (len(self.filters) - 1))
        x = self.head(self.with_level(x, noise_level))
        passed = [x]
        for down, blocks in zip(self.down, self.down_blocks, strict=False):
            x = down(tf.nn.space_to_depth(blocks(x), 2))
            passed.append(x)
        x = self.down_blocks[-1](x)
        for up, blocks in zip(self.up[::-1], self.up_blocks[::-1], strict=True):
            x = blocks(tf.nn.depth_to_space(up(x + passed.pop()), 2))
        x = self.tail(x + passed.pop())
        return x[:, : tf.shape(u)[1], : tf.shape(u)[2]]

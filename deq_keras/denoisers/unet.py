"""A small U-Net of residual blocks without biases."""

import keras
import tensorflow as tf

from deq_keras.checks import positive
from deq_keras.denoisers.blocks import SMALL, ResidualPyramid


@keras.saving.register_keras_serializable(package="deq_keras")
class UNet(ResidualPyramid):
    """A U-Net `D(u) = u - N(u)` that removes noise from images of any size.

    The pixels of each 2 x 2 square become channels first, so no convolution runs at full
    resolution, where it would take most of the time and few weights. Then come residual blocks
    `x + B act(A x)` of 3 x 3 convolutions on levels of half the resolution each, down and up again,
    with what was found on the way down added on the way up. There is no bias: a denoiser without
    one generalises to levels of noise that it has not seen. Images are mirrored beyond their lower
    and right borders up to the next multiple of the coarsest pixel.

    Nothing is certified of it. With a smooth `activation`, such as the default, it can be
    differentiated twice, as `deq_keras.priors.DenoiserEnergy` does.

    Args:
        filters: Number of channels of each level, the finest first.
        blocks: Number of residual blocks of each level, on each way.
        noise_map: Whether the standard deviation of each image's noise is one more channel.
        activation: A Keras activation: `"elu"`, `"softplus"` or another smooth one if it is to be
            differentiated twice; `"relu"` is fine elsewhere.
        contrast: By what images are multiplied before the first convolution, and noise is divided
            after the last one, > 0. A smooth activation is nearly linear for arguments well below
            one; with this it is curved for differences of `1 / contrast` on.

    Call arguments:
        inputs: Images `(batch, height, width, channels)` on [0, 1]; with `noise_map` a pair
            `[images, noise_level]`, standard deviations `(batch,)`.

    Returns:
        Images of the same shape.

    Raises:
        ValueError: If an argument is none of these, or images are smaller than half of the
            coarsest pixel.

    Reference:
        Zhang, Li, Zuo, Zhang, Van Gool and Timofte, Plug-and-play image restoration with deep
        denoiser prior, IEEE TPAMI 2022 (DRUNet, 100 times as large); Zhang, Zuo and Zhang, FFDNet,
        IEEE TIP 2018, for pixels as channels and the map of noise levels; Mohan, Kadkhodaie,
        Simoncelli and Fernandez-Granda, Robust and interpretable blind image denoising via
        bias-free convolutional neural networks, ICLR 2020.

    Example:

    >>> denoiser = deq_keras.denoisers.UNet(filters=(8, 16), blocks=1, noise_map=True)
    >>> denoiser([tf.random.uniform((2, 33, 45, 1)), tf.constant([0.05, 0.1])]).shape
    TensorShape([2, 33, 45, 1])
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (32, 64),
        blocks: int = 2,
        noise_map: bool = False,
        activation="elu",
        contrast: float = 20.0,
        **kwargs,
    ):
        super().__init__(filters, blocks, noise_map, activation, **kwargs)
        self.contrast = positive("contrast", contrast)

    def build(self, input_shape):
        channels, finest = self.channels_of(input_shape), self.filters[0]
        self.head = self.convolution(4 * channels + self.noise_map, finest)
        self.tail = self.convolution(finest, 4 * channels, scale=SMALL)
        self.build_levels()
        self.built = True

    def call(self, inputs):
        u, noise_level = inputs if self.noise_map else (inputs, None)
        x = self.contrast * tf.nn.space_to_depth(self.mirrored(u, 2 ** len(self.filters)), 2)
        x = self.head(self.with_level(x, noise_level, self.contrast))
        passed = []
        for down, blocks in zip(self.down, self.down_blocks, strict=False):
            x = blocks(x)
            passed.append(x)
            x = down(tf.nn.space_to_depth(x, 2))
        x = self.down_blocks[-1](x)
        for up, blocks in zip(self.up[::-1], self.up_blocks[::-1], strict=True):
            x = blocks(tf.nn.depth_to_space(up(x), 2) + passed.pop())
        noise = tf.nn.depth_to_space(self.tail(x), 2) / self.contrast
        return u - noise[:, : tf.shape(u)[1], : tf.shape(u)[2]]

    def get_config(self):
        return {**super().get_config(), "contrast": self.contrast}

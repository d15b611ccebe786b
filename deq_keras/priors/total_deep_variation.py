"""Total deep variation: a multi-scale network as the energy of an image."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras import convolution
from deq_keras.checks import positive, positive_int
from deq_keras.numerics.rows import at_least_one, first_rows
from deq_keras.priors import filtering
from deq_keras.priors.base import Prior

_SIDE = 3  # of all filters


@keras.saving.register_keras_serializable(package="deq_keras")
class TotalDeepVariation(Prior):
    """Total deep variation `R(u) = sum_x w^T N(K u)(x)`.

    `K` are filters without mean, so constant images cost nothing. `N` is a sequence of U-shaped
    blocks: on each scale, down and up again, there is a residual block

        x + B phi(A x),    phi(t) = log(1 + nu t^2) / (2 nu),

    with convolutions `A`, `B` of 3 x 3; scales are connected by convolutions of stride two and
    their adjoints. What is found on the way down is added on the way up, and what a block found on
    a scale to what the next one sees there. Nothing has a bias. With the defaults there are 387,392
    parameters for grey images, about as many as in the paper.

    The gradient is found by differentiation: written by hand it is the same convolutions, and took
    7 % less processor time (8 images of 64 x 64, one scale).

    The energy is not convex, and nothing is certified of it: bounds by products of the norms of the
    filters exist, but are larger by many powers of ten than what is seen. Layers search along
    lines.

    Args:
        filters: Number of channels on all scales.
        blocks: Number of U-shaped blocks.
        scales: Number of scales of each, the coarsest of `1 / 2^(scales - 1)` of the resolution.
        log_factor: `nu` > 0: `|phi'| <= 1 / (2 sqrt(nu))`, and `-1/8 <= phi'' <= 1`.
        blur: Whether filters between scales are blurred by the binomial filter of 5 x 5 pixels, and
            every convolution sees its image mirrored beyond the border, border pixels repeated, in
            place of zeros: as published, in 1.8 times the time (4 images of 64 x 64).
            `deq_keras.presets.pytorch.tdv` needs it.

    Reference:
        Kobler, Effland, Kunisch and Pock, Total deep variation: a stable regularization method for
        inverse problems, IEEE TPAMI 2021.

    Example:

    >>> prior = deq_keras.priors.TotalDeepVariation(filters=8, blocks=1)
    >>> images = tf.random.uniform((2, 33, 45, 1))
    >>> prior.energy(images).shape, prior.gradient(images).shape
    (TensorShape([2]), TensorShape([2, 33, 45, 1]))
    """

    def __init__(
        self,
        filters: int = 32,
        blocks: int = 3,
        scales: int = 3,
        log_factor: float = 9.0,
        blur: bool = False,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = positive_int("filters", filters)
        self.blocks = positive_int("blocks", blocks)
        self.scales = positive_int("scales", scales)
        self.log_factor = positive("log_factor", log_factor)
        self.blur = bool(blur)

    def build(self, input_shape):
        channels = self._check_shape(input_shape)
        square = (_SIDE, _SIDE, self.filters, self.filters)
        usual = (_SIDE * _SIDE * self.filters) ** -0.5

        def add(name, shape, deviation):
            initializer = keras.initializers.RandomNormal(stddev=deviation)
            return self.add_weight(shape=shape, initializer=initializer, name=name)

        self.first = add("first", (_SIDE, _SIDE, channels, self.filters), _SIDE**-1.0)
        residual = (self.blocks, 2 * self.scales - 1, 2, *square)
        self.residual = add("residual", residual, usual)
        between = (self.blocks, self.scales - 1, *square)
        self.down, self.up = add("down", between, usual), add("up", between, usual)
        self.last = add("last", (self.filters,), self.filters**-0.5)
        self.built = True

    def _check_shape(self, shape):
        channels = self.first.shape[2] if self.built else None
        name, size = type(self).__name__, (_SIDE, _SIDE)
        return filtering.check_images(name, shape, channels, size, "reflect")

    def energy(self, u):
        self.ensure_built(u)
        self._check_shape(u.shape)
        u, count = at_least_one(u)
        x = self._network(self._correlate(u, self._first(), "reflect"))
        energies = tf.reduce_sum(x * tf.convert_to_tensor(self.last), axis=(1, 2, 3))
        return first_rows(energies, count)

    def _first(self):
        first = tf.convert_to_tensor(self.first)
        return first - tf.reduce_mean(first, axis=(0, 1), keepdims=True)

    def _network(self, x):
        residual, down, up = (
            tf.convert_to_tensor(weight) for weight in (self.residual, self.down, self.up)
        )
        if self.blur:
            down, up = _blurred(down), _blurred(up)
        before = [None] * self.scales
        for block in range(self.blocks):
            pairs, passed = iter(tf.unstack(residual[block])), []
            for scale in range(self.scales):
                if scale:
                    x = self._lowered(x, down[block, scale - 1])
                    x = x if before[scale] is None else x + before[scale]
                x = self._residual(x, next(pairs))
                passed.append(x)
            before[-1] = x
            for scale in reversed(range(self.scales - 1)):
                x = passed[scale] + self._raised(x, up[block, scale], passed[scale])
                x = before[scale] = self._residual(x, next(pairs))
        return x

    def _residual(self, x, pair):
        first, second = tf.unstack(pair)
        t = self._correlate(x, first, "zero")
        t = tf.math.log1p(self.log_factor * t * t) / (2.0 * self.log_factor)
        return x + self._correlate(t, second, "zero")

    def _correlate(self, x, filters, padding):
        if not self.blur:
            return convolution.correlate(x, filters, padding)
        return convolution.correlate(tf.pad(x, _border(filters), "SYMMETRIC"), filters, "valid")

    def _lowered(self, x, filters):
        """One scale down."""
        if not self.blur:
            return tf.nn.conv2d(x, filters, 2, "SAME")
        return tf.nn.conv2d(tf.pad(x, _border(filters), "SYMMETRIC"), filters, 2, "VALID")

    def _raised(self, x, filters, like):
        """The adjoint of going down a scale."""
        if not self.blur:
            return tf.nn.conv2d_transpose(x, filters, tf.shape(like), 2, "SAME")
        border = _border(filters)
        shape = tf.shape(like) + np.sum(border, axis=1)
        x = tf.nn.conv2d_transpose(x, filters, shape, 2, "VALID")
        x = tf.raw_ops.MirrorPadGrad(input=x, paddings=border, mode="SYMMETRIC")
        return tf.ensure_shape(x, like.shape)

    def pictures(self):
        """The first filters: `"analysis"`."""
        return {"analysis": tf.transpose(self._first(), [3, 0, 1, 2])}

    def get_config(self):
        names = ("filters", "blocks", "scales", "log_factor", "blur")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _border(filters):
    """The padding by which a convolution keeps the size."""
    side = filters.shape[0] // 2
    return np.array([[0, 0], [side, side], [side, side], [0, 0]], np.int32)


def _blurred(filters):
    """Filters `(..., height, width, channels, filters)`, wider by four pixels."""
    binomial = np.array([1, 4, 6, 4, 1]) / 16
    width = filters.shape[-3]
    spread = np.zeros((width + 4, width))
    for i in range(width):
        spread[i : i + 5, i] = binomial
    spread = tf.constant(spread, filters.dtype)
    return tf.einsum("yi,xj,...ijcf->...yxcf", spread, spread, filters)

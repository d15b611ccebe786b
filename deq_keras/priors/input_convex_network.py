"""Input convex networks."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras import checks, convolution
from deq_keras.checks import positive
from deq_keras.convolution import norm_bound
from deq_keras.numerics.rows import at_least_one, first_rows
from deq_keras.priors import filtering
from deq_keras.priors.base import Prior
from deq_keras.priors.network_bounds import Bound, schur_norm, sums


@keras.saving.register_keras_serializable(package="deq_keras")
class InputConvexNetwork(Prior):
    """An energy that is convex because of how it is built: `R(u) = sum_x w^T z_n(u)(x)`.

        z_1     = s(A_1 u + b_1),
        z_(k+1) = s(W_k z_k + A_(k+1) u + b_(k+1)),    s(t) = log(1 + exp(beta t)) / beta

    `s` is convex and increasing, a smoothed `max(t, 0)`; `W_k` and `w` have no negative entry: they
    are `log(1 + exp(v))` of what is trained. So each `z_k` is convex in `u`, for all weights, and
    so is `R`. The filters `A_k` have no mean: constants may be added to an image.

    The Lipschitz constant of the gradient is computed from the present weights.

    Args:
        filters: Number of channels of each layer.
        kernel_size: Side of the filters `A_k` in pixels, or a pair `(height, width)`. The `W_k` are
            3 x 3.
        sharpness: `beta` > 0: the corner of `s` is about `1 / beta` wide, in responses of filters
            to images on [0, 1].
        padding: How the `A_k` see the boundary: `"reflect"`, `"zero"` or `"circular"`.

    Raises:
        ValueError: If an argument is none of these.

    Reference:
        Amos, Xu and Kolter, Input convex neural networks, ICML 2017; Mukherjee, Dittmer, Shumaylov,
        Lunz, Öktem and Schönlieb, Learned convex regularizers for inverse problems, 2021.

    Example:

    >>> prior = deq_keras.priors.InputConvexNetwork(filters=(8, 8))
    >>> images = tf.random.uniform((2, 32, 48, 1))
    >>> prior.energy(images).shape, prior.is_convex
    (TensorShape([2]), True)
    >>> middle = prior.energy(tf.reduce_mean(images, axis=0, keepdims=True))
    >>> bool(middle[0] <= tf.reduce_mean(prior.energy(images)))
    True
    """

    is_convex = True

    def __init__(
        self,
        filters: tuple[int, ...] = (32, 32),
        kernel_size: int | tuple[int, int] = 5,
        sharpness: float = 50.0,
        padding: str = "reflect",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(filters, list | tuple) or not filters:
            raise ValueError(
                "Expected `filters` to be a tuple with the number of channels of each layer, such "
                f"as (32, 32). Received filters={filters!r}."
            )
        self.filters = tuple(checks.positive_int("filters", count) for count in filters)
        self.kernel_size = checks.kernel_size(kernel_size)
        self.sharpness = positive("sharpness", sharpness)
        self.padding = checks.one_of("padding", padding, ("reflect", "zero", "circular"))

    def build(self, input_shape):
        channels = self._check_shape(input_shape)
        self.analysis, self.bias, self.raw_mixing = [], [], []
        for number, count in enumerate(self.filters, 1):
            self.analysis.append(
                self.add_weight(
                    shape=(*self.kernel_size, channels, count),
                    initializer="glorot_uniform",
                    name=f"analysis_{number}",
                )
            )
            self.bias.append(
                self.add_weight(shape=(count,), initializer="zeros", name=f"bias_{number}")
            )
        for number, pair in enumerate(zip(self.filters, self.filters[1:], strict=False), 1):
            self.raw_mixing.append(self._add_positive((3, 3, *pair), f"mixing_{number}"))
        self.raw_last = self._add_positive((self.filters[-1],), "last")
        self.built = True

    def _add_positive(self, shape, name):
        # Each sum over the inputs is one at first.
        start = np.log(np.expm1(1.0 / np.prod(shape[:-1] or shape)))
        initializer = keras.initializers.RandomNormal(start, 0.1)
        return self.add_weight(shape=shape, initializer=initializer, name=name)

    def _check_shape(self, shape):
        channels = self.analysis[0].shape[2] if self.built else None
        name = type(self).__name__
        return filtering.check_images(name, shape, channels, self.kernel_size, self.padding)

    def energy(self, u):
        self.ensure_built(u)
        self._check_shape(u.shape)
        u, count = at_least_one(u)
        z, mixing = None, self.mixing()
        for number, (analysis, bias) in enumerate(zip(self._filters(), self.bias, strict=True)):
            t = convolution.correlate(u, analysis, self.padding) + tf.convert_to_tensor(bias)
            if number:
                t += convolution.correlate(z, mixing[number - 1], "zero")
            z = tf.math.softplus(self.sharpness * t) / self.sharpness
        return first_rows(tf.reduce_sum(z * self.last(), axis=(1, 2, 3)), count)

    def mixing(self) -> list[tf.Tensor]:
        """The `W_k`: no entry is negative."""
        return [tf.math.softplus(tf.convert_to_tensor(raw)) for raw in self.raw_mixing]

    def last(self) -> tf.Tensor:
        """`w`, `(filters,)`: no entry is negative."""
        return tf.math.softplus(tf.convert_to_tensor(self.raw_last))

    def _filters(self):
        analysis = [tf.convert_to_tensor(filters) for filters in self.analysis]
        return [one - tf.reduce_mean(one, axis=(0, 1), keepdims=True) for one in analysis]

    def gradient_lipschitz(self, size=None):
        found, mixing = None, self.mixing()
        for number, filters in enumerate(self._filters()):
            slope, bending = norm_bound(filters, self.padding, size), 0.0
            if number:
                slope += schur_norm(mixing[number - 1]) * found.slope
                bending = sums(mixing[number - 1])[0] * found.bending
            found = Bound(slope, bending + 0.25 * self.sharpness * slope**2)
        return tf.reduce_max(self.last()) * found.bending

    def pictures(self):
        """The filters of each layer: `"analysis_1"` and so on."""
        return {
            f"analysis_{number}": tf.transpose(filters, [3, 0, 1, 2])
            for number, filters in enumerate(self._filters(), 1)
        }

    def get_config(self):
        names = ("filters", "kernel_size", "sharpness", "padding")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}

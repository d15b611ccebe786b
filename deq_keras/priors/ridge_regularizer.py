"""Convex and weakly convex ridge regularisers with filters of several layers."""

import functools

import keras
import numpy as np
import tensorflow as tf

from deq_keras import checks, convolution
from deq_keras.checks import positive
from deq_keras.convolution.norm_bounds import norm_bounds
from deq_keras.numerics.partial import Partial
from deq_keras.priors import filtering, initializers, potentials
from deq_keras.priors.base import BoundPrior, Prior
from deq_keras.priors.experts import logarithm_at_most
from deq_keras.priors.noise_levels import check_given, check_levels, interpolation_weights
from deq_keras.priors.profiles import Profile, RidgeCoefficients

USUAL_NOISE = 0.1  # where `scaling` is the initial one


@keras.saving.register_keras_serializable(package="deq_keras")
class RidgeRegularizer(Prior):
    """Ridge regulariser, convex or weakly convex, with filters that are composed of layers.

        R(u)     = sum_i sum_x psi_i((a_i * u)(x))
        psi_i(t) = (s(mu_i alpha_i t) / mu_i - rho s(alpha_i t)) / alpha_i^2,    A = A_n ... A_1

    with a smoothed absolute value `s`, `0 <= s'' <= 1`. The first term grows like `|t| / alpha_i`
    from `1 / (mu_i alpha_i)` on; the second one takes a part `rho` of that slope away again from
    `1 / alpha_i` on, so large edges cost less than in a convex prior (`rho = 0`).

    The layers `A_k` are convolutions with nothing between them. An image is padded once for all of
    them, so `A` is one convolution with the composed filters, and computed so: for grey images
    that is the faster way. They are divided by a certified bound on the norm of the whole
    convolution, so for images that are not tiny

        -rho <= Hess R <= max_i mu_i,

    whatever the weights and however long they are trained. Denoising with a weight of at most
    `1 / rho` is a convex problem: use `Variational(operator, prior, weight=1.0,
    train_weight=False)`, for the scaling of each filter is learned and makes another one needless.

    Args:
        filters: Number of filters of each layer.
        kernel_size: Side of the filters of each layer in pixels, or a pair `(height, width)`. Three
            layers of 5 x 5 see 13 x 13 pixels.
        weak_convexity: `rho` in [0, 1); 0 for a convex prior.
        activation: `s'`: `"smoothed_l1"`, `"tanh"` or another of `deq_keras.priors.potentials.get`.
        scaling: Initial `alpha` of each filter (trained), > 0. Responses to images on [0, 1] count
            as those to edges from `1 / alpha` on.
        noise_levels: `None`; or increasing standard deviations for which each filter learns a
            scaling of its own. Every image then comes with its noise level, and `log alpha` is
            interpolated linearly in the logarithm of that: `Variational` takes the pair
            `(y, noise_level)`. The initial `alpha` is `scaling` at 0.1 and inversely proportional
            to the noise level.
        sharpness: Initial `mu` of each filter (trained), > 0.
        max_sharpness: Training keeps `mu` at or below it, or `None`.
        padding: How filters see the boundary: `"reflect"`, `"valid"`, `"zero"` or `"circular"`; see
            `FieldsOfExperts`. The certified norm is sharpest for the last three.
        filters_initializer: Of the first layer: `"first_order"`, or what Keras or
            `deq_keras.priors.initializers` know for shape `(height, width, channels, filters)`. The
            filters of the other layers start as random orthogonal ones, the same each time.

    Reference:
        Goujon, Neumayer and Unser, Learning weakly convex regularizers for convergent
        image-reconstruction algorithms, SIAM J. Imaging Sci. 2024; Goujon, Neumayer, Bohra,
        Ducotterd and Unser, A neural-network-based convex regularizer for inverse problems, IEEE
        TCI 2023.

    Example:

    >>> prior = deq_keras.priors.RidgeRegularizer(filters=(2, 8), weak_convexity=0.9)
    >>> images = tf.random.uniform((2, 32, 48, 1))
    >>> prior.energy(images).shape, prior.gradient(images).shape
    (TensorShape([2]), TensorShape([2, 32, 48, 1]))
    >>> round(float(prior.strong_convexity((32, 48))), 2)
    -0.9
    """

    has_energy = True

    def __init__(
        self,
        filters: tuple[int, ...] = (4, 8, 64),
        kernel_size: int | tuple[int, int] = 5,
        weak_convexity: float = 0.0,
        activation="smoothed_l1",
        scaling: float = 5.0,
        noise_levels: tuple[float, ...] | None = None,
        sharpness: float = 100.0,
        max_sharpness: float | None = 1000.0,
        padding: str = "reflect",
        filters_initializer="first_order",
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not isinstance(filters, list | tuple) or not filters:
            raise ValueError(
                "Expected `filters` to be a tuple with the number of filters of each layer, such "
                f"as (4, 8, 64). Received filters={filters!r}."
            )
        self.filters = tuple(checks.positive_int("filters", count) for count in filters)
        self.kernel_size = checks.kernel_size(kernel_size)
        self.weak_convexity = positive("weak_convexity", weak_convexity, zero=True)
        if self.weak_convexity >= 1:
            raise ValueError(
                f"Expected 0 <= `weak_convexity` < 1. Received weak_convexity={weak_convexity!r}."
            )
        self._profile = Profile(potentials.get(activation), self.weak_convexity)
        self.activation = activation if isinstance(activation, str) else dict(activation)
        self.scaling = positive("scaling", scaling)
        self.noise_levels = check_levels(noise_levels)
        self.max_sharpness = None
        if max_sharpness is not None:
            self.max_sharpness = positive("max_sharpness", max_sharpness)
        self.sharpness = positive("sharpness", sharpness, upper=self.max_sharpness)
        self.padding = convolution.check_padding(padding)
        self.filters_initializer = initializers.get(filters_initializer)

    @property
    def is_convex(self):
        return not self.weak_convexity

    @property
    def takes_noise_level(self):
        """Whether each image comes with its noise level."""
        return self.noise_levels is not None

    @property
    def field(self) -> tuple[int, int]:
        """Height and width of the composed filters in pixels."""
        return tuple(1 + len(self.filters) * (side - 1) for side in self.kernel_size)

    @property
    def scales(self) -> int:
        """How many numbers there are of a sharpness and of a scaling: one for each filter."""
        return self.filters[-1]

    def _of_filters(self, values):
        """The entry of each filter from those `scales` ones, along the last axis."""
        return values

    def build(self, input_shape):
        channels = self._check_shape(input_shape)
        self.convolutions = []
        for number, count in enumerate(self.filters):
            first = number == 0
            self.convolutions.append(
                self.add_weight(
                    shape=(*self.kernel_size, channels, count),
                    initializer=self.filters_initializer
                    if first
                    else keras.initializers.Orthogonal(seed=number),
                    name=f"layer_{number + 1}",
                )
            )
            channels = count
        start = self._first_scaling()
        self.log_scaling = self.add_weight(
            shape=start.shape,
            initializer=lambda shape, dtype: tf.constant(start, dtype),
            name="log_scaling",
        )
        self._build_potentials()
        self.built = True

    def _first_scaling(self):
        start = np.full(self.scales, np.log(self.scaling))
        if self.takes_noise_level:
            start = start - np.log(np.array(self.noise_levels)[:, None] / USUAL_NOISE)
        return start

    def _build_potentials(self):
        self.log_sharpness = self.add_weight(
            shape=(self.scales,),
            initializer=keras.initializers.Constant(np.log(self.sharpness)),
            constraint=logarithm_at_most(self.max_sharpness),
            name="log_sharpness",
        )

    def _potentials(self):
        """What the functions of the profile take of the weights of the potentials."""
        return self._of_filters(tf.exp(self.log_sharpness))

    def _check_shape(self, shape):
        channels = self.convolutions[0].shape[2] if self.built else None
        name = type(self).__name__
        return filtering.check_images(name, shape, channels, self.field, self.padding)

    def _mean_free(self):
        first, *others = (tf.convert_to_tensor(layer) for layer in self.convolutions)
        # Then the composed filters have no mean either: constant images cost nothing.
        return [first - tf.reduce_mean(first, axis=(0, 1), keepdims=True), *others]

    def coefficients(self, size=None) -> RidgeCoefficients:
        """The `RidgeCoefficients` of the current weights, for images of a size or any."""
        filters = functools.reduce(convolution.compose, self._mean_free())
        # The filters must not depend on the size of the images, and the bound for mirrored
        # boundaries at every size is up to twice that for all sizes but the smallest.
        usual = tuple(2 * max(side - 1, 2) for side in self.field)
        every, norm = norm_bounds(filters, self.padding, usual)
        norm = tf.where(norm > 0, norm, tf.ones_like(norm))
        square = one = tf.ones_like(norm)
        if self.padding == "reflect":
            square = tf.maximum(every / norm, 1.0) ** 2
            if size is not None:
                large = [side >= least for side, least in zip(size, usual, strict=True)]
                square = tf.where(tf.reduce_all(large), one, square)
        return RidgeCoefficients(filters / norm, self._potentials(), square)

    def scaling_at(self, noise_level=None) -> tf.Tensor:
        """`alpha`, `(batch, filters)`, or with one row if the prior takes no noise level.

        Args:
            noise_level: `(batch,)`, standard deviations, or `None`.

        Raises:
            ValueError: If there is a noise level and the prior takes none, or the other way round.
        """
        owner = f"{type(self).__name__} with noise_levels={self.noise_levels!r}"
        check_given(owner, self.takes_noise_level, noise_level)
        logarithm = tf.convert_to_tensor(self.log_scaling)
        if noise_level is None:
            return self._of_filters(tf.exp(logarithm))[None]
        found = self._interpolated(tf.cast(noise_level, logarithm.dtype))
        return self._of_filters(tf.exp(found))

    def _interpolated(self, noise_level):
        weights = interpolation_weights(noise_level, self.noise_levels)
        return tf.linalg.matmul(weights, tf.convert_to_tensor(self.log_scaling))

    def bind(self, image_shape, noise_level=None):
        c = self.coefficients(image_shape[1:3])
        parts = (c.filters, c.sharpness), (self.scaling_at(noise_level)[:, None, None],)

        def energy(u, filters, *c):
            values = self._profile.value(self._analyse(u, filters), *c)
            return tf.reduce_sum(values, axis=(1, 2, 3))

        def gradient(u, filters, *c):
            slopes = self._profile.slope(self._analyse(u, filters), *c)
            return tf.ensure_shape(self._synthesise(slopes, filters), u.shape)

        # Preconditioners take what is positive of both.
        def spectrum(u, filters, *c):
            curvatures = self._profile.curvature(self._analyse(u, filters), *c)
            whole = self._whole(filters)
            return tf.maximum(filtering.hessian_spectrum(u, curvatures, whole, whole), 0)

        def diagonal(u, filters, *c):
            curvatures = self._profile.curvature(self._analyse(u, filters), *c)
            whole = self._whole(filters)
            found = filtering.hessian_diagonal(u, curvatures, whole, whole, self.padding)
            return tf.maximum(found, 0)

        functions = (Partial(f, *parts) for f in (gradient, energy, spectrum, diagonal))
        gradient, energy, *hessian = functions
        certified = self._lipschitz(c), self._modulus(c)
        work = 2 * sum(part.shape.num_elements() for part in tf.nest.flatten(c.filters))
        return BoundPrior(gradient, energy, *certified, *hessian, work)

    def _analyse(self, u, filters):
        self._check_shape(u.shape)
        return convolution.correlate(u, filters, self.padding)

    def _synthesise(self, responses, filters):
        return convolution.correlate_adjoint(responses, filters, self.padding)

    def _whole(self, filters):
        """The filters of the coefficients as those of one convolution."""
        return filters

    def _lipschitz(self, c):
        return c.square * tf.maximum(tf.reduce_max(c.sharpness), self.weak_convexity)

    def _modulus(self, c):
        return -self.weak_convexity * c.square

    def gradient_lipschitz(self, size=None):
        return self._lipschitz(self.coefficients(size))

    def strong_convexity(self, size=None):
        """Certified modulus `-rho`, or less where images of `size` may be tiny."""
        return self._modulus(self.coefficients(size))

    def hessian_variation(self, p, size=None):
        self.ensure_built(p)
        c = self.coefficients(size)
        scaling = tf.reduce_max(tf.reshape(self.log_scaling, (-1, self.scales)), axis=0)
        scaling = self._of_filters(tf.exp(scaling))
        steepest = self._profile.curvature_lipschitz(c.sharpness, scaling)
        # Where nothing is known, it may be infinity times zero.
        changes = tf.math.multiply_no_nan(steepest, tf.abs(self._analyse(p, c.filters)))
        return c.square * tf.reduce_max(changes, axis=(1, 2, 3))

    def pictures(self):
        """The composed filters, as the map uses them: `"analysis"`."""
        return {"analysis": tf.transpose(self.coefficients().filters, [3, 0, 1, 2])}

    def curves(self, t, noise_level=None):
        c = tf.exp(self.log_sharpness)[:, None], self.scaling_at(noise_level)[0][:, None]
        t, p = tf.cast(t, self.variable_dtype)[None], self._profile
        return {"potential": p.value(t, *c), "activation": p.slope(t, *c)}

    def get_config(self):
        names = ("filters", "kernel_size", "weak_convexity", "activation", "scaling")
        names += ("noise_levels", "sharpness", "max_sharpness", "padding")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in names},
            "filters_initializer": keras.initializers.serialize(self.filters_initializer),
        }

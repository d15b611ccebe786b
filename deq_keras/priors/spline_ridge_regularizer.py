"""Ridge regularisers whose potentials are learned."""

import functools

import keras
import numpy as np
import tensorflow as tf

from deq_keras import convolution
from deq_keras.checks import positive, positive_int
from deq_keras.priors.experts import Between
from deq_keras.priors.linear_splines import SplineProfile, integrated
from deq_keras.priors.noise_levels import check_levels, linear_weights
from deq_keras.priors.profiles import RidgeCoefficients
from deq_keras.priors.ridge_regularizer import USUAL_NOISE, RidgeRegularizer

_LEAST_NOISE = 1e-5 / 255  # is added: a scaling is finite for no noise, too


@keras.saving.register_keras_serializable(package="deq_keras")
class SplineRidgeRegularizer(RidgeRegularizer):
    """Ridge regulariser, convex or weakly convex, whose potentials are learned, too.

        R(u) = sum_i sum_x psi_i((a_i * u)(x)),    psi_i(t) = F_i(alpha_i t) / alpha_i^2

    `F_i'` is a linear spline with equally spaced knots on [-1, 1] and constant beyond, so strong
    responses cost what straight lines say. Learned are its slopes, the curvatures of the potential.
    The filters are those of `RidgeRegularizer`, divided by a certified bound on the norm of the
    whole convolution, so with the slopes `e` as they are, for images that are not tiny,

        min(0, min e) <= Hess R <= max |e|,    min e >= -rho.

    This is the form in which CRR and WCRR were published:
    `deq_keras.presets.pytorch` makes it of the weights of their authors.

    Args:
        filters: As in `RidgeRegularizer`.
        kernel_size: As in `RidgeRegularizer`.
        weak_convexity: `rho` >= 0: no slope is used that is below `-rho`. 0 for a convex prior.
            Denoising with a weight of at most `1 / rho` is a convex problem.
        knots: Number of knots of each spline, odd.
        shared: Whether all filters have one potential; or each its own.
        even: Whether potentials are even functions, and half of the slopes learned.
        scaling: Initial `alpha` of each filter (trained), > 0: the knots are responses of up to
            `1 / alpha`.
        noise_levels: `None`; or increasing standard deviations >= 0 for which each filter learns a
            scaling of its own. `log(alpha sigma)` is interpolated linearly in the noise level
            `sigma`, and constant beyond the levels. Every image then comes with its noise level.
            The initial `alpha` is `scaling` at 0.1 and inversely proportional to the noise level.
        sharpness: Initial slope next to zero, > 0. Elsewhere it is `-rho`.
        max_sharpness: Training keeps slopes at or below it, or `None`.
        padding: As in `RidgeRegularizer`.
        cut_layers: Whether what a layer writes beyond the border is cut off before the next layer
            reads it, as in the published models, with `padding="zero"`. Layers are then computed
            one after the other, and the certified norm is the product of theirs, which is larger.
        filters_initializer: As in `RidgeRegularizer`.

    Raises:
        ValueError: If the number of knots is even or below 3, layers are cut with another padding,
            or as in `RidgeRegularizer`.

    Reference:
        Goujon, Neumayer, Bohra, Ducotterd and Unser, A neural-network-based convex regularizer for
        inverse problems, IEEE TCI 2023; Goujon, Neumayer and Unser, Learning weakly convex
        regularizers for convergent image-reconstruction algorithms, SIAM J. Imaging Sci. 2024.

    Example:

    >>> prior = deq_keras.priors.SplineRidgeRegularizer((2, 8), weak_convexity=0.9, knots=21)
    >>> prior.gradient(tf.random.uniform((2, 32, 48, 1))).shape
    TensorShape([2, 32, 48, 1])
    >>> round(float(prior.strong_convexity((32, 48))), 2)
    -0.9
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (4, 8, 64),
        kernel_size: int | tuple[int, int] = 5,
        weak_convexity: float = 0.0,
        knots: int = 101,
        shared: bool = True,
        even: bool = True,
        scaling: float = 20.0,
        noise_levels: tuple[float, ...] | None = None,
        sharpness: float = 100.0,
        max_sharpness: float | None = 1000.0,
        padding: str = "reflect",
        cut_layers: bool = False,
        filters_initializer="first_order",
        **kwargs,
    ):
        super().__init__(
            filters,
            kernel_size,
            scaling=scaling,
            sharpness=sharpness,
            max_sharpness=max_sharpness,
            padding=padding,
            filters_initializer=filters_initializer,
            **kwargs,
        )
        self.weak_convexity = positive("weak_convexity", weak_convexity, zero=True)
        self.knots = positive_int("knots", knots)
        if self.knots < 3 or self.knots % 2 == 0:
            raise ValueError(
                f"Expected `knots` to be an odd integer >= 3, so that 0 is one. Received {knots!r}."
            )
        self.shared, self.even = bool(shared), bool(even)
        self.noise_levels = check_levels(noise_levels, zero=True)
        self.cut_layers = bool(cut_layers)
        if self.cut_layers and self.padding != "zero":
            raise ValueError(
                "Expected `padding='zero'` where layers are cut. Received "
                f"padding={padding!r}, cut_layers={cut_layers!r}."
            )
        self._profile = SplineProfile()

    def _first_scaling(self):
        start = np.log(self.scaling)
        if not self.takes_noise_level:
            return np.full(self.scales, start)
        return np.full((len(self.noise_levels), self.scales), start + np.log(USUAL_NOISE))

    def _build_potentials(self):
        half = (self.knots - 1) // 2
        start = np.full(half, -self.weak_convexity)
        start[0] = self.sharpness  # of the halves the part next to zero comes first
        if not self.even:
            start = np.concatenate([start[::-1], start])
        start = np.tile(start, (1 if self.shared else self.scales, 1))
        self.slopes = self.add_weight(
            shape=start.shape,
            initializer=lambda shape, dtype: tf.constant(start, dtype),
            constraint=Between(-self.weak_convexity, self.max_sharpness),
            name="slopes",
        )

    def _potentials(self):
        slopes = tf.maximum(tf.convert_to_tensor(self.slopes), -self.weak_convexity)
        if self.even:
            slopes = tf.concat([tf.reverse(slopes, [1]), slopes], axis=1)
        return integrated(slopes)

    def coefficients(self, size=None) -> RidgeCoefficients:
        if not self.cut_layers:
            return super().coefficients(size)
        *layers, last = self._mean_free()
        norm = convolution.composition_norm_bound([(f, "zero") for f in (*layers, last)])
        norm = tf.where(norm > 0, norm, tf.ones_like(norm))
        return RidgeCoefficients((*layers, last / norm), self._potentials(), tf.ones_like(norm))

    def _analyse(self, u, filters):
        if not self.cut_layers:
            return super()._analyse(u, filters)
        self._check_shape(u.shape)
        return functools.reduce(lambda x, f: convolution.correlate(x, f, "zero"), filters, u)

    def _synthesise(self, responses, filters):
        if not self.cut_layers:
            return super()._synthesise(responses, filters)
        backwards = reversed(filters)
        adjoint = convolution.correlate_adjoint
        return functools.reduce(lambda x, f: adjoint(x, f, "zero"), backwards, responses)

    def _whole(self, filters):
        return functools.reduce(convolution.compose, filters) if self.cut_layers else filters

    def _interpolated(self, noise_level):
        weights = linear_weights(noise_level, self.noise_levels)
        found = tf.linalg.matmul(weights, tf.convert_to_tensor(self.log_scaling))
        return found - tf.math.log(noise_level + _LEAST_NOISE)[:, None]

    def _lipschitz(self, c):
        return c.square * tf.reduce_max(tf.abs(c.sharpness.curvature))

    def _modulus(self, c):
        return c.square * tf.minimum(tf.reduce_min(c.sharpness.curvature), 0)

    def curves(self, t, noise_level=None):
        t = tf.cast(t, self.variable_dtype)[:, None]
        c = self._potentials(), self.scaling_at(noise_level)[:1]
        found = {"potential": self._profile.value, "activation": self._profile.slope}
        return {name: tf.transpose(function(t, *c)) for name, function in found.items()}

    def get_config(self):
        config = super().get_config()
        del config["activation"]
        names = ("knots", "shared", "even", "cut_layers")
        return {**config, **{name: getattr(self, name) for name in names}}

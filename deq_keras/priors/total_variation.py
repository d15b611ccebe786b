"""Smoothed total variation."""

import math

import keras
import numpy as np
import tensorflow as tf

from deq_keras import checks
from deq_keras.checks import positive
from deq_keras.convolution import spectra
from deq_keras.numerics.partial import Partial
from deq_keras.numerics.rows import norm, to_rows
from deq_keras.priors.base import BoundPrior, Prior
from deq_keras.priors.sensitivity import Sensitivity

_SQUARE = 8.0  # of the norm of D, at most
# The largest third derivative of sqrt(|g|^2 + 1) in unit directions: it is in those along g, for a
# symmetric form is largest on the diagonal, and there it is 3 t / (1 + t^2)^(5/2), at t = 1/2.
_STEEPEST = 48.0 / (25.0 * math.sqrt(5.0))


@keras.saving.register_keras_serializable(package="deq_keras")
class TotalVariation(Prior):
    """Smoothed isotropic total variation, the classical prior; at most its smoothing is learned.

        R(u) = sum_x (sqrt(|D u(x)|^2 + smoothing^2) - smoothing)

    with forward differences `D` along both axes, zero across the boundary (Neumann). `|D u(x)|`
    takes the channels together, so edges of a colour image coincide. Convex; its gradient has
    Lipschitz constant at most `8 / smoothing`, as `||D||^2 <= 8`.

    Args:
        smoothing: Gradients well below it are smoothed quadratically; on images on [0, 1].
        train_smoothing: Whether the smoothing is trained, as a logarithm.

    Reference:
        Rudin, Osher and Fatemi, Nonlinear total variation based noise removal algorithms, 1992;
        Chambolle and Pock, Acta Numerica 2016, for the norm of `D`.

    Example:

    >>> edge = tf.concat([tf.zeros((1, 4, 2, 1)), tf.ones((1, 4, 2, 1))], axis=2)
    >>> prior = deq_keras.priors.TotalVariation(smoothing=1e-3)
    >>> prior.energy(edge).numpy().round(1)  # four pixels high, one grey level
    array([4.], dtype=float32)
    """

    is_convex = True

    def __init__(self, smoothing: float = 0.01, train_smoothing: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.smoothing = positive("smoothing", smoothing)
        self.train_smoothing = bool(train_smoothing)

    def build(self, input_shape):
        checks.shape_4d(type(self).__name__, input_shape)
        if self.train_smoothing:
            self.log_smoothing = self.add_weight(
                shape=(),
                initializer=keras.initializers.Constant(np.log(self.smoothing)),
                name="log_smoothing",
            )
        self.built = True

    def _smoothing(self):
        if self.train_smoothing:
            return tf.exp(self.log_smoothing)
        return tf.constant(self.smoothing, self.variable_dtype)

    def _differences(self, u):
        down = tf.pad(u[:, 1:] - u[:, :-1], [[0, 0], [0, 1], [0, 0], [0, 0]])
        right = tf.pad(u[:, :, 1:] - u[:, :, :-1], [[0, 0], [0, 0], [0, 1], [0, 0]])
        return down, right

    def _magnitude(self, down, right, smoothing):
        square = tf.reduce_sum(down * down + right * right, axis=-1, keepdims=True)
        return tf.sqrt(square + smoothing**2)

    def bind(self, image_shape):
        functions = (self._gradient, self._energy, self._spectrum, self._diagonal)
        smoothing = (self._smoothing(),)
        gradient, energy, spectrum, diagonal = (Partial(f, smoothing) for f in functions)
        constants = self.gradient_lipschitz(), self.strong_convexity()
        return BoundPrior(gradient, energy, *constants, spectrum, diagonal)

    @property
    def has_energy(self):
        return True

    def _energy(self, u, smoothing):
        magnitude = self._magnitude(*self._differences(u), smoothing)
        return tf.reduce_sum(magnitude - smoothing, axis=(1, 2, 3))

    def _gradient(self, u, smoothing):
        down, right = self._differences(u)
        magnitude = self._magnitude(down, right, smoothing)
        return self._divergence(down / magnitude, right / magnitude)

    def _divergence(self, down, right):
        """`D^T` of a field."""
        down, right = down[:, :-1], right[:, :, :-1]
        none = [0, 0]
        down = tf.pad(down, [none, [1, 0], none, none]) - tf.pad(down, [none, [0, 1], none, none])
        right = tf.pad(right, [none, none, [1, 0], none]) - tf.pad(
            right, [none, none, [0, 1], none]
        )
        return down + right

    def _spectrum(self, u, smoothing):
        """`sum_i d_i |D_i^|^2`, with `d_i` the mean of the second derivative along axis `i`."""
        height, width = spectra.size_of(u)
        total = 0.0
        for shape, curvature in zip(((2, 1), (1, 2)), self._curvatures(u, smoothing), strict=True):
            weights = tf.reduce_mean(curvature, axis=(1, 2, 3))[:, None, None]
            kernel = tf.constant([-1.0, 1.0], u.dtype, shape)
            total += weights * spectra.power(kernel, height, width)
        return total

    def _diagonal(self, u, smoothing):
        """What the two axes contribute to the diagonal, without the product of the two."""
        down, right = self._curvatures(u, smoothing)
        down, right = down[:, :-1], right[:, :, :-1]
        return (
            tf.pad(down, [[0, 0], [0, 1], [0, 0], [0, 0]])
            + tf.pad(down, [[0, 0], [1, 0], [0, 0], [0, 0]])
            + tf.pad(right, [[0, 0], [0, 0], [0, 1], [0, 0]])
            + tf.pad(right, [[0, 0], [0, 0], [1, 0], [0, 0]])
        )

    def _curvatures(self, u, smoothing):
        """The second derivatives of the magnitude in each of the two differences."""
        differences = self._differences(u)
        magnitude = self._magnitude(*differences, smoothing)
        return [(1.0 - (d / magnitude) ** 2) / magnitude for d in differences]

    def gradient_lipschitz(self, size=None):
        return _SQUARE / self._smoothing()

    def hessian_variation(self, p, size=None):
        """`8 c / smoothing^2 max |D p|`, as the second derivative of the length has a slope `c`."""
        self.ensure_built(p)
        down, right = self._differences(p)
        longest = tf.reduce_max(self._magnitude(down, right, 0.0), axis=(1, 2, 3))
        return _SQUARE * _STEEPEST / self._smoothing() ** 2 * longest

    def sensitivities(self, u, radius, size=None):
        """Of a smoothing `s` that is trained: `d grad R / d log s = -D^T (s^2 g / m^3)`.

        With `g = D u` and `m^2 = |g|^2 + s^2` this is known; its slope in `g` is at most `1 / s`.
        """
        if not self.train_smoothing:
            return {}
        smoothing, (down, right) = self._smoothing(), self._differences(u)
        factor = smoothing**2 / self._magnitude(down, right, smoothing) ** 3
        size_of = norm(to_rows(self._divergence(factor * down, factor * right))[0])
        slope = _SQUARE / smoothing * tf.ones_like(radius)
        return {"log_smoothing": Sensitivity(size_of, slope)}

    def scalars(self):
        return {"smoothing": self._smoothing()} if self.train_smoothing else {}

    def get_config(self):
        config = super().get_config()
        config.update(smoothing=self.smoothing, train_smoothing=self.train_smoothing)
        return config

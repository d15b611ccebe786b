"""Smoothed total variation."""

import keras
import tensorflow as tf

from deq_keras import checks
from deq_keras.checks import positive
from deq_keras.convolution import spectra
from deq_keras.numerics.partial import Partial
from deq_keras.priors.base import BoundPrior, Prior


@keras.saving.register_keras_serializable(package="deq_keras")
class TotalVariation(Prior):
    """Smoothed isotropic total variation, the classical prior; nothing is learned.

        R(u) = sum_x (sqrt(|D u(x)|^2 + smoothing^2) - smoothing)

    with forward differences `D` along both axes, zero across the boundary (Neumann). `|D u(x)|`
    takes the channels together, so edges of a colour image coincide. Convex; its gradient has
    Lipschitz constant at most `8 / smoothing`, as `||D||^2 <= 8`.

    Args:
        smoothing: Gradients well below it are smoothed quadratically; on images on [0, 1].

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

    def __init__(self, smoothing=0.01, **kwargs):
        super().__init__(**kwargs)
        self.smoothing = positive("smoothing", smoothing)

    def build(self, input_shape):
        checks.shape_4d(type(self).__name__, input_shape)
        self.built = True

    def _differences(self, u):
        down = tf.pad(u[:, 1:] - u[:, :-1], [[0, 0], [0, 1], [0, 0], [0, 0]])
        right = tf.pad(u[:, :, 1:] - u[:, :, :-1], [[0, 0], [0, 0], [0, 1], [0, 0]])
        return down, right

    def _magnitude(self, down, right):
        square = tf.reduce_sum(down * down + right * right, axis=-1, keepdims=True)
        return tf.sqrt(square + self.smoothing**2)

    def bind(self, image_shape):
        return BoundPrior(
            Partial(self._gradient),
            Partial(self._energy),
            self.gradient_lipschitz(),
            self.strong_convexity(),
            Partial(self._spectrum),
            Partial(self._diagonal),
        )

    @property
    def has_energy(self):
        return True

    def _energy(self, u):
        magnitude = self._magnitude(*self._differences(u))
        return tf.reduce_sum(magnitude - self.smoothing, axis=(1, 2, 3))

    def _gradient(self, u):
        down, right = self._differences(u)
        magnitude = self._magnitude(down, right)
        down, right = (down / magnitude)[:, :-1], (right / magnitude)[:, :, :-1]
        none = [0, 0]
        down = tf.pad(down, [none, [1, 0], none, none]) - tf.pad(down, [none, [0, 1], none, none])
        right = tf.pad(right, [none, none, [1, 0], none]) - tf.pad(
            right, [none, none, [0, 1], none]
        )
        return down + right

    def _spectrum(self, u):
        """`sum_i d_i |D_i^|^2`, with `d_i` the mean of the second derivative along axis `i`."""
        height, width = spectra.size_of(u)
        total = 0.0
        for shape, curvature in zip(((2, 1), (1, 2)), self._curvatures(u), strict=True):
            weights = tf.reduce_mean(curvature, axis=(1, 2, 3))[:, None, None]
            kernel = tf.constant([-1.0, 1.0], u.dtype, shape)
            total += weights * spectra.power(kernel, height, width)
        return total

    def _diagonal(self, u):
        """What the two axes contribute to the diagonal, without the product of the two."""
        down, right = self._curvatures(u)
        down, right = down[:, :-1], right[:, :, :-1]
        return (
            tf.pad(down, [[0, 0], [0, 1], [0, 0], [0, 0]])
            + tf.pad(down, [[0, 0], [1, 0], [0, 0], [0, 0]])
            + tf.pad(right, [[0, 0], [0, 0], [0, 1], [0, 0]])
            + tf.pad(right, [[0, 0], [0, 0], [1, 0], [0, 0]])
        )

    def _curvatures(self, u):
        """The second derivatives of the magnitude in each of the two differences."""
        differences = self._differences(u)
        magnitude = self._magnitude(*differences)
        return [(1.0 - (d / magnitude) ** 2) / magnitude for d in differences]

    def gradient_lipschitz(self, size=None):
        return tf.constant(8.0 / self.smoothing, self.variable_dtype)

    def get_config(self):
        return {**super().get_config(), "smoothing": self.smoothing}

"""A prior for images of another contrast."""

import keras
import tensorflow as tf

from deq_keras.numerics.partial import Partial
from deq_keras.priors.base import BoundPrior, Prior
from deq_keras.priors.of_another import OfAnother


@keras.saving.register_keras_serializable(package="deq_keras")
class Rescaled(OfAnother):
    """Another prior with its argument scaled: `R_s(u) = R(s u) / s`, `grad R_s(u) = grad R(s u)`.

    The one number `s` moves what counts as an edge and what as noise: a prior that was trained at
    one noise level fits another one, or another operator, with `s` and the weight fitted anew. A
    prior that grows in proportion to its argument is not changed at all, so scale and weight do not
    stand for each other. All that the prior certifies is multiplied by `s`. Of a learned map
    without an energy the argument is scaled in the same way.

    Args:
        prior: `R`, a `deq_keras.priors.Prior`.
        scale: Initial `s` > 0, kept as a logarithm.
        train_scale: Whether `s` is trained.

    Reference:
        Goujon, Neumayer and Unser, SIAM J. Imaging Sci. 2024, section 4, where a trained prior is
        taken to other inverse problems by a scaling and a weight.

    Example:

    >>> prior = deq_keras.priors.Rescaled(deq_keras.presets.load("foe_bsd400"), scale=2.0)
    >>> layer = deq_keras.layers.Variational(
    ...     deq_keras.operators.GaussianBlur(9, 1.6), prior, weight=0.01)
    >>> layer(tf.random.uniform((1, 24, 24, 1))).shape
    TensorShape([1, 24, 24, 1])
    """

    number = "scale"

    def __init__(self, prior: Prior, scale: float = 1.0, train_scale: bool = True, **kwargs):
        super().__init__(prior, scale, train_scale, **kwargs)

    @property
    def takes_noise_level(self):
        """Whether each image comes with its noise level."""
        return self.prior.takes_noise_level

    def bind(self, image_shape, *noise_level):
        inner, scale = self.prior.bind(image_shape, *noise_level), tf.exp(self.log_scale)

        def argument(function):
            return function and Partial(lambda u, f, s: f(s * u), (function, scale))

        def multiplied(function):
            return function and Partial(lambda u, f, s: s * f(s * u), (function, scale))

        def constant(value):
            return None if value is None else scale * value

        energy = inner.energy and Partial(lambda u, f, s: f(s * u) / s, (inner.energy, scale))
        return BoundPrior(
            argument(inner.gradient),
            energy,
            constant(inner.lipschitz),
            constant(inner.strong_convexity),
            multiplied(inner.hessian_spectrum),
            multiplied(inner.hessian_diagonal),
            inner.work,
        )

    def gradient_lipschitz(self, size=None):
        found = self.prior.gradient_lipschitz(size)
        return None if found is None else tf.exp(self.log_scale) * found

    def strong_convexity(self):
        found = self.prior.strong_convexity()
        return None if found is None else tf.exp(self.log_scale) * found

    def hessian_variation(self, p, size=None):
        self.ensure_built(p)
        return tf.exp(2.0 * self.log_scale) * self.prior.hessian_variation(p, size)

    def scalars(self):
        return {"scale": tf.exp(self.log_scale), **self.prior.scalars()}

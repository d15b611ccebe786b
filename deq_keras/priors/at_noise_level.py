"""A prior that takes noise levels, with one for all images."""

import keras
import tensorflow as tf

from deq_keras.priors.base import Prior
from deq_keras.priors.of_another import OfAnother


@keras.saving.register_keras_serializable(package="deq_keras")
class AtNoiseLevel(OfAnother):
    """A prior that takes noise levels, with one for all images: a number that is fitted.

    In another inverse problem the noise of the measurement is not that of an image, and how strong
    a denoiser the prior is to be has to be found: tune or train this number.

    Args:
        prior: A `deq_keras.priors.Prior` with `takes_noise_level`.
        noise_level: Initial standard deviation > 0, kept as a logarithm.
        train_noise_level: Whether it is trained.

    Example:

    >>> several = deq_keras.priors.RidgeRegularizer((2, 4), noise_levels=(0.02, 0.1))
    >>> prior = deq_keras.priors.AtNoiseLevel(several, noise_level=0.05)
    >>> prior.energy(tf.random.uniform((2, 32, 32, 1))).shape
    TensorShape([2])
    """

    number = "noise_level"

    def __init__(
        self, prior: Prior, noise_level: float = 0.1, train_noise_level: bool = True, **kwargs
    ):
        super().__init__(prior, noise_level, train_noise_level, **kwargs)
        if not prior.takes_noise_level:
            raise ValueError(
                f"AtNoiseLevel expected a `prior` that takes a noise level. Received {prior!r}, "
                "which takes none: use it as it is, or `deq_keras.priors.Rescaled`."
            )

    def bind(self, image_shape):
        return self.prior.bind(image_shape, tf.fill(image_shape[:1], tf.exp(self.log_noise_level)))

    def gradient_lipschitz(self, size=None):
        return self.prior.gradient_lipschitz(size)

    def strong_convexity(self):
        return self.prior.strong_convexity()

    def hessian_variation(self, p, size=None):
        self.ensure_built(p)
        return self.prior.hessian_variation(p, size)

    def scalars(self):
        return {"noise_level": tf.exp(self.log_noise_level), **self.prior.scalars()}

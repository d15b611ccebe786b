"""A prior that takes noise levels, with one for all images."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.checks import positive
from deq_keras.config import deserialise, serialise
from deq_keras.priors.base import Prior
from deq_keras.priors.rescaled import inner_prior


@keras.saving.register_keras_serializable(package="deq_keras")
class AtNoiseLevel(Prior):
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

    def __init__(
        self, prior: Prior, noise_level: float = 0.1, train_noise_level: bool = True, **kwargs
    ):
        super().__init__(**kwargs)
        self.prior = inner_prior(self, prior)
        if not prior.takes_noise_level:
            raise ValueError(
                f"AtNoiseLevel expected a `prior` that takes a noise level. Received {prior!r}, "
                "which takes none: use it as it is, or `deq_keras.priors.Rescaled`."
            )
        self.noise_level = positive("noise_level", noise_level)
        self.train_noise_level = bool(train_noise_level)

    @property
    def has_energy(self):
        return self.prior.has_energy

    @property
    def is_convex(self):
        return self.prior.is_convex

    @property
    def certified(self):
        return self.prior.certified

    def build(self, input_shape):
        if not self.prior.built:
            self.prior.build(input_shape)
        self.log_noise_level = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(np.log(self.noise_level)),
            trainable=self.train_noise_level,
            name="log_noise_level",
        )
        self.built = True

    def bind(self, image_shape):
        return self.prior.bind(image_shape, tf.fill(image_shape[:1], tf.exp(self.log_noise_level)))

    def gradient_lipschitz(self, size=None):
        return self.prior.gradient_lipschitz(size)

    def strong_convexity(self):
        return self.prior.strong_convexity()

    def hessian_variation(self, p, size=None):
        self.ensure_built(p)
        return self.prior.hessian_variation(p, size)

    def pictures(self):
        return self.prior.pictures()

    def scalars(self):
        return {"noise_level": tf.exp(self.log_noise_level), **self.prior.scalars()}

    def get_config(self):
        return {
            **super().get_config(),
            "prior": serialise(self.prior),
            "noise_level": self.noise_level,
            "train_noise_level": self.train_noise_level,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "prior"))

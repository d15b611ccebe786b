"""One gradient step on a prior as a denoiser: the form in which it is trained without a solve."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from deq_keras.checks import positive
from deq_keras.config import described, deserialise, serialise
from deq_keras.layers.cell import expect, split_noise_level
from deq_keras.priors import Prior


@keras.saving.register_keras_serializable(package="deq_keras")
class OneStepDenoiser(keras.layers.Layer):
    """Maps noisy images to `y - lambda grad R(y)`; with a `DenoiserEnergy`, to `D(y)`.

    Fitting it to clean images is denoising score matching: the prior learns the gradient of the
    negative logarithm of the density of noisy images, at the price of one gradient a step, where
    bilevel learning solves a problem. `Variational` with the same prior starts well from there.

    Args:
        prior: `R`, a `deq_keras.priors.Prior`.
        weight: Initial `lambda` > 0.
        train_weight: Whether `lambda` is trained, as a logarithm. Where it does not matter (of a
            `DenoiserEnergy`), it has no derivative.

    Call arguments:
        inputs: Noisy images `(batch, height, width, channels)`; with a prior that takes a noise
            level, the pair of these and the standard deviations `(batch,)`.

    Reference:
        Vincent, A connection between score matching and denoising autoencoders, Neural Computation
        2011; Hurault, Leclaire and Papadakis, Gradient step denoiser for convergent plug-and-play,
        ICLR 2022.

    Example:

    >>> prior = deq_keras.priors.FieldsOfExperts(filters=8, kernel_size=5, sharpness=50.0)
    >>> layer = deq_keras.layers.OneStepDenoiser(prior, weight=0.01)
    >>> model = keras.Sequential([keras.Input((None, None, 1)), layer])
    >>> model.compile("adam", "mse")
    >>> clean = tf.random.uniform((2, 16, 16, 1))
    >>> history = model.fit(clean + 0.1 * tf.random.normal(clean.shape), clean, verbose=0)
    """

    def __init__(self, prior: Prior, weight: float = 1.0, train_weight: bool = True, **kwargs):
        expect("prior", prior, Prior)
        kwargs.setdefault("dtype", prior.dtype_policy)
        super().__init__(autocast=False, **kwargs)
        self.prior = prior
        self.weight = positive("weight", weight)
        self.train_weight = bool(train_weight)

    def build(self, input_shape):
        if not self.prior.built:
            self.prior.build(tuple(split_noise_level(input_shape, self.prior)[0]))
        self.log_weight = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(np.log(self.weight)),
            trainable=self.train_weight,
            name="log_weight",
        )
        self.built = True

    def call(self, inputs):
        y, noise_level = split_noise_level(inputs, self.prior)
        y = tf.cast(y, self.variable_dtype)
        if noise_level is not None:
            noise_level = tf.cast(noise_level, self.variable_dtype)
        denoised = self.prior.denoise(y, tf.exp(self.log_weight), noise_level)
        return tf.cast(denoised, self.compute_dtype)

    def compute_output_shape(self, input_shape):
        return tuple(split_noise_level(input_shape, self.prior)[0])

    def __repr__(self):
        return described(self)

    def get_config(self):
        return {
            **super().get_config(),
            "prior": serialise(self.prior),
            "weight": self.weight,
            "train_weight": self.train_weight,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "prior"))

"""A denoiser with a map of noise levels, at one level for all images."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.checks import positive
from deq_keras.config import described, deserialise, serialise


@keras.saving.register_keras_serializable(package="deq_keras")
class DenoiserAtNoiseLevel(keras.layers.Layer):
    """A denoiser of `[images, noise level]` as a map of images alone: `u -> D(u, sigma)`.

    In plug-and-play `sigma` is no property of the measurement but how strongly it is regularised:
    it is trained, as a logarithm, unless `train_noise_level=False`.

    Args:
        denoiser: Keras layer or model, called as `denoiser([images, noise_level])`.
        noise_level: Initial `sigma`, a standard deviation on [0, 1], > 0.
        train_noise_level: Whether `sigma` is trained.

    Call arguments:
        inputs: Images `(batch, height, width, channels)`.

    Example:

    >>> unet = deq_keras.denoisers.UNet(filters=(8,), blocks=1, noise_map=True)
    >>> denoiser = deq_keras.denoisers.DenoiserAtNoiseLevel(unet, 0.05)
    >>> denoiser(tf.random.uniform((2, 16, 16, 1))).shape
    TensorShape([2, 16, 16, 1])
    """

    def __init__(self, denoiser, noise_level: float, train_noise_level: bool = True, **kwargs):
        kwargs.setdefault("dtype", denoiser.dtype_policy)
        super().__init__(**kwargs)
        self.denoiser = denoiser
        self.noise_level = positive("noise_level", noise_level)
        self.train_noise_level = bool(train_noise_level)

    def build(self, input_shape):
        self.log_noise_level = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(np.log(self.noise_level)),
            trainable=self.train_noise_level,
            name="log_noise_level",
        )
        if not self.denoiser.built:
            self.denoiser.build([tuple(input_shape), (input_shape[0],)])
        self.built = True

    def call(self, inputs):
        level = tf.cast(tf.exp(self.log_noise_level), inputs.dtype)
        return self.denoiser([inputs, level * tf.ones_like(inputs[:, 0, 0, 0])])

    def compute_output_shape(self, input_shape):
        return input_shape

    def __repr__(self):
        return described(self)

    def get_config(self):
        return {
            **super().get_config(),
            "denoiser": serialise(self.denoiser),
            "noise_level": self.noise_level,
            "train_noise_level": self.train_noise_level,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "denoiser"))

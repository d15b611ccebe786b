"""A network in the place of the gradient of a prior."""

import keras
import tensorflow as tf

from deq_keras.checks import shape_4d
from deq_keras.config import deserialise, serialise
from deq_keras.priors.base import Prior


@keras.saving.register_keras_serializable(package="deq_keras")
class LearnedGradient(Prior):
    """Any Keras network in the place of `grad R`: in general no gradient, so without an energy.

    `Equilibrium(GradientStep(operator, LearnedGradient(network)))` is the deep equilibrium model
    DE-Grad of Gilton, Ongie and Willett. Nothing is certified of the network: its step size is
    estimated by power iterations, unless one is given to the `GradientStep`.

    Args:
        network: Keras layer or model from images to images of the same shape. It is evaluated as in
            inference: a network with dropout or batch normalisation belongs into a `ProximalStep`.

    Reference:
        Gilton, Ongie and Willett, Deep equilibrium architectures for inverse problems in imaging,
        IEEE TCI 2021.

    Example:

    >>> network = keras.layers.Conv2D(1, 3, padding="same", activation="tanh")
    >>> prior = deq_keras.priors.LearnedGradient(network)
    >>> prior.gradient(tf.random.uniform((2, 16, 16, 1))).shape
    TensorShape([2, 16, 16, 1])
    """

    def __init__(self, network: keras.layers.Layer, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(network, keras.layers.Layer):
            raise ValueError(f"Expected `network` to be a Keras layer. Received {network!r}.")
        self.network = network

    def build(self, input_shape):
        shape = shape_4d(type(self).__name__, input_shape)
        output = self.network(keras.KerasTensor((None, None, None, shape[-1]), self.variable_dtype))
        if output.shape[-1] != shape[-1]:
            raise ValueError(
                f"Expected a `network` that returns {shape[-1]} channels, as many as its images "
                f"have. Received {output.shape[-1]}."
            )
        self.built = True

    def gradient(self, u):
        self.ensure_built(u)
        return tf.cast(self.network(u, training=False), u.dtype)

    def get_config(self):
        return {**super().get_config(), "network": serialise(self.network)}

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "network"))

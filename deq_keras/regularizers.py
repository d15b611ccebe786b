"""Penalties on the Jacobian of a map, which keep an equilibrium stable.

The fixed point of a map whose Jacobian is small is found in few steps and stays where it is when
the weights change a little. A penalty is a scalar that is added to the loss; its estimates are
those of `deq_keras.numerics.jacobian`.
"""

import keras
import tensorflow as tf

from deq_keras import config
from deq_keras.checks import positive, positive_int
from deq_keras.config import Configurable
from deq_keras.numerics.jacobian import hutchinson, power

__all__ = ["FrobeniusPenalty", "JacobianRegularizer", "SpectralPenalty", "get"]


@keras.saving.register_keras_serializable(package="deq_keras")
class JacobianRegularizer(Configurable):
    """A penalty `penalty(f, z, seed) -> scalar` on the Jacobian of a map at a point.

    Args:
        weight: Factor of the penalty, >= 0.

    Call arguments:
        f: The map, which treats every image of a batch apart.
        z: Where: a tensor `(batch, ...)` or a nested structure of such. Pass
            `tf.stop_gradient(z)` for a penalty that moves the weights of `f` and not `z`.
        seed: Two integers or a tensor of them. In training, fresh ones each step.

    Example:

    >>> class Expansion(deq_keras.regularizers.JacobianRegularizer):
    ...     def estimate(self, f, z, seed):  # how far the map moves points, not its Jacobian
    ...         return tf.reduce_mean((f(z) - z) ** 2, axis=(1, 2, 3))
    >>> float(Expansion(weight=0.5)(lambda z: z + 2.0, tf.zeros((2, 8, 8, 1))))
    2.0
    """

    def __init__(self, weight=1.0):
        self.weight = positive("weight", weight, zero=True)

    def estimate(self, f, z, seed):
        """What is penalised, for each image: `(batch,)`."""
        raise NotImplementedError

    def __call__(self, f, z, seed=(0, 0)):
        return self.weight * tf.reduce_mean(self.estimate(f, z, seed))

    def get_config(self):
        return {"weight": self.weight}


@keras.saving.register_keras_serializable(package="deq_keras")
class FrobeniusPenalty(JacobianRegularizer):
    """`weight ||J||_F^2 / n`, averaged over the images, by random probes (see `hutchinson`).

    Args:
        weight: Factor of the penalty, >= 0.
        probes: How many random probes, one vector-Jacobian product each.

    Example:

    >>> penalty = deq_keras.regularizers.FrobeniusPenalty(weight=0.1)
    >>> loss = penalty(lambda z: tf.tanh(2.0 * z), tf.zeros((2, 8, 8, 1)), seed=(0, 1))
    >>> round(float(loss), 3)
    0.4
    """

    def __init__(self, weight=1.0, probes=1):
        super().__init__(weight)
        self.probes = positive_int("probes", probes)

    def estimate(self, f, z, seed):
        return hutchinson(f, z, seed, self.probes)

    def get_config(self):
        return {**super().get_config(), "probes": self.probes}


@keras.saving.register_keras_serializable(package="deq_keras")
class SpectralPenalty(JacobianRegularizer):
    """`weight ||J||_2^2`, averaged over the images, by power iterations (see `power`).

    It penalises the direction that is stretched most, and so asks less of the others than
    `FrobeniusPenalty` does; each of its steps costs three vector-Jacobian products.

    Args:
        weight: Factor of the penalty, >= 0.
        steps: How many power iterations.

    Example:

    >>> penalty = deq_keras.regularizers.SpectralPenalty(weight=0.1, steps=3)
    >>> loss = penalty(lambda z: tf.tanh(2.0 * z), tf.zeros((2, 8, 8, 1)), seed=(0, 1))
    >>> round(float(loss), 3)
    0.4
    """

    def __init__(self, weight=1.0, steps=5):
        super().__init__(weight)
        self.steps = positive_int("steps", steps)

    def estimate(self, f, z, seed):
        return power(f, z, seed, self.steps) ** 2

    def get_config(self):
        return {**super().get_config(), "steps": self.steps}


_BY_NAME = {"jacobian_frobenius": FrobeniusPenalty, "jacobian_spectral": SpectralPenalty}


def get(identifier):
    """A `JacobianRegularizer` from a name, a configuration or an object.

    Args:
        identifier: `"jacobian_frobenius"`, `"jacobian_spectral"`, what
            `keras.saving.serialize_keras_object` made of a penalty, or a penalty.

    Raises:
        ValueError: If the name is not known.
        TypeError: If it is something else.

    Example:

    >>> deq_keras.regularizers.get("jacobian_frobenius")
    FrobeniusPenalty(weight=1.0, probes=1)
    """
    return config.get(identifier, "Jacobian regularizer", _BY_NAME, JacobianRegularizer)

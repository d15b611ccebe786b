"""Recorrupted-to-Recorrupted: two measurements with independent noise out of one."""

import keras
import tensorflow as tf

from deq_keras.checks import positive
from deq_keras.losses.base import MeasurementLoss, one_real_measurement
from deq_keras.operators import gaussian_noise


@keras.saving.register_keras_serializable(package="deq_keras")
class Recorrupted(MeasurementLoss):
    """More noise for the input, and less of the same for the target.

    For Gaussian noise of standard deviation `sigma` and `z` drawn from the same distribution, the
    noises of `y + alpha z` and `y - z / alpha` are independent, so

        mean (K u_hat(y + alpha z) - (y - z / alpha))^2 - sigma^2 (1 + 1 / alpha^2)

    is an unbiased estimate of the error of the prediction at the noise level
    `sigma sqrt(1 + alpha^2)`. That is what the model learns: with `alpha = 0.5` noise that is an
    eighth stronger than that of the measurements it will be given. The smaller `alpha`, the nearer
    that is, and the more the estimate varies.

    Args:
        noise_level: `sigma` > 0, on the scale of the measurements.
        strength: `alpha` > 0.
        operator: As in `MeasurementLoss`.

    Reference:
        Pang, Zheng, Quan and Ji, Recorrupted-to-Recorrupted: Unsupervised deep learning for image
        denoising, CVPR 2021.

    Example:

    >>> loss = deq_keras.losses.Recorrupted(noise_level=0.1)
    >>> y, target = loss.prepare(lambda seed, index: tf.ones((64, 64, 1)), seed=0, index=3)
    >>> [round(float(tf.math.reduce_std(image)), 2) for image in (y, target)]
    [0.05, 0.2]
    """

    def __init__(self, noise_level: float, strength: float = 0.5, operator=None):
        super().__init__(operator)
        self.noise_level = positive("noise_level", noise_level)
        self.strength = positive("strength", strength)

    def prepare(self, measure, seed, index):
        why = "Where nothing is measured no noise can be moved."
        y = one_real_measurement(self, measure(seed, index), why)
        z = gaussian_noise(tf.zeros_like(y), self.noise_level, seed + 2, index)
        return y + self.strength * z, y - z / self.strength

    def values(self, model, x, prediction, target, training):
        noise = self.noise_level**2 * (1.0 + 1.0 / self.strength**2)
        return self.squares(prediction, target) - noise

    def get_config(self):
        return {
            "noise_level": self.noise_level,
            "strength": self.strength,
            **super().get_config(),
        }

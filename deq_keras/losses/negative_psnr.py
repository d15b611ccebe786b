"""The mean peak signal-to-noise ratio of images as a loss."""

import math

import keras
import tensorflow as tf

from deq_keras import metrics
from deq_keras.checks import positive


@keras.saving.register_keras_serializable(package="deq_keras")
class NegativePSNR(keras.losses.Loss):
    """Minus the peak signal-to-noise ratio in decibels, the mean over the images of a batch.

        -10 log10(max_value^2 / (mse_i + max_value^2 10^(-highest / 10)))

    The mean of `PSNR` over images, which papers report, is one of logarithms: an image of half the
    error counts twice as much as in the mean squared error, which smooth images hardly enter.

    Args:
        max_value: The largest value a pixel can have, above the least one, 0.
        highest: What identical images have, in decibels: keeps gradients finite.
        reduction: As of other losses of Keras.
        name: As of other losses of Keras.
        dtype: As of other losses of Keras.

    Raises:
        ValueError: If a number is not positive, or, in a call, if the images are not of rank 4 or
            differ in shape.

    Example:

    >>> loss = deq_keras.losses.NegativePSNR()
    >>> truth = tf.zeros((2, 8, 8, 1))
    >>> print(round(float(loss(truth, truth + 0.1)), 3))
    -20.0
    """

    def __init__(
        self,
        max_value: float = 1.0,
        highest: float = 80.0,
        reduction: str = "sum_over_batch_size",
        name: str = "negative_psnr",
        dtype=None,
    ):
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self.max_value = positive("max_value", max_value)
        self.highest = positive("highest", highest)

    def call(self, y_true, y_pred):
        mse = metrics.mean_squared_error(y_true, y_pred, self.max_value, "NegativePSNR")
        return 10.0 / math.log(10.0) * tf.math.log(mse + 10.0 ** (-self.highest / 10.0))

    def get_config(self):
        return {**super().get_config(), "max_value": self.max_value, "highest": self.highest}

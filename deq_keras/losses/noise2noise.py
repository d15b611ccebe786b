"""Noise2Noise: a second measurement in the place of the clean image."""

import keras

from deq_keras.losses.base import MeasurementLoss


@keras.saving.register_keras_serializable(package="deq_keras")
class Noise2Noise(MeasurementLoss):
    """The error in the prediction of a second measurement of the same image.

        mean |K' u_hat(y) - y'|^2,    E = E mean |K' u_hat(y) - K' u|^2 + var(n')

    for any noise of mean zero that is independent of that of `y`, real or complex, and any second
    operator `K'`. Where `K'` is another one each time (another random mask), all of the image is
    learned from.

    Args:
        operator: As in `MeasurementLoss`; the second measurement may bring its own data.

    Reference:
        Lehtinen, Munkberg, Hasselgren, Laine, Karras, Aittala and Aila, Noise2Noise: Learning image
        restoration without clean data, ICML 2018.

    Example:

    >>> loss = deq_keras.losses.Noise2Noise()
    >>> def measure(seed, index):
    ...     return deq_keras.operators.gaussian_noise(tf.ones((8, 8, 1)), 0.1, seed, index)
    >>> y, other = loss.prepare(measure, seed=0, index=3)
    >>> bool(tf.reduce_all(y != other))
    True
    """

    def prepare(self, measure, seed, index):
        return measure(seed, index), measure(seed + 2, index)

    def values(self, model, x, prediction, target, training):
        return self.squares(prediction, target)

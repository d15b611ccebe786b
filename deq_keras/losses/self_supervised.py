"""The Keras model that is trained by a loss without clean images."""

import keras

from deq_keras.config import deserialise, serialise
from deq_keras.losses.base import MeasurementLoss, OwnLossModel


@keras.saving.register_keras_serializable(package="deq_keras")
class SelfSupervised(OwnLossModel):
    """A Keras model of symbolic tensors that is trained by a `MeasurementLoss`.

    It is called, saved and exported like the model of the same tensors. `fit` is given what the
    loss prepares: pairs `(input, target)`, or `(input, (truth, target))` where clean images are
    there to measure with. The loss never sees the truth, and metrics see nothing else: without it
    they are left out.

    Args:
        inputs: As of a `keras.Model`.
        outputs: The reconstruction, one tensor.
        loss: A `deq_keras.losses.MeasurementLoss`.
        **kwargs: Further arguments of `keras.Model`.

    Raises:
        ValueError: If it is compiled with another loss.

    Example:

    >>> y = tf.random.uniform((4, 16, 16, 1))
    >>> denoiser = deq_keras.denoisers.dncnn(depth=2, filters=4)
    >>> inputs = keras.Input((None, None, 1))
    >>> loss = deq_keras.losses.SURE(noise_level=0.1)
    >>> model = deq_keras.losses.SelfSupervised(inputs, denoiser(inputs), loss=loss)
    >>> model.compile("adam")
    >>> signs = tf.sign(tf.random.normal(y.shape))
    >>> history = model.fit(y, signs, verbose=0)
    """

    def __init__(self, *args, loss, **kwargs):
        super().__init__(*args, **kwargs)
        loss = deserialise({"loss": loss}, "loss")["loss"]
        if not isinstance(loss, MeasurementLoss):
            raise ValueError(
                f"Expected `loss` to be a `deq_keras.losses.MeasurementLoss`. Received {loss!r}."
            )
        self.measurement_loss = loss

    def _values(self, x, y, y_pred, training):
        return self.measurement_loss.values(self, x, y_pred, _parts(y)[1], training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        """Updates the metrics if there is a truth, and returns their values."""
        truth, _ = _parts(y)
        if truth is None:
            return self.get_metrics_result()
        return super().compute_metrics(x, truth, y_pred, sample_weight)

    def get_config(self):
        return {**super().get_config(), "loss": serialise(self.measurement_loss)}


def _parts(y):
    """`(truth, target)`. A target with data of its own comes with a truth."""
    return y if isinstance(y, tuple | list) else (None, y)

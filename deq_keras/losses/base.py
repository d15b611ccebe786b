"""The contract of a loss that needs measurements alone."""

import keras
import tensorflow as tf

from deq_keras.config import Configurable, deserialise, serialise
from deq_keras.operators import LinearOperator


class MeasurementLoss(Configurable):
    """Base class of losses without clean images: how an example is made, and what is minimised.

    Measurements are `y = K u + n` with noise of mean zero. The losses compare in the domain of the
    measurements, so they estimate the error of the prediction, `||K u_hat(y) - K u||^2` a number
    of `y`; for denoising that is the mean squared error. They are blind to what `K` does not see.

    Subclasses define

    - `prepare(measure, seed, index) -> (input, target)`: what the model is given of one image, and
      what the loss is given beside its result;
    - `values(model, x, prediction, target, training) -> (batch,)`: the loss of each image.

    Args:
        operator: `K`, a `deq_keras.operators.LinearOperator`; `None` for denoising.

    Example:

    >>> @keras.saving.register_keras_serializable(package="example")
    ... class Fit(deq_keras.losses.MeasurementLoss):  # trusts the noise; for comparison only
    ...     def prepare(self, measure, seed, index):
    ...         y = measure(seed, index)
    ...         return y, y
    ...     def values(self, model, x, prediction, target, training):
    ...         return self.squares(prediction, target)
    >>> Fit().prepare(lambda seed, index: tf.ones((4, 4, 1)), 0, 7)[0].shape
    TensorShape([4, 4, 1])
    """

    def __init__(self, operator: LinearOperator | None = None):
        if operator is not None and not isinstance(operator, LinearOperator):
            raise ValueError(
                f"{type(self).__name__} expected `operator` to be a `deq_keras.operators."
                f"LinearOperator` or None. Received {operator!r}."
            )
        self.operator = operator

    def prepare(self, measure, seed, index):
        """The input and the target of one image.

        All random numbers are functions of the seed and the image's number, so an example is the
        same whoever computes it, and however often.

        Args:
            measure: `(seed, index)` to a measurement of the image without a batch axis, or to a
                tuple of it and the operator's data; if the noise is not ours to draw,
                `lambda seed, index: y`. It may draw its own numbers for `seed` and `seed + 1`.
            seed: Integer.
            index: Integer number of the image.

        Returns:
            `(input, target)`.
        """
        raise NotImplementedError

    def values(self, model, x, prediction, target, training):
        """The loss of each image, `(batch,)`.

        Args:
            model: The Keras model.
            x: A batch of inputs.
            prediction: What the model made of it, images.
            target: The batch of targets.
            training: As Keras has it.
        """
        raise NotImplementedError

    def squares(self, prediction, target):
        """The mean of `|K prediction - target|^2` for each image, `(batch,)`.

        Args:
            prediction: Images.
            target: Measurements, or a tuple of them and the operator's data.
        """
        y, data = target if isinstance(target, tuple | list) else (target, None)
        difference = self.predict(prediction, y.dtype.real_dtype, data) - y
        return _means(tf.math.real(difference * tf.math.conj(difference)))

    def predict(self, images, dtype, data=None):
        """`K images`, computed in a precision."""
        images = tf.cast(images, dtype)
        return images if self.operator is None else self.operator(images, data)

    def get_config(self):
        return {"operator": serialise(self.operator)}

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "operator"))


def one_real_measurement(loss, y, why):
    """The measurement, or a `ValueError` if it is complex or comes with data of the operator."""
    if isinstance(y, tuple | list) or y.dtype.is_complex:
        what = "one with data of its operator" if isinstance(y, tuple | list) else "a complex one"
        raise ValueError(
            f"{type(loss).__name__} expected one real measurement of each image, with noise in all "
            f"of its entries. Received {what}. {why} Use `deq_keras.losses.Noise2Noise` with "
            "two measurements, or train a denoiser and take its prior to this operator."
        )
    return y


def mean_product(a, b):
    """The mean of `a b` for each image, `(batch,)`."""
    return _means(a * b)


def mean_square(values):
    """The mean of the squares of each image, `(batch,)`."""
    return _means(values * values)


class OwnLossModel(keras.Model):
    """Base class of Keras models of symbolic tensors that have a loss of their own.

    A subclass defines `_values(x, y, y_pred, training)`, of shape `(batch,)`, and its own
    constructor with `*args` and `**kwargs`: so Keras takes it for a functional model, and saves it
    as one.
    """

    def compile(self, optimizer="rmsprop", loss=None, **kwargs):
        """As of a `keras.Model`, without a loss: it has one.

        Raises:
            ValueError: If there is a loss.
        """
        if loss is not None:
            raise ValueError(
                f"{type(self).__name__} has a loss of its own and expected no other loss. "
                f"Received loss={loss!r}: leave it out, or use a keras.Model."
            )
        super().compile(optimizer, **kwargs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        """The mean over the images, and what layers add to it."""
        # First: another call of the model would replace what the layers have added.
        added = 0.0
        if self.losses:
            added = super().compute_loss(x=x, y_pred=y_pred, training=training)
        values = self._values(x, y, y_pred, training)
        mean = _Mean(name="mean_of_images", dtype=values.dtype.name)
        return mean(tf.zeros_like(values), values, sample_weight) + added


class _Mean(keras.losses.Loss):
    """Given values: their mean as Keras takes it, over replicas too."""

    def call(self, y_true, y_pred):
        return y_pred


def _means(values):
    return tf.reduce_mean(values, axis=tf.range(1, tf.rank(values)))

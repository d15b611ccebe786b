"""The description of an inverse problem: its operator, its noise, and how it is measured."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from trainers.datasets import pipeline
from trainers.process.errors import ConfigurationError


def measurement_itself(measurement):
    """The measurements of a batch, without the operator's data."""
    return tf.nest.flatten(measurement)[0]


@dataclasses.dataclass(frozen=True)
class Task:
    """An inverse problem.

    A measurement may have another shape than the image, and complex numbers. Where it
    is not an image, another one is shown of it, and its PSNR taken: `picture`.

    Attributes:
        name: Its name in configurations and results.
        title: Its name for people.
        description: A sentence on operator and noise.
        operator: A function that returns a new `deq_keras.operators.LinearOperator`, for each layer
            its own.
        measure: `(truth, seed, index)` to the measurement of one image, or to a nested tuple of it
            and the operator's data, such as `(y, mask)`; see `pipeline.training_batches`.
        picture: From a batch of what `measure` returns to the images
            `(batch, height, width, channels)` that are shown of it, of the size of the truth.
        picture_name: What these images are, in a word: `"adjoint"`, `"pseudo-inverse"`; empty for
            the measurement itself.
        multiple: Height and width of the images are cropped to multiples of this.
        square: Whether the images are cropped to squares: a measurement does not tell the sides of
            others.

    Example:

    >>> operator = deq_keras.operators.BoxBlur(9)
    >>> def measure(truth, seed, index):
    ...     return operator(truth[None])[0]
    >>> task = Task(
    ...     "box", "Box blur", "Means of 81 pixels.", lambda: operator, measure,
    ...     operator.adjoint, "adjoint",
    ... )
    >>> task.measurement_label
    'Measurement (adjoint)'
    """

    name: str
    title: str
    description: str
    operator: Callable[[], Any]
    measure: Callable
    picture: Callable = measurement_itself
    picture_name: str = ""
    multiple: int = 1
    square: bool = False

    def inputs(self, channels, size=(None, None)):
        """The symbolic inputs of a model: Keras inputs of the shapes and dtypes of a measurement.

        Args:
            channels: Number of channels of the images.
            size: Height and width of the images, if they are known.

        Returns:
            A `keras.Input`, or a nested tuple of them in the structure that `measure` returns.
        """
        spec = pipeline.measurement_spec(self.measure, channels, size)
        parts = tf.nest.flatten(spec)
        names = ["measurement", "data", *(f"data_{n}" for n in range(1, len(parts)))]
        inputs = [
            keras.Input(part.shape[1:], dtype=part.dtype.name, name=name)
            for name, part in zip(names, parts, strict=False)
        ]
        return tf.nest.pack_sequence_as(spec, inputs)

    @property
    def measurement_label(self):
        """What people call the measurement, with what is shown of it."""
        return f"Measurement ({self.picture_name})" if self.picture_name else "Measurement"


def check_noise(value, name):
    """A standard deviation, as a float.

    Raises:
        ConfigurationError: If the entry `name` is negative or not finite.
    """
    if not 0 <= value < float("inf"):
        raise ConfigurationError(
            f"Expected {name}, a standard deviation, to be >= 0. Received {value!r}."
        )
    return float(value)

"""Sums and multiples of linear operators."""

import functools
import math
import operator

import keras
import tensorflow as tf

from deq_keras.numerics.partial import Partial
from deq_keras.operators.base import LinearMap
from deq_keras.operators.combined import Combined, first_known, flattened


@keras.saving.register_keras_serializable(package="deq_keras")
class Sum(Combined):
    """`K u = A u + B u`, also written `A + B`; see `Scaled` for differences.

    The norm is bounded by the sum of the norms.

    Args:
        operators: List of operators with measurements of one shape and dtype. Sums among them are
            replaced by their parts.
        **kwargs: `name` and `dtype` of the layer; the default dtype is that of the parts.

    Call arguments:
        u: Images `(batch, height, width, channels)`.
        data: List with the data of each operator, `None` for one that takes none.

    Returns:
        Measurements of the shape of those of each operator.

    Raises:
        ValueError: If there are no operators, they compute in several dtypes, their measurements
            have several shapes, or the data are not a list of as many entries.

    Example:

    >>> blur = deq_keras.operators.GaussianBlur(kernel_size=5, stddev=1.0)
    >>> sharpen = 2.0 * deq_keras.operators.Identity() - blur
    >>> y = sharpen(tf.ones((1, 32, 48, 1)))
    """

    def __init__(self, operators, **kwargs):
        super().__init__(flattened(Sum, operators), **kwargs)

    def bind(self, image_shape, data=None, dtype=None):
        maps, _ = self.bind_parts(image_shape, data, dtype)
        forward = Partial(_add, tuple(part.forward for part in maps))
        adjoint = Partial(_add, tuple(part.adjoint for part in maps))
        return LinearMap(forward, adjoint, Partial(_twice, (forward, adjoint)))

    def measurement_shape(self, image_shape, data_shape=None):
        parts = zip(self.operators, self.split(data_shape), strict=True)
        shapes = [part.measurement_shape(image_shape, data) for part, data in parts]
        return _merged(shapes)

    def image_shape(self, measurement_shape, data_shape=None):
        parts = zip(self.operators, self.split(data_shape), strict=True)
        return first_known([part.image_shape(measurement_shape, data) for part, data in parts])

    def operator_norm(self, data=None, image_shape=None):
        return functools.reduce(operator.add, self.norms(data, image_shape))


@keras.saving.register_keras_serializable(package="deq_keras")
class Scaled(Combined):
    """`K u = c A u`, also written `c * A`.

    Args:
        operator: A linear operator.
        factor: A finite number `c`.
        **kwargs: `name` and `dtype` of the layer; the default dtype is that of the operator.

    Call arguments:
        u: Images `(batch, height, width, channels)`.
        data: The data of the operator.

    Returns:
        Measurements of the operator, times `c`.

    Raises:
        ValueError: If the factor is not a finite number.

    Example:

    >>> half = 0.5 * deq_keras.operators.Identity()
    >>> y = half(tf.ones((1, 32, 48, 1)))
    """

    def __init__(self, operator, factor, **kwargs):
        super().__init__([operator], **kwargs)
        if isinstance(factor, bool) or not _is_finite(factor):
            raise ValueError(f"Expected `factor` to be a finite number. Received {factor!r}.")
        self.factor = float(factor)

    def split(self, data):
        return [data]

    def bind(self, image_shape, data=None, dtype=None):
        (part,), _ = self.bind_parts(image_shape, data, dtype)
        factor, square = self.factor, self.factor**2

        def times(number, function):
            return function and Partial(functools.partial(_times, number), (function,))

        return LinearMap(
            times(factor, part.forward),
            times(factor, part.adjoint),
            times(square, part.normal),
            times(square, part.spectrum),
            times(square, part.diagonal),
        )

    def measurement_shape(self, image_shape, data_shape=None):
        return self.operators[0].measurement_shape(image_shape, data_shape)

    def image_shape(self, measurement_shape, data_shape=None):
        return self.operators[0].image_shape(measurement_shape, data_shape)

    def operator_norm(self, data=None, image_shape=None):
        return abs(self.factor) * self.operators[0].operator_norm(data, image_shape)

    def smallest_singular_value(self, data=None):
        return abs(self.factor) * self.operators[0].smallest_singular_value(data)

    def get_config(self):
        config = super().get_config()
        (config["operator"],) = config.pop("operators")
        return {**config, "factor": self.factor}

    @classmethod
    def from_config(cls, config):
        part = keras.saving.deserialize_keras_object(config["operator"])
        return cls(**{**config, "operator": part})


def _add(x, *functions):
    return functools.reduce(_plus, [function(x) for function in functions])


def _plus(a, b):
    def add(x, y):
        if not x.shape.is_compatible_with(y.shape) or x.dtype != y.dtype:
            raise ValueError(
                "Sum expected measurements of one shape and dtype. Received "
                f"{x.dtype.name} {tuple(x.shape)} and {y.dtype.name} {tuple(y.shape)}."
            )
        return x + y

    return tf.nest.map_structure(add, a, b)


def _twice(u, forward, adjoint):
    return adjoint(forward(u))


def _times(factor, *arguments):
    *arguments, function = arguments
    return tf.nest.map_structure(lambda x: tf.cast(factor, x.dtype) * x, function(*arguments))


def _merged(shapes):
    """The shape (or list of shapes) of measurements from that of each part's."""
    first = shapes[0]
    if any(isinstance(size, list | tuple) for size in first):
        return [_merged(several) for several in zip(*shapes, strict=True)]
    return first_known(shapes)


def _is_finite(number):
    try:
        return math.isfinite(number)
    except TypeError:
        return False

"""Several measurements of one image."""

import functools
import operator

import keras
import tensorflow as tf

from deq_keras.numerics.partial import Partial
from deq_keras.operators.base import LinearMap
from deq_keras.operators.combined import Combined, first_known


@keras.saving.register_keras_serializable(package="deq_keras")
class Stack(Combined):
    """`K u = (A u, B u, ...)`: several measurements of one image.

    The adjoint is the sum `A^T v_1 + B^T v_2 + ...`, and the norm is bounded by the root of the
    sum of the squared norms.

    Args:
        operators: List of operators; their measurements may have any shapes and dtypes.
        **kwargs: `name` and `dtype` of the layer; the default dtype is that of the operators.

    Call arguments:
        u: Images `(batch, height, width, channels)`.
        data: List with the data of each operator, `None` for one that takes none.

    Returns:
        List of the measurements of each operator.

    Raises:
        ValueError: If there are no operators, they compute in several dtypes, or the data are not
            a list of as many entries.

    Example:

    >>> blurs = [deq_keras.operators.MotionBlur(7, angle) for angle in (0.0, 90.0)]
    >>> across, along = deq_keras.operators.Stack(blurs)(tf.ones((1, 32, 48, 1)))
    """

    several = True

    def bind(self, image_shape, data=None, dtype=None):
        maps, _ = self.bind_parts(image_shape, data, dtype)

        def added(functions):
            return None if None in functions else Partial(_total, tuple(functions))

        return LinearMap(
            Partial(_each, tuple(part.forward for part in maps)),
            Partial(_matched, tuple(part.adjoint for part in maps)),
            added([part.normal for part in maps]),
            added([part.spectrum for part in maps]),
            added([part.diagonal for part in maps]),
        )

    def measurement_shape(self, image_shape, data_shape=None):
        parts = zip(self.operators, self.split(data_shape), strict=True)
        return [part.measurement_shape(image_shape, data) for part, data in parts]

    def image_shape(self, measurement_shape, data_shape=None):
        self._check_count(measurement_shape)
        parts = zip(self.operators, measurement_shape, self.split(data_shape), strict=True)
        return first_known([part.image_shape(shape, data) for part, shape, data in parts])

    def adjoint(self, v, data=None, image_shape=None):
        self._check_count(v)
        return super().adjoint(v, data, image_shape)

    def operator_norm(self, data=None, image_shape=None):
        return _root_of_squares(self.norms(data, image_shape))

    def smallest_singular_value(self, data=None):
        parts = zip(self.operators, self.split(data), strict=True)
        return _root_of_squares([part.smallest_singular_value(one) for part, one in parts])

    def _check_count(self, measurements):
        is_list = isinstance(measurements, list | tuple)
        if not is_list or len(measurements) != len(self.operators):
            received = len(measurements) if is_list else type(measurements).__name__
            raise ValueError(
                f"Stack expected a list of {len(self.operators)} measurements. Received {received}."
            )


def _each(u, *functions):
    return [function(u) for function in functions]


def _matched(v, *functions):
    parts = [function(one) for function, one in zip(functions, v, strict=True)]
    return functools.reduce(operator.add, parts)


def _total(*arguments):
    """The sum of functions of one or no argument; the functions come last."""
    functions = [a for a in arguments if isinstance(a, Partial)]
    rest = arguments[: len(arguments) - len(functions)]
    return functools.reduce(operator.add, [function(*rest) for function in functions])


def _root_of_squares(norms):
    square = functools.reduce(operator.add, [norm**2 for norm in norms])
    positive = square > 0
    return tf.where(positive, tf.sqrt(tf.where(positive, square, 1)), 0)

"""Compositions of linear operators."""

import functools
import operator

import keras
import tensorflow as tf

from deq_keras.numerics.partial import Partial
from deq_keras.operators.base import LinearMap
from deq_keras.operators.combined import Combined, flattened


@keras.saving.register_keras_serializable(package="deq_keras")
class Compose(Combined):
    """`K u = A (B u)`: one operator after another, also written `A @ B`.

    All but the first of the list, which is applied last, must give images: real measurements of
    rank 4. The norm is bounded by the product of the norms.

    Args:
        operators: List `[A, B, ...]` in the order of the formula, so that the last is applied
            first. Compositions among them are replaced by their parts.
        **kwargs: `name` and `dtype` of the layer; the default dtype is that of the parts.

    Call arguments:
        u: Images `(batch, height, width, channels)`.
        data: List with the data of each operator, `None` for one that takes none.

    Returns:
        Measurements of the first operator.

    Raises:
        ValueError: If there are no operators, they compute in several dtypes, or the data are not
            a list of as many entries.

    Example:

    >>> blur = deq_keras.operators.GaussianBlur(kernel_size=5, stddev=1.0)
    >>> operator = deq_keras.operators.Mask() @ blur
    >>> masks = deq_keras.operators.random_mask((2, 32, 48, 1), keep=0.5)
    >>> y = operator(tf.ones((2, 32, 48, 1)), [masks, None])
    """

    def __init__(self, operators, **kwargs):
        super().__init__(flattened(Compose, operators), **kwargs)

    def bind(self, image_shape, data=None, dtype=None):
        maps, shapes = self.bind_parts(image_shape, data, dtype)
        first, *rest = maps
        inner = tuple(part.forward for part in reversed(rest))
        back = tuple(part.adjoint for part in rest)
        spectra = tuple(part.spectrum for part in maps)
        same = None not in spectra and all(_same_size(shape, image_shape) for shape in shapes)
        return LinearMap(
            Partial(_forward, (*inner, first.forward)),
            Partial(_chain, (first.adjoint, *back)),
            Partial(_chain, (*inner, first.normal, *back)),
            Partial(_product, spectra) if same else None,
        )

    def image_shapes(self, image_shape, data_shapes):
        shapes = [tuple(image_shape)]
        parts = zip(self.operators, data_shapes, strict=True)
        for part, data in reversed(list(parts)[1:]):
            shapes.append(part.measurement_shape(shapes[-1], data))
        return shapes[::-1]

    def measurement_shape(self, image_shape, data_shape=None):
        data_shapes = self.split(data_shape)
        last = self.image_shapes(image_shape, data_shapes)[0]
        return self.operators[0].measurement_shape(last, data_shapes[0])

    def image_shape(self, measurement_shape, data_shape=None):
        shape = measurement_shape
        for part, data in zip(self.operators, self.split(data_shape), strict=True):
            shape = part.image_shape(shape, data)
        return shape

    def operator_norm(self, data=None, image_shape=None):
        return functools.reduce(operator.mul, self.norms(data, image_shape))

    def smallest_singular_value(self, data=None):
        parts = zip(self.operators, self.split(data), strict=True)
        smallest = [part.smallest_singular_value(one) for part, one in parts]
        return functools.reduce(operator.mul, smallest)


def _same_size(shape, image_shape):
    """Whether images have the same height and width, as far as that is known."""
    pairs = zip(tuple(shape)[1:3], tuple(image_shape)[1:3], strict=True)
    return all(a is b or (isinstance(a, int) and isinstance(b, int) and a == b) for a, b in pairs)


def _chain(x, *functions):
    for function in functions:
        x = function(x)
    return x


def _forward(u, *functions):
    for place, function in enumerate(functions):
        if place and (not tf.is_tensor(u) or u.dtype.is_complex):
            received = u.dtype.name if tf.is_tensor(u) else f"{len(u)} measurements"
            raise ValueError(
                "Compose expected real images from each operator but the one that is applied "
                f"last. Received {received}. An operator with other measurements comes first in "
                "the list."
            )
        u = function(u)
    return u


def _product(*spectra):
    return functools.reduce(operator.mul, [spectrum() for spectrum in spectra])

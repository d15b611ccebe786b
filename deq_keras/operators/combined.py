"""What operators that are made of other operators have in common."""

import keras

from deq_keras.checks import shape_4d
from deq_keras.numerics.shapes import shapes_of, static_shape
from deq_keras.operators.base import LinearOperator


class Combined(LinearOperator):
    """Base class of operators that are made of others, their parts.

    Args:
        operators: List of linear operators that compute in one dtype.
        **kwargs: `name` and `dtype` of the layer; the default dtype is that of the parts.
    """

    def __init__(self, operators, **kwargs):
        name = type(self).__name__
        is_list = isinstance(operators, list | tuple)
        if not is_list or not operators or not all(map(_is_operator, operators)):
            raise ValueError(
                f"{name} expected a list of linear operators, not empty. Received {operators!r}. "
                "Subclass `deq_keras.operators.LinearOperator` for one of your own."
            )
        if kwargs.get("dtype") is None:
            kwargs["dtype"] = operators[0].dtype_policy
        super().__init__(**kwargs)
        dtypes = {part.compute_dtype for part in operators}
        if len(dtypes) > 1:
            raise ValueError(
                f"{name} expected operators that compute in one dtype. Received {sorted(dtypes)}. "
                "Make them with the same `dtype`."
            )
        self.operators = list(operators)

    @property
    def certified(self):
        """Whether the norms of all parts are proven bounds, and so their combination."""
        return all(part.certified for part in self.operators)

    @property
    def several(self):
        """Whether measurements are a list: those of the first operator of a product are."""
        return self.operators[0].several

    def build(self, u_shape, data_shape=None):
        shape_4d(type(self).__name__, u_shape)
        data_shapes = self.split(data_shape)
        shapes = self.image_shapes(tuple(u_shape), data_shapes)
        for part, shape, data in zip(self.operators, shapes, data_shapes, strict=True):
            if not part.built:
                part.build(static_shape(shape), data)
        self.built = True

    def split(self, data):
        """The data (or their shapes) of each part."""
        count = len(self.operators)
        if data is None:
            return [None] * count
        if not isinstance(data, list | tuple) or len(data) != count:
            received = len(data) if isinstance(data, list | tuple) else type(data).__name__
            raise ValueError(
                f"{type(self).__name__} expected the data as a list with an entry for each of its "
                f"{count} operators, `None` for one that takes none. Received {received}."
            )
        return list(data)

    def image_shapes(self, image_shape, data_shapes):
        """The shapes of the images that the parts are applied to; by default all the same."""
        return [tuple(image_shape) for _ in self.operators]

    def check_data_shape(self, u_shape, data_shape):
        data_shapes = self.split(data_shape)
        shapes = self.image_shapes(tuple(u_shape), data_shapes)
        for part, shape, data in zip(self.operators, shapes, data_shapes, strict=True):
            part.check_shapes(static_shape(shape), data)

    def bind_parts(self, image_shape, data, dtype):
        """The bound parts, a list of `LinearMap`, and the shapes of the images they are for."""
        shape_4d(type(self).__name__, static_shape(image_shape))
        data, dtype = self.split(data), dtype or self.compute_dtype
        shapes = self.image_shapes(image_shape, [shapes_of(one) for one in data])
        parts = zip(self.operators, shapes, data, strict=True)
        return [part.bind(shape, one, dtype) for part, shape, one in parts], shapes

    def norms(self, data, image_shape):
        """Bounds on the norms of the parts, each a scalar or `(batch,)`."""
        data = self.split(data)
        if image_shape is None:
            shapes = [None] * len(data)
        else:
            shapes = self.image_shapes(image_shape, [shapes_of(one) for one in data])
        parts = zip(self.operators, data, shapes, strict=True)
        return [part.operator_norm(one, shape) for part, one, shape in parts]

    def get_config(self):
        parts = [keras.saving.serialize_keras_object(part) for part in self.operators]
        return {**super().get_config(), "operators": parts}

    @classmethod
    def from_config(cls, config):
        parts = [keras.saving.deserialize_keras_object(part) for part in config["operators"]]
        return cls(**{**config, "operators": parts})


def flattened(cls, operators):
    """The operators, with those of class `cls` replaced by their parts."""
    if not isinstance(operators, list | tuple):
        return operators
    lists = [part.operators if type(part) is cls else [part] for part in operators]
    return [part for parts in lists for part in parts]


def first_known(shapes):
    """A shape with the first size that is known for each axis: an integer before a tensor."""

    def best(sizes):
        fixed = [size for size in sizes if isinstance(size, int)]
        known = [size for size in sizes if size is not None]
        return (fixed or known or [None])[0]

    return tuple(best(sizes) for sizes in zip(*shapes, strict=True))


def _is_operator(part):
    return isinstance(part, LinearOperator)

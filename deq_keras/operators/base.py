"""The contract of a linear operator: images in, measurements of any shape and dtype out."""

from typing import NamedTuple

import keras
import tensorflow as tf

from deq_keras.checks import shape_4d
from deq_keras.config import described
from deq_keras.numerics.partial import Partial, of_layer
from deq_keras.numerics.rows import at_least_one, first_rows
from deq_keras.numerics.shapes import map_shapes, shapes_of, sizes_of, static_shape, tensors_of
from deq_keras.operators import differentiation, estimates


class LinearMap(NamedTuple):
    """An operator for images of one size and for one batch of data: `LinearOperator.bind`.

    All five are `deq_keras.numerics.partial.Partial` functions: the tensors that they depend on
    are in the open, and there are no others.

    Attributes:
        forward: `u -> K u`.
        adjoint: `v -> K^T v`.
        normal: `u -> K^T K u`, as fast as is known.
        spectrum: `() -> ` the eigenvalues of `K^T K`, or of a circular convolution that is near
            it: real `(batch or 1, height, width // 2 + 1)`, not negative, at the frequencies of
            `tf.signal.rfft2d`; or `None`. Preconditioners divide by it, so it need not be exact:
            differences near the boundary are forgotten, and coefficients that vary from pixel to
            pixel are replaced by their means.
        diagonal: `() -> ` the diagonal of `K^T K`, or what is near it, of a shape that can be
            broadcast to that of the images; or `None`.
    """

    forward: Partial
    adjoint: Partial
    normal: Partial
    spectrum: Partial | None = None
    diagonal: Partial | None = None


class LinearOperator(keras.layers.Layer):
    """Base class of linear operators `K` from real images to measurements `y = K u`.

    Measurements may have any shape, with the batch on the first axis, and any dtype, complex too;
    they may be several tensors in a list. The inner product is the real one, `Re <K u, v>`, so
    the adjoint takes complex measurements to real images.

    A subclass must define

    - `call(u, data=None)`: `K u`.

    Everything else follows from it, and is worth defining where more is known:

    - `adjoint(v, data=None, image_shape=None)`: `K^T v`; by differentiation of `call`.
    - `image_shape(measurement_shape, data_shape=None)`: by default the same shape.
    - `measurement_shape(image_shape, data_shape=None)`: by tracing `call`.
    - `operator_norm(data=None, image_shape=None)`: by power iteration, an estimate. Set
      `certified = True` if yours is proven to be an upper bound.
    - `smallest_singular_value(data=None)`: by default 0.
    - `bind(image_shape, data=None, dtype=None)`: all of the maps at once, with what they share
      computed once. A subclass that defines it needs neither `call` nor `adjoint`.
    - `check_data_shape(image_shape, data_shape)`: by default any data will do.

    `data` is what the operator needs to know of each image: a tensor or any nested structure of
    tensors, such as a mask and coil maps. Each has the batch on its first axis, or length one
    there where all images share it.

    A call that makes complex numbers is best differentiated if it makes them by
    `tf.complex(u, tf.zeros_like(u))`: TensorFlow warns of the derivative of a cast.

    None of the methods has side effects, so they may be used in loops.

    Operators can be combined: `A @ B` (first `B`), `A + B`, `A - B`, `2.0 * A`, `-A`, and
    `deq_keras.operators.Stack([A, B])`.

    Call arguments:
        u: Images `(batch, height, width, channels)` on [0, 1], of any height and width.
        data: Structure of tensors, or `None`.

    Returns:
        Measurements.

    Raises:
        ValueError: If the images are not of rank 4, or if the data do not fit.

    Example:

    >>> @keras.saving.register_keras_serializable(package="example")
    ... class RowSums(deq_keras.operators.LinearOperator):
    ...     def call(self, u, data=None):
    ...         return tf.reduce_sum(u, axis=2)
    ...     def image_shape(self, measurement_shape, data_shape=None):
    ...         batch, height, channels = measurement_shape
    ...         return (batch, height, 48, channels)
    >>> error = deq_keras.testing.dot_test(RowSums(), (2, 33, 48, 1))
    """

    certified = False
    """Whether `operator_norm` is a proven upper bound, and not an estimate."""

    measurements = None
    """How measurements are nested: `None` for one tensor, a list of these for several."""

    def build(self, u_shape, data_shape=None):
        self.check_shapes(u_shape, data_shape)
        self.built = True

    def call(self, u, data=None):
        if not self._binds:
            raise NotImplementedError(f"{type(self).__name__} must define `call(u, data=None)`.")
        (u, data), count = at_least_one((tf.convert_to_tensor(u), tensors_of(data)))
        return first_rows(self.bind(sizes_of(u), data, u.dtype).forward(u), count)

    # Autograph would take most of the time of a trace, as in `deq_keras.priors.Prior`.
    @tf.autograph.experimental.do_not_convert
    def adjoint(self, v, data=None, image_shape=None):
        """`K^T v`, images.

        Args:
            v: Measurements, as a call returns them.
            data: As in a call.
            image_shape: Shape `(batch, height, width, channels)` of the images, integers or scalar
                tensors. `None`: what `self.image_shape` says.

        Returns:
            Real images of that shape.

        Raises:
            ValueError: If the measurements do not fit the images.
        """
        (v, data), count = at_least_one(tensors_of((v, data)))
        if image_shape is None:
            image_shape = self.image_shape(shapes_of(v), shapes_of(data))
        elif count is not None:
            image_shape = (sizes_of(tf.nest.flatten(v)[0])[0], *image_shape[1:])
        dtype = self._image_dtype(tf.nest.flatten(v)[0].dtype)
        if self._binds:
            bound = self.bind(image_shape, data, dtype)
            self.check_measurement(v, image_shape, data)
            return first_rows(bound.adjoint(v), count)
        self.check_shapes(static_shape(image_shape), shapes_of(data, static=True))
        image = differentiation.adjoint(self, v, data, image_shape, dtype)
        return first_rows(image, count)

    def bind(self, image_shape, data=None, dtype=None):
        """The operator for images of one size, with all that does not depend on them computed.

        Args:
            image_shape: `(batch, height, width, channels)`: integers, scalar tensors, or, where
                the operator does not need to know, `None`.
            data: As in a call.
            dtype: Dtype of the images. `None`: the compute dtype of the operator.

        Returns:
            A `LinearMap`. Its functions do not read variables: they hold what these were.
        """
        sizes, data = tuple(image_shape)[1:], tensors_of(data)
        shapes = static_shape(image_shape), shapes_of(data, static=True)
        self.check_shapes(*shapes)
        if not self.built:
            self.build(*shapes)

        def back(v, sizes, data):
            batch = sizes_of(tf.nest.flatten(v)[0])[0]  # not that of `image_shape`: rows are taken
            return self.adjoint(v, data, image_shape=(batch, *sizes))

        def normal(u, sizes, data):
            if type(self).adjoint is LinearOperator.adjoint:
                return differentiation.normal(self, u, data)
            return back(self.call(u, data), sizes, data)

        def bound(function, *shared):
            layer = of_layer(self, function)
            return Partial(lambda x, f, *rest: f(x, *rest), (layer, *shared), (data,))

        return LinearMap(bound(self.call), bound(back, sizes), bound(normal, sizes))

    def operator_norm(self, data=None, image_shape=None):
        """An upper bound on `||K||`, proven if `self.certified`, from the current weights.

        The default is an estimate: the result of 30 power iterations, times 1.05.

        Args:
            data: As in a call.
            image_shape: `(batch, height, width, channels)`, integers or scalar tensors. The
                estimate needs it; a proven bound for images of any size does not.

        Returns:
            A scalar tensor, or one number `(batch,)` for each image if it depends on the data.

        Raises:
            ValueError: If the norm is estimated and `image_shape` is missing.
        """
        return estimates.operator_norm(self, data, image_shape)

    def smallest_singular_value(self, data=None):
        """A certified lower bound on `||K u|| / ||u||`, for any data if there are none given."""
        return tf.zeros((), self.variable_dtype)

    def image_shape(self, measurement_shape, data_shape=None):
        """The shape of the images from that of their measurements; by default it is the same.

        Args:
            measurement_shape: Shape of `K u`: a tuple of integers, of `None` where a size is not
                known, or of scalar tensors; a list of such tuples for several measurements.
            data_shape: Shapes of the data, in their structure.

        Returns:
            A tuple `(batch, height, width, channels)` of what it was given.
        """
        return tuple(measurement_shape)

    def measurement_shape(self, image_shape, data_shape=None):
        """The shape of the measurements from that of the images; see `image_shape`.

        The default traces `call`; scalar tensors count as unknown there.
        """
        u = keras.KerasTensor(static_shape(image_shape), self.compute_dtype)
        data = map_shapes(
            lambda s: keras.KerasTensor(static_shape(s), self.compute_dtype), data_shape
        )
        return shapes_of(self.compute_output_spec(u, data), static=True)

    def compute_output_spec(self, u, data=None):
        # Tracing says the dtype as well, which may be complex, and cannot differ from the truth.
        return keras.Operation.compute_output_spec(self, u, data)

    def compute_output_shape(self, u_shape, data_shape=None):
        self.check_shapes(u_shape, data_shape)
        return self.measurement_shape(tuple(u_shape), data_shape)

    def check_shapes(self, u_shape, data_shape=None):
        """Raises a `ValueError` unless images and data have shapes that the operator accepts.

        Args:
            u_shape: Shape of the images; unknown sizes are `None`.
            data_shape: Shapes of the data, in their structure, or `None` for no data.
        """
        shape_4d(type(self).__name__, u_shape)
        self.check_data_shape(u_shape, data_shape)

    def check_data_shape(self, u_shape, data_shape):
        """Raises a `ValueError` if the data are not what the operator needs for such images."""
        return None  # AutoGraph needs a statement

    def __repr__(self):
        return described(self)

    __array_ufunc__ = None  # so that a number of NumPy leaves the product to the operator

    def __matmul__(self, other):
        return _combined("Compose", self, other)

    def __add__(self, other):
        return _combined("Sum", self, other)

    def __sub__(self, other):
        return NotImplemented if not isinstance(other, LinearOperator) else self + -other

    def __mul__(self, factor):
        from deq_keras.operators.sums import Scaled  # a subclass of this class

        return Scaled(self, factor)

    __rmul__ = __mul__

    def __neg__(self):
        return -1.0 * self

    def _image_dtype(self, dtype):
        """The dtype of images from that of measurements: there are no complex numbers of half."""
        half = dtype == tf.complex64 and self.compute_dtype in ("float16", "bfloat16")
        return tf.as_dtype(self.compute_dtype) if half else dtype.real_dtype

    def check_measurement(self, v, image_shape, data):
        """Raises a `ValueError` unless measurements fit images of a shape."""
        expected = self.measurement_shape(static_shape(image_shape), shapes_of(data, static=True))
        shapes, received = [], [tf.TensorShape(leaf.shape) for leaf in tf.nest.flatten(v)]
        map_shapes(shapes.append, expected)
        if not all(a.is_compatible_with(b) for a, b in zip(received, shapes, strict=True)):
            raise ValueError(
                f"{type(self).__name__} expected measurements of images of shape "
                f"{static_shape(image_shape)}: {expected}. Received "
                f"{[tuple(shape) for shape in received]}. Pass "
                "`image_shape`, or a layer an initial value, if the images have another size."
            )

    @property
    def _binds(self):
        """Whether a subclass defines `bind` and no call, so that this and the adjoint follow."""
        bind, call = LinearOperator.bind, LinearOperator.call
        return type(self).bind is not bind and type(self).call is call


def refuse_data(operator, data_shape):
    """Raises a `ValueError` if there are data for an operator that takes none."""
    if data_shape is not None:
        raise ValueError(
            f"{type(operator).__name__} takes no per-image data. Received data of shape "
            f"{data_shape}. Pass the images alone."
        )


def refuse_other_size(operator, u_shape):
    """Raises a `ValueError` if images are not of the operator's `image_size`, where it has one."""
    pairs = zip(u_shape[1:3], operator.image_size or u_shape[1:3], strict=True)
    if any(n is not None and n != stated for n, stated in pairs):
        raise ValueError(
            f"{type(operator).__name__} expected images of image_size={operator.image_size}, "
            f"received {tuple(u_shape)}. Leave out `image_size` for images of several sizes."
        )


def _combined(name, first, second):
    from deq_keras import operators  # which are subclasses of the class above

    if not isinstance(second, LinearOperator):
        return NotImplemented
    return getattr(operators, name)([first, second])

"""The contract of a linear operator."""

import keras
import tensorflow as tf

from deq_keras.checks import shape_4d


class LinearOperator(keras.layers.Layer):
    """Base class of linear operators `K` from images to measurements of the same shape.

    A subclass defines

    - `call(u, data=None)`: `K u`;
    - `adjoint(v, data=None)`: `K^T v`;
    - `operator_norm(data=None)`: a certified upper bound on `||K||`, from the current weights, for
      images of any size: a scalar, or a number `(batch,)` for each image if it depends on `data`;

    and, where more is known than the defaults here say,

    - `normal_map(like, data=None)`: the map `u -> K^T K u`, fast;
    - `smallest_singular_value()`: a certified lower bound on the smallest singular value;
    - `normal_spectrum(like, data=None)`: the Fourier spectrum of `K^T K`, and
      `normal_diagonal(like, data=None)`, its diagonal: for preconditioners.

    `data` is what the operator needs to know of each image, such as a mask for each image. Its
    shape can be broadcast to that of the images. An operator without such data refuses it.

    `call`, `adjoint` and `normal_map` have no side effects, so they may be used in `tf.while_loop`.
    Weights are made in the constructor, so none of the methods needs the operator to be built.

    Call arguments:
        u: Images `(batch, height, width, channels)` on [0, 1], of any height and width.
        data: Tensor of a shape that can be broadcast to that of `u`, or `None`.

    Returns:
        Measurements of the shape of `u`.

    Raises:
        ValueError: If the images are not of rank 4, or if `data` is missing or not expected.

    Example:

    >>> @keras.saving.register_keras_serializable(package="example")
    ... class Negative(deq_keras.operators.LinearOperator):
    ...     def call(self, u, data=None):
    ...         return -u
    ...     def adjoint(self, v, data=None):
    ...         return -v
    ...     def operator_norm(self, data=None):
    ...         return tf.ones((), self.variable_dtype)
    >>> error = deq_keras.testing.dot_test(Negative(), (2, 33, 48, 1))
    """

    def build(self, u_shape, data_shape=None):
        self.check_shapes(u_shape, data_shape)
        self.built = True

    def call(self, u, data=None):
        raise NotImplementedError(f"{type(self).__name__} must define `call(u, data=None)`.")

    def adjoint(self, v, data=None):
        """`K^T v`, of the shape of `v`."""
        raise NotImplementedError(f"{type(self).__name__} must define `adjoint(v, data=None)`.")

    def normal_map(self, like, data=None):
        """The map `u -> K^T K u`, for use in a loop.

        Args:
            like: A tensor of the shape and dtype of the images.
            data: As in a call.

        Returns:
            A function of images. All that does not depend on them is computed here, once.
        """
        self.check_shapes(like.shape, getattr(data, "shape", None))
        return lambda u: self.adjoint(self.call(u, data), data)

    def operator_norm(self, data=None):
        """A certified upper bound on `||K||`, a scalar or, if it depends on data, `(batch,)`."""
        raise NotImplementedError(
            f"{type(self).__name__} must define `operator_norm(data=None)`, an upper bound."
        )

    def smallest_singular_value(self):
        """A certified lower bound on the smallest singular value for any data, a scalar tensor."""
        return tf.zeros((), self.variable_dtype)

    def normal_spectrum(self, like, data=None):
        """The eigenvalues of `K^T K`, or of a circular convolution that is near it.

        Preconditioners divide by it, so it need not be exact: differences near the boundary are
        forgotten, and coefficients that vary from pixel to pixel are replaced by their means.

        Args:
            like: A tensor of the shape and dtype of the images.
            data: As in a call.

        Returns:
            Real tensor `(batch or 1, height, width // 2 + 1)`, not negative, at the frequencies of
            `tf.signal.rfft2d`, or `None` if there is none.
        """
        return None

    def normal_diagonal(self, like, data=None):
        """The diagonal of `K^T K`, or what is near it, for preconditioners; see `normal_spectrum`.

        Returns:
            A tensor of a shape that can be broadcast to that of the images, or `None`.
        """
        return None

    def compute_output_shape(self, u_shape, data_shape=None):
        self.check_shapes(u_shape, data_shape)
        return tuple(u_shape)

    def check_shapes(self, u_shape, data_shape=None):
        """Raises a `ValueError` unless images and data have shapes that the operator accepts.

        Args:
            u_shape: Shape of the images; unknown sizes are `None`.
            data_shape: Shape of the data, or `None` for no data.
        """
        shape_4d(type(self).__name__, u_shape)
        self.check_data_shape(u_shape, data_shape)

    def check_data_shape(self, u_shape, data_shape):
        """Raises a `ValueError` if there are data; an operator that has some overrides this."""
        if data_shape is not None:
            raise ValueError(
                f"{type(self).__name__} takes no per-image data. Received data of shape "
                f"{tuple(data_shape)}. Pass the images alone."
            )

    def _check(self, u, data):
        self.check_shapes(u.shape, getattr(data, "shape", None))

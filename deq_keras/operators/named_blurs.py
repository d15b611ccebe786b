"""Blurs whose kernel follows from a few parameters."""

import keras

from deq_keras import checks
from deq_keras.operators import kernels
from deq_keras.operators.blur import Blur


class _NamedBlur(Blur):
    """A blur whose configuration holds the parameters of the kernel, not the kernel."""

    def get_config(self):
        config = super().get_config()
        del config["kernel"]
        config.update(self._parameters())
        return config


@keras.saving.register_keras_serializable(package="deq_keras")
class GaussianBlur(_NamedBlur):
    """Blur with a Gaussian kernel of sum 1; see `Blur` and `gaussian_kernel`.

    Args:
        kernel_size: A positive integer or a pair (height, width).
        stddev: Standard deviation in pixels, or a pair (vertical, horizontal).
        padding: As for `Blur`.
        method: As for `Blur`.
        trainable: Whether the kernel is learned, starting from the Gaussian.
        **kwargs: `name` and `dtype` of the layer.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> blur = deq_keras.operators.GaussianBlur(kernel_size=9, stddev=1.6)
    >>> y = blur(tf.ones((1, 32, 48, 3)))
    """

    def __init__(
        self,
        kernel_size=9,
        stddev=1.6,
        padding="circular",
        method="auto",
        trainable=False,
        **kwargs,
    ):
        kernel = kernels.gaussian_kernel(kernel_size, stddev)
        super().__init__(kernel, padding, method, trainable, **kwargs)
        self.kernel_size = checks.kernel_size(kernel_size)
        self.stddev = stddev

    def _parameters(self):
        return {"kernel_size": self.kernel_size, "stddev": self.stddev}


@keras.saving.register_keras_serializable(package="deq_keras")
class BoxBlur(_NamedBlur):
    """The mean over a rectangle about each pixel; see `Blur` and `box_kernel`.

    Args:
        kernel_size: A positive integer or a pair (height, width).
        padding: As for `Blur`.
        method: As for `Blur`.
        trainable: Whether the kernel is learned, starting from the box.
        **kwargs: `name` and `dtype` of the layer.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> blur = deq_keras.operators.BoxBlur(5)
    >>> y = blur(tf.ones((1, 32, 48, 3)))
    """

    def __init__(self, kernel_size=5, padding="circular", method="auto", trainable=False, **kwargs):
        super().__init__(kernels.box_kernel(kernel_size), padding, method, trainable, **kwargs)
        self.kernel_size = checks.kernel_size(kernel_size)

    def _parameters(self):
        return {"kernel_size": self.kernel_size}


@keras.saving.register_keras_serializable(package="deq_keras")
class DiagonalBlur(_NamedBlur):
    """Blur along the main diagonal, the one of the paper; see `Blur` and `diagonal_kernel`.

    Args:
        size: A positive integer; the kernel is the identity matrix of this size over it.
        padding: As for `Blur`.
        method: As for `Blur`.
        trainable: Whether the kernel is learned, starting from the diagonal.
        **kwargs: `name` and `dtype` of the layer.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> blur = deq_keras.operators.DiagonalBlur(5)
    >>> y = blur(tf.ones((1, 32, 48, 1)))
    """

    def __init__(self, size=5, padding="circular", method="auto", trainable=False, **kwargs):
        super().__init__(kernels.diagonal_kernel(size), padding, method, trainable, **kwargs)
        self.size = int(size)

    def _parameters(self):
        return {"size": self.size}


@keras.saving.register_keras_serializable(package="deq_keras")
class MotionBlur(_NamedBlur):
    """Blur along a straight line at any angle; see `Blur` and `motion_kernel`.

    Args:
        length: Length of the path in pixels, at least 1.
        angle: Direction in degrees, anticlockwise from the horizontal.
        padding: As for `Blur`.
        method: As for `Blur`.
        trainable: Whether the kernel is learned, starting from the line.
        **kwargs: `name` and `dtype` of the layer.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> blur = deq_keras.operators.MotionBlur(length=9, angle=30.0)
    >>> y = blur(tf.ones((1, 32, 48, 1)))
    """

    def __init__(
        self, length=9, angle=0.0, padding="circular", method="auto", trainable=False, **kwargs
    ):
        kernel = kernels.motion_kernel(length, angle)
        super().__init__(kernel, padding, method, trainable, **kwargs)
        self.length = length
        self.angle = angle

    def _parameters(self):
        return {"length": self.length, "angle": self.angle}

"""Undersampled Fourier transforms, the operators of magnetic resonance imaging with one coil."""

import keras
import tensorflow as tf

from deq_keras.convolution import spectra
from deq_keras.numerics.partial import Partial
from deq_keras.operators.base import LinearMap
from deq_keras.operators.mask import Masked


@keras.saving.register_keras_serializable(package="deq_keras")
class FourierMask(Masked):
    """`K u = mask * F u`: the orthonormal two-dimensional Fourier transform, where it is measured.

    Images are real, measurements complex, and the adjoint is `K^T y = Re F^H (mask * y)`. Each
    channel is transformed by itself. Frequencies have the order of `numpy.fft.fft2`, the mean of
    the image first; `numpy.fft.fftshift` of axes 1 and 2 puts it into the middle.

    The mask is either one for all images, or comes with each image as `data`. Weights other than
    0 and 1 are allowed. `K^T K` multiplies the Fourier transform by the mean of the squared mask
    at a frequency and its opposite, since that of a real image is conjugate there.

    Args:
        mask: Array `(height, width)`, `(height, width, channels)` or
            `(1, height, width, channels)`, real. `None` (the default) if the mask comes as data.
        trainable: Whether the mask is learned. Its gradient can be taken in any case.
        **kwargs: `name` and `dtype` of the layer: that of the images.

    Call arguments:
        u: Images `(batch, height, width, channels)`.
        data: Masks of a shape that can be broadcast to that of `u`, if `mask` is `None`.

    Returns:
        Measurements of the shape of `u`, complex64, or complex128 for images of float64.

    Raises:
        ValueError: If the mask is empty, not finite, of another rank, or does not fit the images.

    Reference:
        Lustig, Donoho and Pauly, Sparse MRI: the application of compressed sensing for rapid MR
        imaging, Magnetic Resonance in Medicine 2007.

    Example:

    >>> masks = deq_keras.operators.cartesian_mask((2, 32, 48, 1), acceleration=4, seed=1)
    >>> y = deq_keras.operators.FourierMask()(tf.ones((2, 32, 48, 1)), masks)
    >>> y.dtype
    tf.complex64
    """

    def bind(self, image_shape, data=None, dtype=None):
        dtype = tf.as_dtype(dtype or self.compute_dtype)
        shared, rows = self.masks(image_shape, data, spectra.real_dtype(dtype))
        sizes = tuple(image_shape)[1:3]
        powers = [tuple(_power(mask, *sizes) for mask in masks) for masks in (shared, rows)]

        def forward(u, *masks):
            return _times(_transform(u), masks[0])

        def adjoint(v, *masks):
            return tf.cast(_real_inverse(_times(v, masks[0])), dtype)

        def spectrum(power):
            return tf.reduce_mean(power, axis=1)

        return LinearMap(
            Partial(forward, shared, rows),
            Partial(adjoint, shared, rows),
            Partial(_filter, (*sizes, *powers[0]), powers[1]),
            Partial(spectrum, *powers),
            Partial(_mean_square, *[tuple(mask**2 for mask in masks) for masks in (shared, rows)]),
        )

    def measurement_shape(self, image_shape, data_shape=None):
        return tuple(image_shape)


def _planes(x):
    return tf.transpose(x, [0, 3, 1, 2])


def _images(planes):
    return tf.transpose(planes, [0, 2, 3, 1])


def _transform(u):
    x = _planes(tf.cast(u, spectra.real_dtype(u.dtype)))
    return _images(tf.signal.fft2d(tf.complex(x, tf.zeros_like(x)))) / _root_of_pixels(u, x.dtype)


def _real_inverse(v):
    x = tf.math.real(tf.signal.ifft2d(_planes(v)))
    return _images(x) * tf.math.real(_root_of_pixels(v, x.dtype))


def _root_of_pixels(x, dtype):
    """The square root of the number of pixels, complex, with which the transform is orthonormal."""
    height, width = spectra.size_of(x)
    root = tf.sqrt(tf.cast(height * width, dtype))
    return tf.complex(root, tf.zeros_like(root))


def _times(v, mask):
    return v * tf.complex(mask, tf.zeros_like(mask))


def _power(mask, height, width):
    """Eigenvalues of `K^T K`, `(batch or 1, channels or 1, height, width // 2 + 1)`."""
    square = _planes(mask**2)
    square = tf.broadcast_to(square, [*tf.unstack(tf.shape(square))[:2], height, width])
    opposite = tf.roll(tf.reverse(square, [2, 3]), [1, 1], [2, 3])
    return (0.5 * (square + opposite))[..., : width // 2 + 1]


def _filter(u, height, width, power):
    x = tf.signal.rfft2d(_planes(tf.cast(u, power.dtype)))
    x = tf.signal.irfft2d(x * tf.complex(power, tf.zeros_like(power)), [height, width])
    return tf.ensure_shape(tf.cast(_images(x), u.dtype), u.shape)


def _mean_square(square):
    """The diagonal of `K^T K`: the same for all pixels, as it is a convolution."""
    return tf.reduce_mean(square, axis=[1, 2], keepdims=True)

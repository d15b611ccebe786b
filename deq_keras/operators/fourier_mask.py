"""Undersampled Fourier transforms, the operators of magnetic resonance imaging."""

import keras
import tensorflow as tf

from deq_keras.convolution import filter_spectrum, spectra
from deq_keras.numerics.partial import Partial
from deq_keras.operators.base import LinearMap
from deq_keras.operators.mask import Masked


@keras.saving.register_keras_serializable(package="deq_keras")
class FourierMask(Masked):
    """`K u = mask * F u` with the orthonormal discrete Fourier transform: compressed sensing.

        (F u)[k, l] = sum_{y, x} u[y, x] exp(-2 pi i (k y / h + l x / w)) / sqrt(h w)

    of each channel, with frequency zero at `[0, 0]`, as `numpy.fft.fft2(u, norm="ortho")`. The
    images are real, so the adjoint is `Re(F^H (mask * v))`.

    Measurements that the mask does not know may hold anything: where it is zero the adjoint takes
    values that are not finite for zero.

    Args:
        mask: Array `(height, width)`, `(height, width, channels)` or
            `(1, height, width, channels)`, real, 1 where a frequency is measured and 0 where it is
            not; other weights are allowed. `None` (the default) if the mask comes as data. See
            `cartesian_mask` and `radial_mask`.
        trainable: Whether the mask is learned. Its gradient can be taken in any case.
        **kwargs: `name` and `dtype` of the layer.

    Call arguments:
        u: Images `(batch, height, width, channels)`.
        data: Masks of a shape that can be broadcast to that of `u`, if `mask` is `None`.

    Returns:
        Complex measurements of the shape of `u`: complex128 for float64, else complex64. The
        transform is orthonormal, so their size is that of the pixels.

    Raises:
        ValueError: If the mask is empty, complex, not finite, of another rank, or does not fit the
            images.

    Reference:
        Lustig, Donoho and Pauly: Sparse MRI: the application of compressed sensing for rapid MR
        imaging. Magnetic Resonance in Medicine 58 (2007), 1182-1195.

    Example:

    >>> mask = deq_keras.operators.cartesian_mask((32, 48), acceleration=4)
    >>> scanner = deq_keras.operators.FourierMask(mask)
    >>> k_space = scanner(tf.ones((2, 32, 48, 1)))
    >>> zero_filled = scanner.adjoint(k_space)
    """

    def bind(self, image_shape, data=None, dtype=None):
        dtype = tf.as_dtype(dtype or self.compute_dtype)
        real = spectra.real_dtype(dtype)
        shared, rows = self.masks(image_shape, data, real)
        _, height, width, _ = image_shape
        (mask,) = shared or rows
        power = _power(mask**2, height, width)

        def of_mask(function, value):
            return Partial(function, (value,) if shared else (), (value,) if rows else ())

        def adjoint(v, mask):
            if not v.dtype.is_complex:
                raise ValueError(
                    f"{type(self).__name__} expected complex measurements. Received "
                    f"{v.dtype.name} of shape {tuple(v.shape)}. Pass what the operator returns, or "
                    "join two parts by `tf.complex(real, imaginary)`."
                )
            return tf.cast(_adjoint(v, mask), dtype)

        def normal(u, power):
            filtered = filter_spectrum(tf.cast(u, real), tf.complex(power, tf.zeros_like(power)))
            return tf.cast(filtered, u.dtype)

        return LinearMap(
            of_mask(_forward, mask),
            of_mask(adjoint, mask),
            of_mask(normal, power),
            of_mask(lambda power: tf.reduce_mean(power, axis=1), power),
            of_mask(lambda mask: tf.reduce_mean(mask**2, axis=(1, 2), keepdims=True), mask),
        )

    def measurement_shape(self, image_shape, data_shape=None):
        return tuple(image_shape)


def _forward(u, mask):
    planes = tf.transpose(tf.cast(u, mask.dtype), (0, 3, 1, 2))
    planes = tf.signal.fft2d(tf.complex(planes, tf.zeros_like(planes)))
    return tf.transpose(_orthonormal(planes), (0, 2, 3, 1)) * tf.complex(mask, tf.zeros_like(mask))


def _adjoint(v, mask):
    known = (mask != 0) | tf.math.is_finite(tf.math.real(v) + tf.math.imag(v))
    v = tf.where(known, v, tf.zeros_like(v)) * tf.complex(mask, tf.zeros_like(mask))
    # F^H v is the conjugate of F conj(v), of which only the real part is wanted.
    planes = tf.signal.fft2d(tf.math.conj(tf.transpose(v, (0, 3, 1, 2))))
    return tf.transpose(tf.math.real(_orthonormal(planes)), (0, 2, 3, 1))


def _orthonormal(planes):
    height, width = tf.unstack(tf.shape(planes))[2:]
    scale = tf.math.rsqrt(tf.cast(height * width, planes.dtype.real_dtype))
    return planes * tf.complex(scale, tf.zeros_like(scale))


def _power(square, height, width):
    """The eigenvalues of `Re F^H mask^2 F` on real images, for half of the frequencies.

    A real image has conjugate values at opposite frequencies, so these share the mean of their
    two weights.

    Returns:
        Real `(batch or 1, channels or 1, height, width // 2 + 1)`.
    """
    full = [tf.shape(square)[0], height, width, tf.shape(square)[3]]
    square = tf.broadcast_to(square, full)
    opposite = tf.roll(tf.reverse(square, (1, 2)), (1, 1), (1, 2))
    half = (square + opposite)[:, :, : width // 2 + 1] / 2
    return tf.transpose(half, (0, 3, 1, 2))

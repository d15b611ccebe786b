"""Preconditioners: cheap approximate inverses of `A`, symmetric and positive definite."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf


def fourier_preconditioner(spectrum, diagonal=None) -> Callable:
    """Division by a spectrum: the inverse of `A` if that is a circular convolution.

        M w = irfft2(rfft2(w) / max(spectrum, floor)),    for each channel

    with a floor above the rounding errors, relative to the largest entry. `M` is symmetric and
    positive definite for every spectrum with a positive entry.

    Where `A` is a circular convolution but for coefficients that vary from pixel to pixel, their
    means give a good spectrum, and the diagonal of `A` says more. With it `w` is multiplied before
    and after by `s = sqrt(mean(diagonal) / diagonal)`: then `s A s` has a constant diagonal, like
    the convolution that approximates it.

    Args:
        spectrum: Real tensor `(batch or 1, height, width // 2 + 1)`, the eigenvalues of `A`, or
            what is near them, at the frequencies of `tf.signal.rfft2d`. That of a real symmetric
            convolution is even in the frequency; entries that should be equal must be.
        diagonal: The diagonal of `A` up to a factor for each image, or what is near it: a tensor of
            a shape that can be broadcast to that of the images, or `None`.

    Returns:
        A function of images `(batch, height, width, channels)`.

    Example:

    >>> images = tf.random.uniform((2, 16, 16, 1))
    >>> half = deq_keras.linear_solvers.fourier_preconditioner(2.0 * tf.ones((1, 16, 9)))
    >>> half(images).shape
    TensorShape([2, 16, 16, 1])
    """
    spectrum = tf.convert_to_tensor(spectrum)
    if spectrum.shape.rank != 3 or not spectrum.dtype.is_floating:
        raise ValueError(
            "Expected `spectrum` to be real, of shape (batch or 1, height, width // 2 + 1). "
            f"Received {spectrum.dtype.name} of shape {tuple(spectrum.shape)}. Take the real part, "
            "or add the missing axis by `spectrum[None]`."
        )
    floor = 100 * float(np.finfo(spectrum.dtype.as_numpy_dtype).eps)
    floor *= tf.reduce_max(spectrum, axis=[1, 2], keepdims=True)
    inverse = tf.math.reciprocal_no_nan(tf.maximum(spectrum, floor))[:, None]
    inverse = tf.complex(inverse, tf.zeros_like(inverse))
    scale = None if diagonal is None else _inverse_root(tf.cast(diagonal, spectrum.dtype))

    def precondition(w):
        shape = tf.shape(w)
        x = tf.cast(w, spectrum.dtype)
        planes = tf.transpose(x if scale is None else scale * x, [0, 3, 1, 2])
        planes = tf.signal.irfft2d(tf.signal.rfft2d(planes) * inverse, shape[1:3])
        result = tf.transpose(planes, [0, 2, 3, 1])
        result = result if scale is None else scale * result
        return tf.ensure_shape(tf.cast(result, w.dtype), w.shape)

    return precondition


def _inverse_root(diagonal):
    """`sqrt(mean / diagonal)`, the mean of each image; entries count as `mean / 1e4` or more."""
    mean = tf.reduce_mean(diagonal, axis=[1, 2, 3], keepdims=True)
    square = tf.math.divide_no_nan(mean, tf.maximum(diagonal, 1e-4 * mean))
    return tf.sqrt(tf.where(mean > 0, square, tf.ones_like(square)))

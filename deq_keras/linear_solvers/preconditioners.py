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
    factors = fourier_factors(spectrum, diagonal)
    return lambda w: divide_by_factors(w, *factors)


def fourier_factors(spectrum, diagonal=None) -> tuple:
    """What `divide_by_factors` needs of the arguments of `fourier_preconditioner`.

    Returns:
        One or two real tensors, with a row for each image or one for all.

    Example:

    >>> factors = deq_keras.linear_solvers.preconditioners.fourier_factors(tf.ones((1, 16, 9)))
    >>> [factor.shape for factor in factors]
    [TensorShape([1, 1, 16, 9])]
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
    if diagonal is None:
        return (inverse,)
    return inverse, _inverse_root(tf.cast(diagonal, spectrum.dtype))


def divide_by_factors(w, inverse, scale=None) -> tf.Tensor:
    """The product of the preconditioner with images `w`; see `fourier_preconditioner`.

    Example:

    >>> factors = deq_keras.linear_solvers.preconditioners.fourier_factors(
    ...     2.0 * tf.ones((1, 16, 9)))
    >>> half = deq_keras.linear_solvers.preconditioners.divide_by_factors(
    ...     tf.ones((1, 16, 16, 1)), *factors)
    >>> np.allclose(half, 0.5)
    True
    """
    shape = tf.shape(w)
    x = tf.cast(w, inverse.dtype)
    planes = tf.transpose(x if scale is None else scale * x, [0, 3, 1, 2])
    planes = tf.signal.rfft2d(planes) * tf.complex(inverse, tf.zeros_like(inverse))
    result = tf.transpose(tf.signal.irfft2d(planes, shape[1:3]), [0, 2, 3, 1])
    result = result if scale is None else scale * result
    return tf.ensure_shape(tf.cast(result, w.dtype), w.shape)


def _inverse_root(diagonal):
    """`sqrt(mean / diagonal)`, the mean of each image; entries count as `mean / 1e4` or more."""
    mean = tf.reduce_mean(diagonal, axis=[1, 2, 3], keepdims=True)
    square = tf.math.divide_no_nan(mean, tf.maximum(diagonal, 1e-4 * mean))
    return tf.sqrt(tf.where(mean > 0, square, tf.ones_like(square)))

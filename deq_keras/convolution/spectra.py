"""Spectra of convolutions on the grid of a two-dimensional real FFT."""

import numpy as np
import tensorflow as tf

from deq_keras.numerics.shapes import sizes_of


def transfer_function(kernel, height, width):
    """The discrete Fourier transform of a kernel at the size of an image.

        H[k, l] = sum_{i, j} kernel[i, j] exp(-2 pi i (k (i - ci) / height + l (j - cj) / width))

    with the origin `(ci, cj) = (kh // 2, kw // 2)`. For kernels this is less work than an FFT at
    the size of the image, and exact for images smaller than the kernel, too.

    Args:
        kernel: Real tensor `(..., kh, kw)`.
        height: Height of the images, an integer or a scalar tensor.
        width: Their width.

    Returns:
        Complex tensor `(..., height, width // 2 + 1)`.
    """
    kernel = tf.cast(kernel, real_dtype(kernel.dtype))
    complex_dtype = tf.complex128 if kernel.dtype == tf.float64 else tf.complex64

    def waves(frequencies, size, length):
        if isinstance(length, int):  # a constant, in one node of a graph
            turns = np.outer(np.arange(frequencies), np.arange(size) - size // 2) % length
            return tf.constant(np.exp(-2j * np.pi * turns / length), complex_dtype)
        offsets = tf.range(size) - size // 2
        turns = tf.range(frequencies)[:, None] * offsets % length
        angle = -2 * np.pi * tf.cast(turns, tf.float64) / tf.cast(length, tf.float64)
        return tf.cast(tf.complex(tf.cos(angle), tf.sin(angle)), complex_dtype)

    rows = waves(height, kernel.shape[-2], height)
    columns = waves(width // 2 + 1, kernel.shape[-1], width)
    return rows @ tf.complex(kernel, tf.zeros_like(kernel)) @ tf.transpose(columns)


def power(kernel, height, width):
    """`|H|^2` of `transfer_function`: the eigenvalues of a circular convolution's `K^T K`."""
    return cross_power(kernel, kernel, height, width)


def cross_power(kernel, other, height, width):
    """`Re(conj(O) H)` of both kernels: the eigenvalues of the symmetric part of `O^T K`."""
    transfer = transfer_function(kernel, height, width)
    second = transfer if other is kernel else transfer_function(other, height, width)
    return tf.math.real(transfer * tf.math.conj(second))


def real_dtype(dtype):
    """The dtype itself if there is an FFT for it, else float32."""
    return dtype if dtype in (tf.float32, tf.float64) else tf.float32


def size_of(images):
    """Height and width of images `(batch, height, width, ...)`, integers where they are known."""
    return list(sizes_of(images)[1:3])

"""Transfer functions against NumPy's FFT."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras.convolution import spectra


def _wrapped(kernel, height, width):
    """The kernel on the periodic grid of the image, its origin at pixel (0, 0)."""
    grid = np.zeros((height, width))
    kh, kw = kernel.shape
    for i in range(kh):
        for j in range(kw):
            grid[(i - kh // 2) % height, (j - kw // 2) % width] += kernel[i, j]
    return grid


@pytest.mark.parametrize("sides", [(3, 3), (4, 5), (1, 2)])
@pytest.mark.parametrize("size", [(8, 10), (7, 9), (3, 2)])  # the last is smaller than a kernel
def test_transfer_function(sides, size):
    kernels = np.random.default_rng(0).normal(size=(2, 3, *sides))
    found = spectra.transfer_function(tf.constant(kernels), *size)
    expected = [[np.fft.rfft2(_wrapped(kernel, *size)) for kernel in row] for row in kernels]
    np.testing.assert_allclose(found, expected, atol=1e-12)
    power = spectra.power(tf.constant(kernels), *size)
    np.testing.assert_allclose(power, np.abs(expected) ** 2, atol=1e-12)
    assert power.dtype == tf.float64


def test_half_precision_is_computed_in_single():
    kernel = tf.ones((3, 3), tf.float16)
    assert spectra.power(kernel, 8, 8).dtype == tf.float32


def test_sizes_are_static_where_they_are_known():
    assert spectra.size_of(tf.ones((2, 3, 4, 1))) == [3, 4]

    @tf.function(input_signature=[tf.TensorSpec((None, 3, None, 1))], autograph=False)
    def size(images):
        height, width = spectra.size_of(images)
        assert height == 3
        return width

    assert int(size(tf.ones((2, 3, 7, 1)))) == 7

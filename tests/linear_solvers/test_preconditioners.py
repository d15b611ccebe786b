"""Division by a spectrum: symmetric, positive definite, and the inverse of a convolution."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import linear_solvers as ls


def _spectrum(shape, seed=0, batch=1):
    """The eigenvalues of a symmetric positive definite circular convolution, for each image."""
    kernel = np.random.default_rng(seed).normal(size=(batch, *shape))
    return tf.constant(0.1 + np.abs(np.fft.rfft2(kernel)) ** 2 / np.prod(shape))


def _convolution(spectrum):
    def apply(w):
        planes = np.fft.rfft2(np.moveaxis(w.numpy(), 3, 1)) * spectrum.numpy()[:, None]
        return tf.constant(np.moveaxis(np.fft.irfft2(planes, w.shape[1:3]), 1, 3))

    return apply


def _images(shape, seed=1):
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("shape", [(2, 8, 10, 1), (2, 7, 9, 3), (3, 6, 5, 2)])
@pytest.mark.parametrize("each", [False, True])
def test_inverts_a_circular_convolution(shape, each):
    spectrum = _spectrum(shape[1:3], batch=shape[0] if each else 1)
    precondition, apply = ls.fourier_preconditioner(spectrum), _convolution(spectrum)
    w = _images(shape)
    np.testing.assert_allclose(precondition(apply(w)), w, atol=1e-11)
    assert precondition(w).shape == shape


def test_conjugate_gradients_then_need_one_step():
    spectrum, b = _spectrum((8, 9), batch=2), _images((2, 8, 9, 1))
    apply = _convolution(spectrum)
    solver = ls.ConjugateGradient(tolerance=1e-9)
    plain = solver.solve(apply, b)
    solution = solver.solve(apply, b, ls.fourier_preconditioner(spectrum))
    np.testing.assert_array_equal(solution.steps, 2)  # the second one verifies
    assert plain.steps.numpy().min() > 10
    np.testing.assert_allclose(solution.value, plain.value, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
def test_symmetric_and_positive_definite_for_any_spectrum(size, scaled):
    """Also where spectrum or diagonal say zero or less: there is a floor."""
    height, width = size
    kernel = np.random.default_rng(2).normal(size=size)
    spectrum = np.abs(np.fft.rfft2(kernel)) ** 2 - 5.0
    assert spectrum.min() < 0 < spectrum.max()
    diagonal = None
    if scaled:  # with both floors the condition would be beyond the reach of a dense check
        spectrum = np.abs(spectrum)
        diagonal = 1.0 + np.random.default_rng(3).normal(size=(1, *size, 1))
        assert diagonal.min() < 0
    precondition = ls.fourier_preconditioner(tf.constant(spectrum[None]), diagonal)
    identity = tf.reshape(tf.eye(height * width, dtype=tf.float64), (-1, height, width, 1))
    dense = precondition(identity).numpy().reshape(height * width, -1)
    np.testing.assert_allclose(dense, dense.T, rtol=1e-9, atol=1e-9 * np.abs(dense).max())
    assert np.linalg.eigvalsh(0.5 * (dense + dense.T)).min() > 0


@pytest.mark.parametrize("channels", [1, 2])
def test_inverts_a_convolution_between_two_multiplications(channels):
    spectrum, factor = _spectrum((6, 7)), _images((2, 6, 7, channels), 4) ** 2 + 0.1
    # The diagonal of D C D is that of D^2 times a constant, as the convolution C has a constant.
    precondition = ls.fourier_preconditioner(spectrum, 3.0 * factor**2)
    w, apply = _images((2, 6, 7, channels)), _convolution(spectrum)
    result = precondition(factor * apply(factor * w)).numpy()
    # Up to a factor for each image: its mean diagonal is not that of C.
    means = np.mean(factor.numpy() ** 2, axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(result, means * w, rtol=1e-9, atol=1e-9)


def test_a_zero_diagonal_says_nothing():
    spectrum, w = _spectrum((6, 8)), _images((1, 6, 8, 1))
    scaled = ls.fourier_preconditioner(spectrum, tf.zeros((1, 6, 8, 1), tf.float64))
    np.testing.assert_array_equal(scaled(w), ls.fourier_preconditioner(spectrum)(w))


def test_unknown_sizes_in_a_graph():
    @tf.function(input_signature=[tf.TensorSpec((None,) * 3), tf.TensorSpec((None, None, None, 2))])
    def apply(spectrum, w):
        return ls.fourier_preconditioner(spectrum)(w)

    for shape in ((2, 6, 8, 2), (1, 5, 7, 2)):
        spectrum, w = _spectrum(shape[1:3]), _images(shape)
        single = apply(tf.cast(spectrum, tf.float32), tf.cast(w, tf.float32))
        np.testing.assert_allclose(single, ls.fourier_preconditioner(spectrum)(w), atol=1e-4)


@pytest.mark.parametrize("spectrum", [tf.ones((4, 3)), tf.ones((1, 4, 3), tf.complex64)])
def test_spectrum_is_checked(spectrum):
    with pytest.raises(ValueError, match="Expected `spectrum` to be real, of shape"):
        ls.fourier_preconditioner(spectrum)

"""Undersampled Fourier transforms, against NumPy's and their matrices; and masks for them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import operators, testing
from deq_keras.numerics import partial
from deq_keras.numerics.shapes import sizes_of

RNG = np.random.default_rng(0)
SIZES = [(6, 8), (7, 5), (8, 7), (5, 6)]
COMPLEX = {"float32": "complex64", "float64": "complex128"}


def images(size, channels=2, seed=1):
    return tf.constant(np.random.default_rng(seed).standard_normal((2, *size, channels)))


def masks(size, channels=1, batch=2):
    return tf.constant(RNG.random((batch, *size, channels)))


def matrix(operator, size, mask):
    count = size[0] * size[1]
    basis = tf.reshape(tf.eye(count, dtype=tf.float64), (count, *size, 1))
    y = tf.reshape(operator(basis, mask), (count, -1)).numpy().T
    return np.concatenate([y.real, y.imag])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", COMPLEX)
def test_formula_and_dot(size, dtype):
    operator, tolerance = operators.FourierMask(dtype=dtype), 1e-6 if dtype == "float32" else 1e-14
    for mask in (masks(size), masks(size, 2), masks(size, 2, 1), masks((1, size[1]), 1, 1)):
        u, mask = tf.cast(images(size), dtype), tf.cast(mask, dtype)
        y = operator(u, mask)
        assert y.dtype == COMPLEX[dtype]
        expected = mask.numpy() * np.fft.fft2(u, axes=(1, 2), norm="ortho")
        np.testing.assert_allclose(y, expected, atol=10 * tolerance)
        back = operator.adjoint(y, mask)
        expected = np.fft.ifft2(mask.numpy() * y.numpy(), axes=(1, 2), norm="ortho").real
        np.testing.assert_allclose(back, expected, atol=10 * tolerance)
        np.testing.assert_allclose(operator.bind(u.shape, mask).normal(u), back, atol=tolerance * 9)
        testing.dot_test(operator, u.shape, dtype, data=mask)


@pytest.mark.parametrize("size", SIZES)
def test_norm_spectrum_and_diagonal(size):
    operator, mask = operators.FourierMask(dtype="float64"), masks(size)
    norms = operator.operator_norm(mask)
    spectrum = operator.bind((2, *size, 1), mask).spectrum()
    diagonal = operator.bind((2, *size, 1), mask).diagonal()
    assert operator.certified
    for i in range(2):
        dense = matrix(operator, size, mask[i : i + 1])
        singular = np.linalg.svd(dense, compute_uv=False)
        assert norms[i] == np.abs(mask[i]).max()
        assert singular.max() <= norms[i] + 1e-14
        response = (dense.T @ dense)[:, 0].reshape(size)
        np.testing.assert_allclose(spectrum[i], np.fft.rfft2(response), atol=1e-12)
        assert float(diagonal[i, 0, 0, 0]) == pytest.approx(np.sum(dense[:, 3] ** 2))
        fixed = operators.FourierMask(mask[i, :, :, 0], dtype="float64")
        assert float(fixed.smallest_singular_value()) <= singular.min() + 1e-14
        np.testing.assert_allclose(fixed.bind((1, *size, 1)).spectrum()[0], spectrum[i])
        assert float(fixed.operator_norm()) == norms[i]
    one = operators.FourierMask(np.ones(size), dtype="float64")
    assert float(one.operator_norm()) == float(one.smallest_singular_value()) == 1


def test_unknown_sizes():
    operator = operators.FourierMask(dtype="float64")
    spec = tf.TensorSpec((None, None, None, 1), tf.float64)

    @tf.function(input_signature=[spec, spec])
    def everything(u, mask):
        bound = operator.bind(sizes_of(u), mask)
        y = operator(u, mask)
        return y, operator.adjoint(y, mask), bound.normal(u), bound.spectrum()

    for size in SIZES:
        u, mask = images(size, 1), masks(size)
        y, back, normal, spectrum = everything(u, mask)
        np.testing.assert_allclose(y, operator(u, mask), atol=1e-13)
        np.testing.assert_allclose(back, operator.adjoint(y, mask), atol=1e-13)
        np.testing.assert_allclose(normal, back, atol=1e-13)
        bound = operator.bind(u.shape, mask)
        np.testing.assert_allclose(spectrum, bound.spectrum(), rtol=1e-14)


def test_rows_and_gradients():
    size = (5, 6)
    operator, u, mask = operators.FourierMask(dtype="float64"), images(size), masks(size)
    bound = operator.bind(u.shape, mask)
    rows = partial.take_rows(bound, tf.constant([1]))
    np.testing.assert_allclose(rows.normal(u[1:]), bound.normal(u)[1:], atol=1e-13)
    y = bound.forward(u)
    np.testing.assert_allclose(rows.adjoint(y[1:]), bound.adjoint(y)[1:], atol=1e-13)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([u, y, mask])
        bound = operator.bind(u.shape, mask)
        energy = 0.5 * tf.reduce_sum(tf.abs(bound.forward(u)) ** 2)
        product = tf.reduce_sum(bound.adjoint(y) * images(size, seed=5))
        square = 0.5 * tf.reduce_sum(u * bound.normal(u))
    np.testing.assert_allclose(tape.gradient(energy, u), bound.normal(u), atol=1e-12)
    np.testing.assert_allclose(tape.gradient(square, u), bound.normal(u), atol=1e-12)
    np.testing.assert_allclose(tape.gradient(energy, mask), tape.gradient(square, mask), atol=1e-12)
    np.testing.assert_allclose(
        tape.gradient(product, y), operator(images(size, seed=5), mask), atol=1e-12
    )


def test_file_of_a_symbolic_model(tmp_path):
    u, mask = keras.Input((None, None, 1)), keras.Input((None, None, 1))
    y = operators.FourierMask()(u, mask)
    assert (y.shape, y.dtype) == ((None, None, None, 1), "complex64")
    model = keras.Model([u, mask], [y, operators.FourierMask(np.eye(6, 5))(u)])
    model.save(tmp_path / "model.keras")
    arguments = [tf.cast(part, tf.float32) for part in (images((6, 5), 1), masks((6, 5)))]
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for a, b in zip(loaded(arguments), model(arguments), strict=True):
        np.testing.assert_array_equal(a, b)


def test_errors():
    operator, u = operators.FourierMask(), tf.ones((2, 6, 5, 1))
    with pytest.raises(ValueError, match="FourierMask has no mask of its own"):
        operator(u)
    with pytest.raises(ValueError, match="Crop the images"):
        operator(u, tf.ones((2, 6, 6, 1)))
    with pytest.raises(ValueError, match="no per-image data"):
        operators.FourierMask(np.ones((6, 5)))(u, tf.ones((2, 6, 5, 1)))


@pytest.mark.parametrize("width", [1, 7, 48, 49])
@pytest.mark.parametrize("acceleration", [1, 2.5, 4, 100])
def test_cartesian_mask(width, acceleration):
    mask = operators.cartesian_mask((3, 6, width, 2), acceleration, 0.1, seed=3)
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) <= {0, 1}
    np.testing.assert_array_equal(mask, np.broadcast_to(mask[:, :1, :, :1], mask.shape))
    centre = round(0.1 * width)
    expected = max(round(width / acceleration), centre, 1)
    assert (mask[:, 0, :, 0].sum(1) == expected).all()
    frequencies = np.abs(np.fft.fftfreq(width) * width)
    assert mask[:, :, frequencies < centre / 2].all()
    again = operators.cartesian_mask((3, 6, width, 2), acceleration, 0.1, seed=3)
    np.testing.assert_array_equal(again, mask)


def test_cartesian_masks_differ_between_images_and_seeds():
    mask = operators.cartesian_mask((2, 4, 64, 1))
    assert (mask[0] != mask[1]).any()
    assert (mask != operators.cartesian_mask((2, 4, 64, 1), seed=1)).any()
    assert operators.cartesian_mask((4, 64)).shape == (4, 64)
    assert operators.cartesian_mask((4, 64, 3)).shape == (4, 64, 3)


@pytest.mark.parametrize("size", [(32, 32), (33, 20), (7, 64)])
def test_radial_mask(size):
    mask = operators.radial_mask(size, spokes=2)
    rows, columns = np.nonzero(mask)
    assert ((rows == 0) | (columns == 0)).all()
    assert mask[0].all()
    assert mask[:, 0].all()
    many = operators.radial_mask((2, *size, 1), 9, angle=10.0)
    assert many.shape == (2, *size, 1)
    assert many[:, 0, 0].all()
    assert 0 < many.mean() < 1
    centred = np.fft.fftshift(many[0, :, :, 0])
    inner = centred[1 - size[0] % 2 :, 1 - size[1] % 2 :]  # without the unpaired frequencies
    np.testing.assert_array_equal(inner, inner[::-1, ::-1])


def test_errors_of_masks():
    with pytest.raises(ValueError, match="Expected `shape`"):
        operators.cartesian_mask((4,))
    with pytest.raises(ValueError, match="Expected `acceleration`"):
        operators.cartesian_mask((4, 4), 0.5)
    with pytest.raises(ValueError, match="Expected `centre_fraction`"):
        operators.cartesian_mask((4, 4), 2, 1.5)
    with pytest.raises(ValueError, match="Expected `spokes`"):
        operators.radial_mask((4, 4), 0)

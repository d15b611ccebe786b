"""Downsampling, against its matrix, SciPy's convolution and block means."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from deq_keras import operators, testing
from deq_keras.numerics import partial
from deq_keras.numerics.shapes import sizes_of

RNG = np.random.default_rng(0)
KERNEL = RNG.standard_normal((3, 4))
MODES = {"zero": "constant", "circular": "wrap", "reflect": "mirror"}
SIZES = [(9, 8), (8, 8), (7, 9), (10, 6)]
FACTORS = [1, 2, (3, 2), 4]


def make(factor, kernel=KERNEL, padding="circular", dtype="float64", **kwargs):
    return operators.Downsample(factor, kernel, padding, dtype=dtype, **kwargs)


def images(size, batch=2, channels=1, seed=1):
    return tf.constant(np.random.default_rng(seed).standard_normal((batch, *size, channels)))


def matrix(operator, size):
    count = size[0] * size[1]
    basis = tf.reshape(tf.eye(count, dtype=tf.float64), (count, *size, 1))
    return tf.reshape(operator(basis), (count, -1)).numpy().T


@pytest.mark.parametrize("padding", MODES)
@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("method", ["fft", "direct"])
def test_formula(padding, factor, method):
    u, operator = images((9, 8), channels=2), make(factor, padding=padding, method=method)
    blurred = scipy.ndimage.convolve(
        u.numpy(), KERNEL[None, :, :, None], mode=MODES[padding], origin=0
    )
    a, b = operator.factor
    expected = blurred[:, (a - 1) // 2 :: a, (b - 1) // 2 :: b]
    np.testing.assert_allclose(operator(u), expected, atol=1e-12)


@pytest.mark.parametrize("factor", FACTORS)
def test_box_is_the_mean_of_the_pixels(factor):
    operator = make(factor, "box", "zero")
    a, b = operator.factor
    u = images((3 * a, 2 * b))
    expected = u.numpy().reshape(2, 3, a, 2, b, 1).mean((2, 4))
    np.testing.assert_allclose(operator(u), expected, atol=1e-12)
    plain = make(factor, None)(u)
    np.testing.assert_array_equal(plain, u[:, (a - 1) // 2 :: a, (b - 1) // 2 :: b])


@pytest.mark.parametrize("factor", [1, 2, 3, 4])
def test_gaussian_is_centred_on_the_pixels_of_a_measurement(factor):
    """The measurement of a plane is its value at the middle of the block."""
    operator = make(factor, "gaussian", "reflect")
    assert np.sum(operator.kernel) == pytest.approx(1)
    rows = np.arange(12.0 * factor) - (factor - 1) / 2
    u = np.broadcast_to(rows[:, None], (12 * factor, 3 * factor + 1))[None, :, :, None]
    middle = operator(tf.constant(u)).numpy()[0, 3:9, 1, 0]
    np.testing.assert_allclose(middle, factor * np.arange(3, 9), atol=1e-10)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("padding", MODES)
@pytest.mark.parametrize("factor", FACTORS)
def test_norm_is_a_bound(size, padding, factor):
    for kernel in (KERNEL, "box", None):
        if kernel is not None and padding == "reflect" and factor == 4 and kernel is not KERNEL:
            continue
        operator = make(factor, kernel, padding)
        exact = np.linalg.norm(matrix(operator, size), 2)
        assert operator.certified
        for shape in (None, (None, *size, 1), (None, None, None, 1)):
            assert exact <= float(operator.operator_norm(image_shape=shape)) * (1 + 1e-12)
        dynamic = tf.function(lambda shape, operator=operator: operator.operator_norm(None, shape))
        sizes = [tf.constant(n) for n in (1, *size, 1)]
        found = float(operator.operator_norm(image_shape=(1, *size, 1)))
        assert float(dynamic(sizes)) == pytest.approx(found)


def test_norm_is_sharp():
    for factor, padding in ((2, "circular"), (4, "zero"), (3, "circular")):
        operator = operators.Downsample(factor, padding=padding, dtype="float64")
        size = (12, 12)
        exact = np.linalg.norm(matrix(operator, size), 2)
        norm = float(operator.operator_norm(image_shape=(1, *size, 1)))
        assert exact <= norm <= (1.1 if padding == "circular" else 1.3) * exact
    assert float(operators.Downsample(2, "box", "zero").operator_norm()) == pytest.approx(0.5)
    learned = make(2, np.zeros((3, 3)), trainable=True)
    with tf.GradientTape() as tape:
        norm = learned.operator_norm(image_shape=(1, 8, 8, 1))
    assert float(norm) == 0
    assert not np.isnan(tape.gradient(norm, learned.kernel)).any()


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("padding", MODES)
def test_dot(factor, padding):
    for size, dtype in zip(SIZES, ("float64", "float32", "float64", "float32"), strict=True):
        operator = make(factor, padding=padding, dtype=dtype, image_size=size)
        testing.dot_test(operator, (2, *size, 2), dtype)


def test_sizes():
    operator = make(2)
    for size, kept in ((33, 17), (34, 17), (35, 18)):
        shape = (None, size, size + 1, 3)
        assert operator.measurement_shape(shape)[1] == kept
        assert operator(keras.Input(shape[1:], dtype="float64")).shape == (
            None,
            kept,
            (size + 2) // 2,
            3,
        )
    assert operator(keras.Input((None, None, 1), dtype="float64")).shape == (None, None, None, 1)
    assert operator.image_shape((None, 17, None, 3)) == (None, 34, None, 3)
    assert make((3, 2)).image_shape((5, 4, 4, 1)) == (5, 12, 8, 1)
    assert make(4).measurement_shape((1, 33, 35, 1)) == (1, 8, 9, 1)
    stated = make(2, image_size=(33, 34))
    assert stated.image_shape((None, 17, 17, 1)) == (None, 33, 34, 1)
    y = images((17, 17))
    assert stated.adjoint(y).shape == (2, 33, 34, 1)
    assert operator.adjoint(y).shape == (2, 34, 34, 1)
    assert operator.adjoint(y, image_shape=(2, 33, 33, 1)).shape == (2, 33, 33, 1)


def test_unknown_sizes():
    operator = make(3, padding="zero")

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1), tf.float64)])
    def there_and_back(u):
        y = operator(u)
        return y, operator.adjoint(y, image_shape=sizes_of(u))

    for size in SIZES:
        u = images(size)
        y, back = there_and_back(u)
        np.testing.assert_allclose(y, operator(u), atol=1e-12)
        np.testing.assert_allclose(back, operator.adjoint(y, None, u.shape), atol=1e-12)

    @tf.function(input_signature=[tf.TensorSpec((None, None, None, 1), tf.float64)])
    def back(y):
        return operator.adjoint(y, image_shape=(2, *tf.unstack(tf.constant([20, 20])), 1))

    with pytest.raises(tf.errors.InvalidArgumentError):
        back(images((3, 3)))


def test_preconditioner_is_the_mean_over_positions_of_the_grid():
    operator = make(2, None)
    bound = operator.bind((1, 8, 8, 1))
    np.testing.assert_allclose(bound.spectrum(), np.full((1, 8, 5), 0.25))
    np.testing.assert_allclose(bound.diagonal(), np.full((1, 1, 1, 1), 0.25))
    operator = make(2)
    dense = matrix(operator, (8, 8))
    product = (dense.T @ dense).reshape(8, 8, 8, 8)
    moved = [np.roll(product[i, j], (-i, -j), (0, 1)) for i in range(8) for j in range(8)]
    bound = operator.bind((1, 8, 8, 1))
    np.testing.assert_allclose(bound.spectrum()[0], np.fft.rfft2(np.mean(moved, 0)), atol=1e-10)
    assert float(bound.diagonal()[0, 0, 0, 0]) == pytest.approx(np.sum(dense**2) / 64)


def test_rows_and_gradients():
    operator, u = make(2, trainable=True), images((9, 8))
    bound = operator.bind(u.shape)
    rows = partial.take_rows(bound, tf.constant([1]))
    np.testing.assert_allclose(rows.normal(u[1:]), bound.normal(u)[1:], atol=1e-12)
    y = bound.forward(u)
    with tf.GradientTape() as tape:
        tape.watch(y)
        value = tf.reduce_sum(operator.bind(u.shape).adjoint(y) * images((9, 8), seed=4))
    by_y, by_kernel = tape.gradient(value, [y, operator.kernel.value])
    np.testing.assert_allclose(by_y, operator(images((9, 8), seed=4)), atol=1e-12)
    # The value is linear in the kernel.
    assert float(tf.reduce_sum(by_kernel * operator.kernel)) == pytest.approx(float(value))


@pytest.mark.parametrize("kernel", ["gaussian", "box", None, KERNEL.tolist()])
def test_file(kernel, tmp_path):
    operator = operators.Downsample((2, 3), kernel, "zero", (16, 17), trainable=True)
    copy = operators.Downsample.from_config(operator.get_config())
    assert copy.get_config() == operator.get_config()
    assert copy.get_config()["kernel"] == kernel
    model = keras.Sequential([keras.Input((16, 17, 1)), operator])
    operator.kernel.assign(2 * operator.kernel)
    model.save(tmp_path / "model.keras")
    u = tf.cast(images((16, 17)), tf.float32)
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(u), model(u))


def test_errors():
    for factor in (0, 1.5, (2, 2, 2), "two", None):
        with pytest.raises(ValueError, match="Expected `factor`"):
            operators.Downsample(factor)
    with pytest.raises(ValueError, match="Expected `image_size`"):
        operators.Downsample(2, image_size=(3, 0))
    with pytest.raises(ValueError, match="Did you mean 'gaussian'"):
        operators.Downsample(2, "gausian")
    with pytest.raises(ValueError, match=r"image_size=\(33, 34\)"):
        operators.Downsample(2, image_size=(33, 34))(tf.ones((1, 33, 33, 1)))
    with pytest.raises(ValueError, match="nothing would be left"):
        operators.Downsample(4, "box")(tf.ones((1, 1, 8, 1)))
    with pytest.raises(ValueError, match=r"size \(17, 17\) of images of size \(33, 33\)"):
        make(2).adjoint(images((17, 18)), image_shape=(2, 33, 33, 1))
    with pytest.raises(ValueError, match="no per-image data"):
        make(2)(images((8, 8)), images((8, 8)))

"""Downsampling against SciPy, its norm against matrices, and its sizes."""

import keras
import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from deq_keras import operators

MODES = {"circular": "wrap", "zero": "constant", "reflect": "mirror"}
RNG = np.random.default_rng(0)
KERNELS = {
    "gaussian": "gaussian",
    "none": None,
    "even": RNG.random((4, 3)),
    "signed": RNG.standard_normal((3, 5)),
}


def normal(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


def matrix(operator, size):
    pixels = int(np.prod(size))
    basis = tf.reshape(tf.eye(pixels, dtype=tf.float64), (pixels, *size, 1))
    return tf.reshape(operator(basis), (pixels, -1)).numpy().T


@pytest.mark.parametrize("padding", MODES)
@pytest.mark.parametrize("factor", [1, 2, 3, (2, 3)])
@pytest.mark.parametrize("method", ["direct", "fft"])
def test_formula_and_adjoint(padding, factor, method):
    kernel = normal(0, (4, 3))
    operator = operators.Downsample(factor, kernel, padding, method, dtype="float64")
    f, g = operator.factor
    for size in ((12, 18), (13, 11), (10, 7)):
        shape = (2, *size, 2)
        u = normal(1, shape)
        blurred = [
            [scipy.ndimage.convolve(plane, kernel, mode=MODES[padding]) for plane in image]
            for image in np.moveaxis(u, 3, 1)
        ]
        y = operator(u)
        np.testing.assert_allclose(y, np.moveaxis(blurred, 1, 3)[:, ::f, ::g], atol=1e-12)
        assert operator.measurement_shape(shape) == y.shape
        v = normal(2, y.shape)
        back = operator.adjoint(v, image_shape=shape)
        assert back.shape == shape
        assert np.sum(y * v) == pytest.approx(np.sum(u * back), rel=1e-11)
        bound = operator.bind(shape)
        twice = operator.adjoint(y, image_shape=shape)
        np.testing.assert_allclose(bound.normal(u), twice, atol=1e-11)


@pytest.mark.parametrize("padding", MODES)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("factor", [2, 3, (3, 2)])
def test_norm_is_a_bound(padding, kernel, factor):
    operator = operators.Downsample(factor, KERNELS[kernel], padding, dtype="float64")
    assert operator.certified
    anywhere = float(operator.operator_norm())
    for size in ((12, 12), (13, 14), (17, 11), (8, 15)):
        exact = np.linalg.norm(matrix(operator, size), 2)
        here = float(operator.operator_norm(image_shape=(None, *size, 1)))
        assert exact <= here * (1 + 1e-12)
        assert here <= anywhere * (1 + 1e-12)
        if kernel == "gaussian" and padding == "circular" and size == (12, 12):
            assert here <= 1.015 * exact
        if kernel == "none":
            assert here == pytest.approx(1)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_norm_of_the_mean_over_blocks_is_exact(factor):
    """A step size that forgot the decimation would be `factor ** 2` times too short."""
    operator = operators.Downsample(factor, operators.box_kernel(factor), dtype="float64")
    norm = operator.operator_norm(image_shape=(None, 4 * factor, 3 * factor, 1))
    assert float(norm) == pytest.approx(1 / factor, rel=1e-12)
    exact = np.linalg.norm(matrix(operator, (4 * factor, 3 * factor)), 2)
    assert float(norm) == pytest.approx(exact, rel=1e-12)


def test_norm_of_images_smaller_than_the_kernel():
    kernel = np.abs(normal(0, (7, 6)))
    operator = operators.Downsample(2, kernel, "circular", "fft", dtype="float64")

    @tf.function(autograph=False)
    def unknown(size):
        return operator.operator_norm(image_shape=(1, size[0], size[1], 1))

    for size in ((3, 4), (5, 12), (6, 3), (1, 1)):
        exact = np.linalg.norm(matrix(operator, size), 2)
        assert exact <= float(operator.operator_norm(image_shape=(1, *size, 1))) * (1 + 1e-12)
        assert exact <= float(operator.operator_norm()) * (1 + 1e-12)
        assert exact <= float(unknown(tf.constant(size))) * (1 + 1e-12)
    large = unknown(tf.constant((40, 40)))
    assert float(large) < 0.8 * float(operator.operator_norm())


def test_spectrum_and_diagonal():
    operator = operators.Downsample((2, 3), normal(0, (3, 4)), dtype="float64")
    shape = (1, 8, 9, 1)
    bound = operator.bind(shape)
    dense = matrix(operator, (8, 9))
    np.testing.assert_allclose(bound.diagonal().numpy().ravel(), np.sum(dense**2, 0), atol=1e-12)
    # On average over all shifts of the coarse grid K^T K is a convolution, that of the spectrum.
    blur = operator.blur.bind(shape).spectrum()
    np.testing.assert_allclose(bound.spectrum(), blur / 6, atol=1e-12)
    tiny = operators.Downsample(2, normal(0, (7, 7)), dtype="float64")
    assert tiny.bind((1, 4, 9, 1)).diagonal is None


def test_default_kernel_suppresses_what_aliases():
    operator = operators.Downsample(2)
    kernel = operator.blur.kernel.numpy()
    assert kernel.shape == (7, 7)
    assert kernel.sum() == pytest.approx(1, rel=1e-6)
    stripes = np.tile([1.0, -1.0], 16)[None, None, :, None] * np.ones((1, 32, 1, 1))
    assert np.abs(operator(stripes)).max() < 0.02
    assert operators.Downsample((1, 3)).blur.kernel.shape == (1, 11)


def test_sizes():
    operator = operators.Downsample(2)
    assert operator.measurement_shape((None, 33, None, 3)) == (None, 17, None, 3)
    assert operator.image_shape((None, 17, None, 3)) == (None, 34, None, 3)
    y = operator(tf.ones((1, 33, 34, 1)))
    assert operator.adjoint(y).shape == (1, 34, 34, 1)
    assert operator.adjoint(y, image_shape=(1, 33, 34, 1)).shape == (1, 33, 34, 1)
    stated = operators.Downsample(2, image_size=(33, 34))
    assert stated.adjoint(y).shape == (1, 33, 34, 1)
    with pytest.raises(ValueError, match="image_size=\\(33, 34\\)"):
        stated(tf.ones((1, 34, 34, 1)))
    for images in ((1, 32, 34, 1), (1, 35, 34, 1)):
        with pytest.raises(ValueError, match="expected measurements of images of shape"):
            operator.adjoint(y, image_shape=images)
    with pytest.raises(ValueError, match="expected measurements of images of shape"):
        stated.adjoint(tf.ones((1, 16, 17, 1)))


def test_gradients_of_the_kernel():
    kernel, direction = normal(0, (3, 4)), normal(1, (3, 4))
    u = normal(2, (2, 11, 10, 2))

    def loss(t):
        operator = operators.Downsample(
            2, kernel + t * direction, "reflect", trainable=True, dtype="float64"
        )
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(tf.sin(operator.bind(u.shape).normal(u)))
            value += tf.reduce_sum(operator(u) ** 2) + operator.operator_norm(None, u.shape)
        (weight,) = operator.trainable_weights
        return float(value), np.sum(tape.gradient(value, weight.value) * direction)

    h = 1e-5
    assert loss(0.0)[1] == pytest.approx((loss(h)[0] - loss(-h)[0]) / (2 * h), rel=1e-6)


@pytest.mark.parametrize("kernel", KERNELS)
def test_configuration_and_file(kernel, tmp_path):
    operator = operators.Downsample((2, 3), KERNELS[kernel], "zero", trainable=True)
    copy = operators.Downsample.from_config(operator.get_config())
    assert copy.get_config() == operator.get_config()
    model = keras.Sequential([keras.Input((13, 14, 1)), operator])
    assert model.output_shape == (None, 7, 5, 1)
    operator.blur.kernel.assign(operator.blur.kernel + 0.25)
    model.save(tmp_path / "model.keras")
    u = tf.cast(normal(1, (2, 13, 14, 1)), tf.float32)
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(u), model(u))


def test_saved_model_of_any_size(tmp_path):
    operator = operators.Downsample(2, padding="reflect")
    model = keras.Sequential([keras.Input((None, None, 1)), operator])
    assert model.output_shape == (None, None, None, 1)
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    for size in ((13, 14), (20, 9)):
        u = tf.cast(normal(1, (2, *size, 1)), tf.float32)
        np.testing.assert_allclose(loaded.serve(u), model(u), atol=1e-6)


def test_adjoint_in_a_graph_of_unknown_sizes():
    operator = operators.Downsample((3, 2), dtype="float64")
    signature = [tf.TensorSpec((None, None, None, 1), tf.float64), tf.TensorSpec((2,), tf.int32)]

    @tf.function(input_signature=signature, autograph=False)
    def back(v, size):
        shape = (tf.shape(v)[0], *tf.unstack(size), 1)
        return operator.adjoint(v, image_shape=shape), operator.adjoint(v)

    v = normal(1, (2, 5, 6, 1))
    for found, shape in zip(back(v, (13, 12)), ((2, 13, 12, 1), (2, 15, 12, 1)), strict=True):
        np.testing.assert_allclose(found, operator.adjoint(v, image_shape=shape), atol=1e-12)


def test_invalid_arguments():
    for factor in (0, 1.5, (2, 0), (1, 2, 3), "2", None):
        with pytest.raises(ValueError, match="factor"):
            operators.Downsample(factor)
    with pytest.raises(ValueError, match="image_size"):
        operators.Downsample(2, image_size=(0, 4))
    with pytest.raises(ValueError, match="'gaussian', an array or None"):
        operators.Downsample(2, kernel="gauss")
    with pytest.raises(ValueError, match="Did you mean 'zero'"):
        operators.Downsample(2, padding="zeros")
    with pytest.raises(ValueError, match="no per-image data"):
        operators.Downsample(2).call(tf.ones((1, 9, 9, 1)), tf.ones((1, 9, 9, 1)))
    with pytest.raises(ValueError, match="expected images of shape"):
        operators.Downsample(2).adjoint(tf.ones((9, 9)))

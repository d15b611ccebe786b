"""Undersampled Fourier transforms against NumPy, and masks of frequencies."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import operators

RNG = np.random.default_rng(0)
SIZES = ((7, 6), (6, 7), (5, 5), (4, 8))


def normal(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


def cnormal(seed, shape):
    return normal(seed, shape) + 1j * normal(seed + 1, shape)


def reference(u, mask):
    return mask * np.fft.fft2(u, axes=(1, 2), norm="ortho")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("of_images", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_formula_and_adjoint(size, of_images, channels):
    shape = (2, *size, channels)
    masks = normal(0, (2, *size, channels) if of_images else (1, *size, 1))
    operator = operators.FourierMask(None if of_images else masks, dtype="float64")
    data = masks if of_images else None
    u, v = normal(1, shape), cnormal(2, shape)
    y = operator(u, data)
    assert y.dtype == tf.complex128
    np.testing.assert_allclose(y, reference(u, masks), atol=1e-12)
    back = operator.adjoint(v, data)
    assert back.dtype == tf.float64
    expected = np.fft.ifft2(masks * v, axes=(1, 2), norm="ortho").real
    np.testing.assert_allclose(back, expected, atol=1e-12)
    assert np.sum(y * np.conj(v)).real == pytest.approx(np.sum(u * back), rel=1e-11)
    bound = operator.bind(shape, data)
    np.testing.assert_allclose(bound.normal(u), operator.adjoint(y, data), atol=1e-12)


@pytest.mark.parametrize("size", SIZES)
def test_spectrum_diagonal_and_norm(size):
    masks = normal(0, (2, *size, 1))
    operator = operators.FourierMask(dtype="float64")
    bound = operator.bind((2, *size, 1), masks)
    pixels = int(np.prod(size))
    basis = np.eye(pixels).reshape(pixels, *size, 1)
    norms = operator.operator_norm(masks)
    assert norms.shape == (2,)
    assert operator.certified
    for i in range(2):
        y = operator(basis, masks[i : i + 1]).numpy().reshape(pixels, -1)
        dense = np.concatenate([y.real, y.imag], 1).T
        np.testing.assert_allclose(bound.diagonal()[i], np.sum(dense**2, 0).mean(), atol=1e-12)
        assert np.ptp(np.sum(dense**2, 0)) < 1e-12
        response = (dense.T @ dense)[0].reshape(size)
        np.testing.assert_allclose(bound.spectrum()[i], np.fft.rfft2(response), atol=1e-12)
        exact = np.linalg.norm(dense, 2)
        assert exact <= float(norms[i]) * (1 + 1e-12)
        assert exact == pytest.approx(np.sqrt(bound.spectrum()[i].numpy().max()), rel=1e-12)
    fixed = operators.FourierMask(masks[0, ..., 0], dtype="float64")
    assert float(fixed.operator_norm()) == np.abs(masks[0]).max()
    assert float(fixed.smallest_singular_value()) == np.abs(masks[0]).min()
    full = operators.FourierMask(np.ones(size), dtype="float64")
    u = normal(1, (2, *size, 1))
    np.testing.assert_allclose(full.adjoint(full(u)), u, atol=1e-12)


def test_masks_of_columns_are_broadcast():
    columns = RNG.random((2, 1, 6, 1))
    u = normal(1, (2, 5, 6, 3))
    operator = operators.FourierMask(dtype="float64")
    y = operator(u, columns)
    np.testing.assert_allclose(y, reference(u, columns), atol=1e-12)
    bound = operator.bind(u.shape, columns)
    np.testing.assert_allclose(bound.normal(u), operator.adjoint(y, columns), atol=1e-12)
    assert bound.spectrum().shape == (2, 5, 4)


@pytest.mark.parametrize("dtype", ["float32", "mixed_float16"])
def test_other_precisions(dtype):
    mask = RNG.random((6, 7))
    policy = keras.DTypePolicy(dtype)
    operator = operators.FourierMask(mask, dtype=policy)
    u = tf.cast(normal(1, (2, 6, 7, 1)), policy.compute_dtype)
    atol = 5e-3 if "16" in dtype else 1e-5
    y = operator(u)
    assert y.dtype == tf.complex64
    np.testing.assert_allclose(
        y, reference(u.numpy().astype(float), mask[None, ..., None]), atol=atol
    )
    back, bound = operator.adjoint(y), operator.bind(u.shape)
    assert back.dtype == bound.normal(u).dtype == bound.adjoint(y).dtype == u.dtype
    np.testing.assert_allclose(bound.normal(u), back, atol=atol)


def test_what_is_not_measured_may_be_anything():
    mask = (RNG.random((6, 7)) < 0.5).astype(float)
    operator = operators.FourierMask(mask, dtype="float64")
    y = operator(normal(1, (1, 6, 7, 1)))
    unknown = (mask == 0)[None, ..., None]
    for nothing in (np.nan, np.inf, 1j * np.nan):
        spoilt = np.where(unknown, nothing, y)
        np.testing.assert_array_equal(operator.adjoint(spoilt), operator.adjoint(y))
    spoilt = np.where(~unknown, np.nan, y)
    assert np.isnan(operator.adjoint(spoilt)).all()


def test_gradients_with_respect_to_masks_and_images():
    shape = (2, 5, 6, 2)
    masks, change = normal(0, (2, 5, 6, 1)), normal(1, (2, 5, 6, 1))
    masks[0, 1] = 0  # also where the mask is zero
    u, move, v = normal(2, shape), normal(3, shape), cnormal(4, shape)
    operator = operators.FourierMask(dtype="float64")

    def loss(t):
        m, x = tf.constant(masks + t * change), tf.constant(u + t * move)
        with tf.GradientTape() as tape:
            tape.watch([m, x])
            bound = operator.bind(shape, m)
            value = tf.reduce_sum(tf.sin(bound.normal(x)))
            value += tf.reduce_sum(tf.abs(bound.forward(x)) ** 2 * u)
            value += tf.reduce_sum(bound.adjoint(tf.constant(v)) ** 3)
        by_mask, by_image = tape.gradient(value, [m, x])
        return float(value), np.sum(by_mask * change) + np.sum(by_image * move)

    h = 1e-5
    assert loss(0.0)[1] == pytest.approx((loss(h)[0] - loss(-h)[0]) / (2 * h), rel=1e-7)


def test_symbolic_model_is_complex(tmp_path):
    images, masks = keras.Input((None, None, 1)), keras.Input((None, None, 1))
    output = operators.FourierMask()(images, masks)
    assert (output.shape, output.dtype) == ((None, None, None, 1), "complex64")
    model = keras.Model([images, masks], output)
    model.save(tmp_path / "model.keras")
    u = tf.cast(normal(1, (2, 6, 7, 1)), tf.float32)
    m = tf.cast(RNG.random((2, 6, 7, 1)), tf.float32)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded([u, m]), model([u, m]))


@keras.saving.register_keras_serializable(package="test")
class ZeroFilled(keras.layers.Layer):
    """`K^T y` of complex measurements: what a reconstruction begins with."""

    def build(self, y_shape, masks_shape):
        self.built = True

    def __init__(self, operator, **kwargs):
        super().__init__(**kwargs)
        self.operator = operator

    def call(self, y, masks):
        return self.operator.adjoint(y, masks)

    def compute_output_spec(self, y, masks):
        return keras.KerasTensor(y.shape, self.compute_dtype)

    def get_config(self):
        operator = keras.saving.serialize_keras_object(self.operator)
        return {**super().get_config(), "operator": operator}

    @classmethod
    def from_config(cls, config):
        operator = keras.saving.deserialize_keras_object(config.pop("operator"))
        return cls(operator, **config)


def test_exported_model_takes_complex_measurements(tmp_path):
    y = keras.Input((None, None, 1), dtype="complex64")
    masks = keras.Input((None, None, 1))
    model = keras.Model([y, masks], ZeroFilled(operators.FourierMask())(y, masks))
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(str(tmp_path / "model"))
    for size in ((6, 7), (9, 4)):
        v = tf.cast(cnormal(1, (2, *size, 1)), tf.complex64)
        m = tf.cast(RNG.random((2, *size, 1)), tf.float32)
        np.testing.assert_allclose(loaded.serve([v, m]), model([v, m]), atol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match="to be real. Received complex"):
        operators.FourierMask(np.ones((4, 5)) * 1j)
    with pytest.raises(ValueError, match="finite"):
        operators.FourierMask([[1.0, np.nan]])
    with pytest.raises(ValueError, match="expected real masks. Received complex64"):
        operators.FourierMask().call(tf.ones((1, 4, 5, 1)), tf.ones((1, 4, 5, 1), tf.complex64))
    with pytest.raises(ValueError, match="This FourierMask has no mask"):
        operators.FourierMask().call(tf.ones((1, 4, 5, 1)))
    with pytest.raises(ValueError, match="can be broadcast"):
        operators.FourierMask(np.ones((4, 5))).adjoint(tf.ones((1, 4, 4, 1), tf.complex64))


@pytest.mark.parametrize("shape", [(16, 60), (16, 60, 2), (3, 16, 60, 1)])
def test_cartesian_mask(shape):
    mask = operators.cartesian_mask(shape, acceleration=4, center_fraction=0.1, seed=2)
    assert (mask.shape, mask.dtype) == (shape, np.float32)
    rows = mask if len(shape) < 4 else np.moveaxis(mask, 0, 2)
    np.testing.assert_array_equal(rows, np.broadcast_to(rows[:1], rows.shape))
    low = np.abs(np.fft.fftfreq(60)) * 60 < 3
    assert np.moveaxis(rows, 1, 0)[low].all()
    np.testing.assert_array_equal(
        mask, operators.cartesian_mask(shape, acceleration=4, center_fraction=0.1, seed=2)
    )
    if len(shape) == 4:
        assert np.any(mask[0] != mask[1])


def test_acceleration():
    mask = operators.cartesian_mask((200, 3, 64, 1), acceleration=4.0, center_fraction=0.08)
    assert mask.mean() == pytest.approx(1 / 4, abs=0.02)
    assert operators.cartesian_mask((3, 64), acceleration=1).all()
    none = operators.cartesian_mask((3, 64), acceleration=1e9, center_fraction=0)
    assert not none.any()
    only = operators.cartesian_mask((3, 5), acceleration=1e9, center_fraction=0.2)
    np.testing.assert_array_equal(only, np.broadcast_to([1, 0, 0, 0, 0], (3, 5)))


@pytest.mark.parametrize("size", [(32, 32), (33, 20), (1, 7)])
def test_radial_mask(size):
    mask = operators.radial_mask(size, spokes=5)
    assert (mask.shape, mask.dtype) == (size, np.float32)
    assert mask[0, 0] == 1
    assert 0 < mask.mean() <= 1
    y, x = (np.fft.fftfreq(n) for n in size)
    inside = np.hypot(*np.meshgrid(y, x, indexing="ij")) < 0.45
    many = operators.radial_mask(size, spokes=400)
    assert many[inside].all()
    assert not many[np.hypot(*np.meshgrid(y, x, indexing="ij")) > 0.6].any()
    batch = operators.radial_mask((2, *size, 3), spokes=2)
    np.testing.assert_array_equal(batch[..., 0], batch[..., 2])


def test_invalid_arguments_of_masks():
    with pytest.raises(ValueError, match="at least 1"):
        operators.cartesian_mask((4, 5), acceleration=0.5)
    with pytest.raises(ValueError, match="center_fraction"):
        operators.cartesian_mask((4, 5), center_fraction=2)
    with pytest.raises(ValueError, match="spokes"):
        operators.radial_mask((4, 5), spokes=0)
    for function in (operators.cartesian_mask, operators.radial_mask):
        with pytest.raises(ValueError, match="Expected `shape`"):
            function((4,))

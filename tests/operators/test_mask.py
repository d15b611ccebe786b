"""Masks: their values, how they fit images, and their derivatives."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import operators

SHAPES = ((9, 8), (9, 8, 3), (2, 9, 8, 3))


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (1, 4, 5, 3)])
def test_fixed_mask(shape):
    mask = np.random.default_rng(0).random(shape)
    u = np.random.default_rng(1).random((2, 4, 5, 3))
    broadcast = mask[..., None] if mask.ndim == 2 else mask
    operator = operators.Mask(mask, dtype="float64")
    np.testing.assert_array_equal(operator(u), broadcast * u)
    assert float(operator.operator_norm()) == mask.max()
    assert float(operator.smallest_singular_value()) == mask.min()
    assert np.shape(operator.get_config()["mask"]) == shape


def test_negative_weights():
    operator = operators.Mask([[-3.0, 2.0]], dtype="float64")
    assert float(operator.operator_norm()) == 3
    assert float(operator.smallest_singular_value()) == 2


@pytest.mark.parametrize("dtype", ["float64", "int32", "bool"])
def test_masks_of_the_images(dtype):
    mask = tf.cast(operators.random_mask((2, 4, 5, 1), keep=0.5), dtype)
    u = np.random.default_rng(1).random((2, 4, 5, 3))
    operator = operators.Mask(dtype="float64")
    np.testing.assert_array_equal(operator(u, mask), tf.cast(mask, "float64") * u)
    np.testing.assert_array_equal(operator.adjoint(u, mask), operator(u, mask))
    if dtype == "float64":
        # Each image has its own norm, so that its step size does not depend on its companions.
        scaled = tf.constant([-2.0, 0.5], dtype)[:, None, None, None] * mask
        np.testing.assert_array_equal(operator.operator_norm(scaled), [2, 0.5])
    assert float(operator.smallest_singular_value()) == 0


def test_gradient_with_respect_to_the_mask():
    mask, direction = np.random.default_rng(0).random((2, 4, 5))
    u = np.random.default_rng(1).random((2, 4, 5, 3))

    def loss(mask):
        operator = operators.Mask(mask, trainable=True, dtype="float64")
        with tf.GradientTape() as tape:
            value = (
                tf.reduce_sum(tf.sin(operator.bind(u.shape).normal(u))) + operator.operator_norm()
            )
        return float(value), tape.gradient(value, operator.mask)[0, ..., 0]

    difference = loss(mask + 1e-6 * direction)[0] - loss(mask - 1e-6 * direction)[0]
    assert np.sum(loss(mask)[1] * direction) == pytest.approx(difference / 2e-6, rel=1e-7)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones(4), "shape"),
        (np.ones((0, 4)), "not empty"),
        (np.ones((2, 4, 5, 1)), "for each image"),
        ([[1.0, np.nan]], "finite"),
        ([[1.0, np.inf]], "finite"),
    ],
)
def test_invalid_masks(mask, message):
    with pytest.raises(ValueError, match=message):
        operators.Mask(mask)


def test_mask_of_another_size():
    with pytest.raises(ValueError, match="can be broadcast"):
        operators.Mask(np.ones((4, 5)))(tf.ones((2, 5, 5, 1)))
    with pytest.raises(ValueError, match="can be broadcast"):
        operators.Mask()(tf.ones((2, 5, 5, 1)), tf.ones((2, 5, 4, 1)))
    with pytest.raises(ValueError, match="can be broadcast"):
        operators.Mask().adjoint(tf.ones((2, 5, 5, 1)), tf.ones((5, 5)))
    with pytest.raises(ValueError, match="Pass them"):
        operators.Mask().operator_norm()


@pytest.mark.parametrize("shape", SHAPES)
def test_random_mask(shape):
    mask = operators.random_mask(shape, 0.5, seed=3)
    assert mask.shape == shape
    assert mask.dtype == np.float32
    assert set(np.unique(mask)) == {0, 1}
    if len(shape) > 2:
        np.testing.assert_array_equal(mask, np.broadcast_to(mask[..., :1], shape))
    np.testing.assert_array_equal(mask, operators.random_mask(shape, 0.5, seed=3))
    assert np.any(mask != operators.random_mask(shape, 0.5, seed=4))


def test_random_mask_keeps_its_share():
    mask = operators.random_mask((200, 300), 0.3)
    assert mask.mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.3 * 0.7 / mask.size))
    assert operators.random_mask((9, 9), 1).all()
    assert not operators.random_mask((9, 9), 0).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_centre_mask(shape):
    mask = operators.centre_mask(shape, 0.5)
    assert mask.shape == shape
    plane = mask if len(shape) == 2 else mask[..., 0].reshape((-1, 9, 8))[0]
    expected = np.ones((9, 8))
    expected[2:6, 2:6] = 0
    np.testing.assert_array_equal(plane, expected)


@pytest.mark.parametrize(("position", "first"), [(0, 0), (0.5, 3), (1, 6)])
def test_band_mask(position, first):
    mask = operators.band_mask((9, 8), 1 / 3, position)
    np.testing.assert_array_equal(np.flatnonzero(mask[:, 0] == 0), np.arange(first, first + 3))
    np.testing.assert_array_equal(mask, np.broadcast_to(mask[:, :1], (9, 8)))


def test_invalid_arguments_of_masks():
    for function in (operators.random_mask, operators.centre_mask, operators.band_mask):
        for value in (-0.1, 1.1, np.nan):
            with pytest.raises(ValueError, match="in \\[0, 1\\]"):
                function((4, 5), value)
        for shape in ((4,), (4, 0), (1, 1, 4, 5, 1)):
            with pytest.raises(ValueError, match="Expected `shape`"):
                function(shape, 0.5)

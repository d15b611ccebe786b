"""What operators say about their spectrum, against what they do to a single bright pixel."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import operators


def _impulse(shape, at=(0, 0)):
    image = np.zeros(shape)
    image[:, at[0], at[1]] = 1.0
    return tf.constant(image)


@pytest.mark.parametrize("size", [(8, 10), (7, 9)])
@pytest.mark.parametrize("method", ["fft", "direct"])
@pytest.mark.parametrize("side", [3, 4])
def test_of_a_circular_blur(size, method, side):
    kernel = np.random.default_rng(0).normal(size=(side, 5))
    blur = operators.Blur(kernel, padding="circular", method=method, dtype="float64")
    impulse = _impulse((1, *size, 1))
    response = blur.bind(impulse.shape).normal(impulse).numpy()[0, :, :, 0]
    spectrum = blur.bind(impulse.shape).spectrum()
    np.testing.assert_allclose(spectrum[0], np.fft.rfft2(response), atol=1e-12)


@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_of_other_blurs_is_right_inside(padding):
    blur = operators.GaussianBlur(3, 1.0, padding=padding, dtype="float64")
    impulse = _impulse((1, 12, 14, 1), (6, 7))
    response = blur.bind(impulse.shape).normal(impulse).numpy()[0, :, :, 0]
    spectrum = blur.bind(impulse.shape).spectrum()[0]
    expected = np.fft.rfft2(np.roll(response, (-6, -7), (0, 1)))
    np.testing.assert_allclose(spectrum, expected, atol=1e-12)


def test_of_the_identity():
    spectrum = operators.Identity().bind((2, 6, 7, 3)).spectrum()
    np.testing.assert_array_equal(spectrum, np.ones((1, 6, 4)))


def test_of_masks_is_their_mean():
    masks = np.random.default_rng(0).uniform(size=(2, 6, 7, 1))
    images = tf.ones((2, 6, 7, 3), tf.float64)
    spectrum = operators.Mask(dtype="float64").bind(images.shape, tf.constant(masks)).spectrum()
    assert spectrum.shape == (2, 6, 4)
    np.testing.assert_allclose(spectrum[:, 1, 2], np.mean(masks**2, axis=(1, 2, 3)))
    assert np.ptp(spectrum.numpy(), axis=(1, 2)).max() == 0
    one = operators.Mask(masks[0, :, :, 0], dtype="float64").bind(images.shape).spectrum()
    assert one.shape == (1, 6, 4)


def test_of_an_operator_that_says_nothing():
    class Negative(operators.LinearOperator):
        def call(self, u, data=None):
            return -u

    bound = Negative().bind((1, 4, 4, 1))
    assert bound.spectrum is None
    assert bound.diagonal is None


@pytest.mark.parametrize(
    "operator",
    [
        operators.Identity(dtype="float64"),
        operators.Blur(np.arange(6.0).reshape(2, 3), dtype="float64"),
        operators.Mask(np.arange(20.0).reshape(4, 5), dtype="float64"),
    ],
)
def test_diagonal(operator):
    pixels = tf.reshape(tf.eye(20, dtype=tf.float64), (20, 4, 5, 1))
    dense = operator.bind(pixels.shape).normal(pixels).numpy().reshape(20, 20)
    found = np.broadcast_to(operator.bind(pixels[:1].shape).diagonal(), (1, 4, 5, 1))
    np.testing.assert_allclose(found.ravel(), np.diagonal(dense), atol=1e-12)

"""Blurs against SciPy, the two methods against each other, and derivatives."""

from itertools import product

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from deq_keras import operators
from tests.variants import covering

MODES = {"circular": "wrap", "zero": "constant", "reflect": "mirror"}
KERNELS = ((1, 1), (3, 3), (4, 4), (5, 2), (2, 3), (1, 4), (9, 8))


def normal(seed, shape):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("method", ["direct", "fft", "auto"])
@pytest.mark.parametrize("padding", MODES)
@pytest.mark.parametrize("kernel", KERNELS)
def test_scipy(kernel, padding, method):
    kernel = normal(0, kernel)
    blur = operators.Blur(kernel, padding, method, dtype="float64")
    for size in ((10, 13), (9, 12)):
        u = normal(1, (2, *size, 3))
        expected = [
            [scipy.ndimage.convolve(plane, kernel, mode=MODES[padding]) for plane in image]
            for image in np.moveaxis(u, 3, 1)
        ]
        np.testing.assert_allclose(blur(u), np.moveaxis(expected, 1, 3), atol=1e-12)


@pytest.mark.parametrize("padding", MODES)
@pytest.mark.parametrize("kernel", [(3, 3), (4, 5), (9, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_methods_agree(kernel, padding, channels):
    kernel = normal(0, kernel)
    direct, fft = (operators.Blur(kernel, padding, m, dtype="float64") for m in ("direct", "fft"))
    for size in ((10, 13), (9, 12)):
        u = normal(1, (2, *size, channels))
        np.testing.assert_allclose(direct(u), fft(u), atol=1e-12)
        np.testing.assert_allclose(direct.adjoint(u), fft.adjoint(u), atol=1e-12)
        np.testing.assert_allclose(
            direct.bind(u.shape).normal(u), fft.bind(u.shape).normal(u), atol=1e-11
        )


def test_kernel_larger_than_a_periodic_image():
    """A period shorter than the kernel: several of its pixels meet the same pixel."""
    kernel = normal(0, (7, 8))
    u = normal(1, (1, 3, 5, 1))
    blur = operators.Blur(kernel, dtype="float64")
    expected = scipy.ndimage.convolve(u[0, ..., 0], kernel, mode="wrap")
    np.testing.assert_allclose(blur(u)[0, ..., 0], expected, atol=1e-12)
    v = normal(2, u.shape)
    assert np.sum(blur(u) * v) == pytest.approx(np.sum(u * blur.adjoint(v)), rel=1e-12)


def test_adjoint_flips_the_kernel():
    kernel = normal(0, (3, 5))
    u = normal(1, (1, 8, 9, 1))
    blur = operators.Blur(kernel, "zero", dtype="float64")
    flipped = operators.Blur(kernel[::-1, ::-1], "zero", dtype="float64")
    np.testing.assert_allclose(blur.adjoint(u), flipped(u), atol=1e-12)
    assert np.abs(blur.adjoint(u) - operators.Blur(kernel.T, "zero", dtype="float64")(u)).max() > 1


@pytest.mark.parametrize(
    ("kernel", "method", "padding"), covering(product([(3, 4), (8, 9)], ["direct", "fft"], MODES))
)
def test_gradients(padding, method, kernel):
    """With respect to the kernel and the image, against central differences."""
    kernel, direction = normal(0, kernel), normal(1, kernel)
    u, change = normal(2, (2, 11, 10, 2)), normal(3, (2, 11, 10, 2))

    def loss(t):
        blur = operators.Blur(kernel + t * direction, padding, method, True, dtype="float64")
        image = tf.constant(u + t * change)
        with tf.GradientTape() as tape:
            tape.watch(image)
            value = tf.reduce_sum(tf.sin(blur.bind(image.shape).normal(image)))
            value += tf.reduce_sum(blur(image) ** 2 * u) + tf.reduce_sum(blur.adjoint(u) ** 3)
            value += blur.operator_norm()
        by_kernel, by_image = tape.gradient(value, (blur.kernel.value, image))
        return float(value), np.sum(by_kernel * direction) + np.sum(by_image * change)

    slope = loss(0.0)[1]
    steps = {h: (loss(h)[0] - loss(-h)[0]) / (2 * h) for h in (1e-4, 5e-5)}
    extrapolated = (4 * steps[5e-5] - steps[1e-4]) / 3
    assert slope == pytest.approx(extrapolated, rel=1e-6)


def test_norm_of_an_average():
    """A constant image shows that it cannot be smaller; no step size is given away."""
    blur = operators.GaussianBlur(9, 1.6, dtype="float64")
    assert float(blur.operator_norm()) == pytest.approx(1, abs=1e-13)


def test_named_blurs_have_their_kernels():
    for blur, kernel in (
        (operators.GaussianBlur((5, 3), 1.2), operators.gaussian_kernel((5, 3), 1.2)),
        (operators.BoxBlur(4), operators.box_kernel(4)),
        (operators.DiagonalBlur(3), operators.diagonal_kernel(3)),
        (operators.MotionBlur(5, 20.0), operators.motion_kernel(5, 20.0)),
    ):
        np.testing.assert_allclose(blur.kernel, kernel, rtol=1e-6)
        assert "kernel" not in blur.get_config()


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        (np.ones(3), "shape"),
        (np.ones((3, 3, 1)), "shape"),
        (np.ones((0, 3)), "not empty"),
        ([[np.nan]], "finite"),
        ([[np.inf]], "finite"),
        ([[1j]], "to be real"),
    ],
)
def test_invalid_kernels(kernel, message):
    with pytest.raises(ValueError, match=message):
        operators.Blur(kernel)


def test_unknown_options():
    with pytest.raises(ValueError, match="Did you mean 'circular'"):
        operators.Blur([[1.0]], padding="circle")
    with pytest.raises(ValueError, match="Expected `padding`"):
        operators.Blur([[1.0]], padding="valid")
    with pytest.raises(ValueError, match="Did you mean 'fft'"):
        operators.Blur([[1.0]], method="FFT2")


@pytest.mark.parametrize("padding", ["circular", "reflect"])
def test_image_smaller_than_the_kernel(padding):
    blur = operators.BoxBlur(9, padding, "direct")
    with pytest.raises(ValueError, match="large enough"):
        blur(tf.ones((1, 3, 20, 1)))

"""The convolutions: adjoints, derivatives of any order, and bounds that hold."""

from itertools import product

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import convolution
from deq_keras.convolution import norm_bounds
from tests.variants import covering

PADDINGS = convolution.PADDINGS
SIZES = ((9, 9), (8, 10), (13, 6))
KERNELS = ((1, 1), (3, 3), (4, 4), (5, 2), (2, 3))


def normal(seed, shape, dtype=tf.float64):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape), dtype)


def inner(a, b):
    return float(tf.reduce_sum(a * b))


def dense(function, shape):
    """The matrix of a linear map of images of `shape = (height, width, channels)`."""
    basis = tf.reshape(tf.eye(int(np.prod(shape)), dtype=tf.float64), (-1, *shape))
    image = function(basis)
    return tf.reshape(image, (image.shape[0], -1)).numpy().T


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("sizes", [((0, 0), (0, 0)), ((2, 1), (0, 3)), ((4, 4), (4, 4))])
def test_pad_is_that_of_numpy(padding, sizes):
    u = normal(0, (2, 5, 7, 2))
    mode = {"valid": None, "zero": "constant", "circular": "wrap", "reflect": "reflect"}[padding]
    expected = u if mode is None else np.pad(u, ((0, 0), *sizes, (0, 0)), mode)
    np.testing.assert_array_equal(convolution.pad(u, sizes, padding), expected)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("sizes", [((0, 0), (0, 0)), ((2, 1), (0, 3)), ((4, 4), (4, 4))])
@pytest.mark.parametrize("size", [(5, 5), (6, 9)])
def test_pad_adjoint(padding, sizes, size):
    u = normal(0, (2, *size, 2))
    v = normal(1, convolution.pad(u, sizes, padding).shape)
    forward = inner(convolution.pad(u, sizes, padding), v)
    assert inner(u, convolution.pad_adjoint(v, sizes, padding)) == pytest.approx(forward, rel=1e-12)


@pytest.mark.parametrize("size", [(5, 5), (6, 9), (20, 30)])
@pytest.mark.parametrize("sizes", [((2, 1), (0, 3)), ((4, 4), (4, 4)), ((0, 0), (2, 0))])
def test_mirrored_pixels_are_added_at_any_size(size, sizes):
    """Where sizes are not known, and where pixels are near two borders."""
    pads = [[0, 0], *map(list, sizes), [0, 0]]
    height, width = (n + sum(pad) for n, pad in zip(size, sizes, strict=True))
    v = normal(0, (2, height, width, 3))
    expected = tf.raw_ops.MirrorPadGrad(input=v, paddings=pads, mode="REFLECT")
    unknown = tf.function(
        lambda v: convolution.pad_adjoint(v, sizes, "reflect"),
        input_signature=[tf.TensorSpec((None, None, None, 3), tf.float64)],
        autograph=False,
    )
    for function in (unknown, lambda v: convolution.pad_adjoint(v, sizes, "reflect")):
        np.testing.assert_allclose(function(v), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding", PADDINGS)
def test_derivatives_of_padding(padding):
    sizes = ((2, 1), (0, 3))
    u, v = normal(0, (2, 5, 7, 1)), normal(1, (2, 5, 7, 1))
    with tf.GradientTape() as outer:
        outer.watch(u)
        with tf.GradientTape() as tape:
            tape.watch(u)
            cubes = tf.reduce_sum(convolution.pad(u, sizes, padding) ** 3)
        gradient = tape.gradient(cubes, u)
        product = tf.reduce_sum(gradient * v)
    padded = convolution.pad(u, sizes, padding)
    np.testing.assert_allclose(gradient, convolution.pad_adjoint(3 * padded**2, sizes, padding))
    hessian = 6 * padded * convolution.pad(v, sizes, padding)
    expected = convolution.pad_adjoint(hessian, sizes, padding)
    np.testing.assert_allclose(outer.gradient(product, u), expected)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", KERNELS)
def test_correlate_is_its_formula(padding, kernel):
    u, filters = normal(0, (2, 7, 6, 2)), normal(1, (*kernel, 2, 3))
    (top, bottom), (left, right) = convolution.same_sizes(filters)
    mode = {"valid": None, "zero": "constant", "circular": "wrap", "reflect": "reflect"}[padding]
    pads = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = u.numpy() if mode is None else np.pad(u, pads, mode)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, (1, 2))
    expected = np.einsum("byxcij,ijcf->byxf", windows, filters)
    result = convolution.correlate(u, filters, padding)
    np.testing.assert_allclose(result, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("channels", [1, 2, 3])
def test_correlate_adjoint(padding, kernel, size, channels):
    filters = normal(1, (*kernel, channels, 2))
    u = normal(0, (2, *size, channels))
    image = convolution.correlate(u, filters, padding)
    v = normal(2, image.shape)
    back = convolution.correlate_adjoint(v, filters, padding)
    assert back.shape == u.shape
    assert inner(u, back) == pytest.approx(inner(image, v), rel=1e-11, abs=1e-11)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", [(11, 11), (8, 9), (5, 7)])
@pytest.mark.parametrize("channels", [(1, 1), (1, 2), (3, 3), (2, 5), (1, 48)])
@pytest.mark.parametrize("dtype", [tf.float32, tf.float64])
def test_blocks_compute_the_same(padding, kernel, channels, dtype):
    """Few output channels, or input channels of the adjoint, are computed in blocks."""
    filters = normal(1, (*kernel, *channels), dtype)
    u = normal(0, (2, 17, 14, channels[0]), dtype)
    padded = convolution.pad(u, convolution.same_sizes(filters), padding)
    with tf.GradientTape() as tape:
        tape.watch(u)
        padded = convolution.pad(u, convolution.same_sizes(filters), padding)
        expected = tf.nn.conv2d(padded, filters, 1, "VALID")
    result = convolution.correlate(u, filters, padding)
    v = normal(2, result.shape, dtype)
    back = convolution.correlate_adjoint(v, filters, padding)
    atol = 100 * dtype.as_numpy_dtype(np.finfo(dtype.as_numpy_dtype).eps) * np.prod(filters.shape)
    np.testing.assert_allclose(result, expected, atol=atol)
    np.testing.assert_allclose(back, tape.gradient(expected, u, v), atol=atol)


@pytest.mark.parametrize("padding", PADDINGS)
def test_unknown_sizes(padding):
    filters = normal(1, (9, 8, 1, 2))
    signature = [tf.TensorSpec((None, None, None, n), tf.float64) for n in (1, 2)]

    @tf.function(input_signature=signature, autograph=False)
    def both(u, v):
        return (
            convolution.correlate(u, filters, padding),
            convolution.correlate_adjoint(v, filters, padding),
        )

    u = normal(0, (2, 17, 14, 1))
    image = convolution.correlate(u, filters, padding)
    result, back = both(u, image)
    np.testing.assert_allclose(result, image, atol=1e-12)
    expected = convolution.correlate_adjoint(image, filters, padding)
    np.testing.assert_allclose(back, expected, atol=1e-12)


def jet(function, u, filters, directions):
    """Value, gradients and products of Hessian and direction of `sum(sin(function))`."""
    with tf.GradientTape() as outer:
        outer.watch((u, filters))
        with tf.GradientTape() as tape:
            tape.watch((u, filters))
            value = tf.reduce_sum(tf.sin(function(u, filters)))
        gradients = tape.gradient(value, (u, filters))
        pairing = sum(tf.reduce_sum(g * d) for g, d in zip(gradients, directions, strict=True))
    return [value, *gradients, *outer.gradient(pairing, (u, filters))]


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("nested", [False, True])
def test_derivatives_are_those_of_tensorflow(padding, nested):
    def correlate(u, filters):
        return convolution.correlate(u, filters, padding)

    def plain(u, filters):
        padded = convolution.pad(u, convolution.same_sizes(filters), padding)
        return tf.nn.conv2d(padded, filters, 1, "VALID")

    def adjoint(v, filters):
        return convolution.correlate_adjoint(v, filters, padding)

    def plain_adjoint(v, filters):
        grown = [7, 6] if padding == "valid" else [0, 0]
        shape = (2, v.shape[1] + grown[0], v.shape[2] + grown[1], 1)
        with tf.GradientTape() as tape:
            u = tf.zeros(shape, v.dtype)
            tape.watch(u)
            image = plain(u, filters)
        return tape.gradient(image, u, v)

    for ours, theirs, channels in ((correlate, plain, 1), (adjoint, plain_adjoint, 2)):
        u, filters = normal(0, (2, 12, 11, channels)), normal(1, (8, 7, 1, 2))
        directions = normal(2, u.shape), normal(3, filters.shape)
        ours = tf.function(ours, autograph=False) if nested else ours
        result, expected = (jet(f, u, filters, directions) for f in (ours, theirs))
        for a, b in zip(result, expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("width", [6, 7])
@pytest.mark.parametrize("channels", [1, 3])
def test_filter_spectrum(width, channels):
    kernel = normal(1, (5, width))
    u = normal(0, (2, 5, width, channels))

    def ours(u, kernel):
        return convolution.filter_spectrum(u, tf.signal.rfft2d(kernel))

    def theirs(u, kernel):
        shifts = [(i, j) for i in range(5) for j in range(width)]
        return sum(kernel[i, j] * tf.roll(u, (i, j), (1, 2)) for i, j in shifts)

    directions = normal(2, u.shape), normal(3, kernel.shape)
    for a, b in zip(*(jet(f, u, kernel, directions) for f in (ours, theirs)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (4, 3), (2, 5), (1, 4)])
@pytest.mark.parametrize("channels", [(1, 1), (1, 3), (3, 2)])
@pytest.mark.parametrize("positive", [False, True])
def test_norm_bound_is_a_bound(padding, kernel, channels, positive):
    filters = normal(5, (*kernel, *channels))
    filters = tf.abs(filters) if positive else filters
    bound = float(convolution.norm_bound(filters, padding))
    for size in ((5, 5), (6, 8)):
        matrix = dense(lambda u: convolution.correlate(u, filters, padding), (*size, channels[0]))
        assert np.linalg.norm(matrix, 2) <= bound * (1 + 1e-12)


@pytest.mark.parametrize(
    ("channels", "kernel"), covering(product([(1, 1), (1, 8), (3, 4)], [(3, 3), (4, 3), (7, 7)]))
)
def test_norm_bound_is_tight(kernel, channels):
    """The largest singular value on a fine grid of frequencies is that of a large image."""
    filters = normal(6, (*kernel, *channels)).numpy()
    spectrum = np.fft.fft2(filters, (256, 256), (0, 1))
    exact = np.linalg.norm(spectrum, 2, (2, 3)).max()
    for padding in ("valid", "zero", "circular"):
        bound = float(convolution.norm_bound(filters, padding))
        assert exact <= bound <= 1.03 * exact


@pytest.mark.parametrize("padding", ["valid", "zero", "circular"])
def test_norm_bound_of_an_average_is_one(padding):
    filters = tf.fill((5, 3, 1, 1), tf.constant(1 / 15, tf.float64))
    assert float(convolution.norm_bound(filters, padding)) == pytest.approx(1, abs=1e-14)


def test_column_sums_of_reflection_are_attained():
    """The Schur bound counts exactly how often a pixel is used, over all small sizes."""
    for kernel in ((3, 4), (5, 2), (1, 3)):
        filters = tf.abs(normal(7, (*kernel, 1, 1)))
        sums = [
            dense(lambda u, f=filters: convolution.correlate(u, f, "reflect"), (h, w, 1))
            .sum(0)
            .max()
            for h in range(max(kernel[0] // 2 + 1, 1), 9)
            for w in range(max(kernel[1] // 2 + 1, 1), 9)
        ]
        rows = float(tf.reduce_sum(filters))
        bound = float(norm_bounds._schur_bound(filters, "reflect"))
        assert bound == pytest.approx(rows * max(sums), rel=1e-12)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("channels", [1, 2])
def test_gradient_of_norm_bound(padding, channels):
    filters, direction = normal(8, (3, 4, channels, 2)), normal(9, (3, 4, channels, 2))
    with tf.GradientTape() as tape:
        tape.watch(filters)
        bound = convolution.norm_bound(filters, padding)
    slope = inner(tape.gradient(bound, filters), direction)
    ahead, behind = (
        convolution.norm_bound(filters + t * direction, padding) for t in (1e-6, -1e-6)
    )
    assert slope == pytest.approx(float(ahead - behind) / 2e-6, rel=1e-6)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("channels", [1, 2])
def test_norm_bound_of_zero_filters(padding, channels):
    filters = tf.zeros((3, 3, channels, 2))
    with tf.GradientTape() as tape:
        tape.watch(filters)
        bound = convolution.norm_bound(filters, padding)
    assert float(bound) == 0
    assert np.all(tape.gradient(bound, filters).numpy() == 0)


def test_norm_bound_in_half_precision():
    filters = tf.cast(normal(0, (3, 3, 1, 2)), tf.float16)
    bound = convolution.norm_bound(filters, "zero")
    assert bound.dtype == tf.float16
    assert float(bound) >= float(convolution.norm_bound(tf.cast(filters, tf.float32), "zero"))


def test_errors():
    u, filters = tf.zeros((1, 4, 4, 1)), tf.zeros((9, 9, 1, 1))
    with pytest.raises(ValueError, match="Did you mean 'reflect'"):
        convolution.correlate(u, filters, "reflection")
    with pytest.raises(ValueError, match="'circular'"):
        convolution.norm_bound(filters, "CIRCLE")
    with pytest.raises(ValueError, match="large enough"):
        convolution.correlate(u, filters, "reflect")
    with pytest.raises(ValueError, match="large enough"):
        convolution.pad(u, ((5, 0), (0, 0)), "circular")

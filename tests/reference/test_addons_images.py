"""Operators here and image functions of Keras 3 against those of tensorflow-addons."""

import keras
import numpy as np
import pytest

from deq_keras import operators
from tests.reference.addons_data import U, case, cases, inputs


def gaussian_blur(size, sigma, padding, dtype):
    """Our operator with the kernel of tensorflow-addons.

    Odd kernels are the same. The origin of an even one is left of the middle there, in the array
    and in the Gaussian; ours is right of it in the array (a convolution, hence the flip), and our
    Gaussian lies between two pixels. Theirs is that of the next odd size without its first row.
    """
    if all(k % 2 for k in size):
        return operators.GaussianBlur(size, sigma, padding, dtype=dtype)
    odd = [k + 1 - k % 2 for k in size]
    kernel = operators.gaussian_kernel(odd, sigma)[odd[0] - size[0] :, odd[1] - size[1] :]
    return operators.Blur(np.flip(kernel) / kernel.sum(), padding, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@cases("gaussian_filter2d")
def test_gaussian_filter2d(name, dtype):
    """`REFLECT` is our `"reflect"` and `CONSTANT` our `"zero"`.

    We have neither `SYMMETRIC` nor another constant than 0: there the image is padded before, and
    what is left of it afterwards has met no other pixels.
    """
    arguments, expected = case("gaussian_filter2d", name)
    size, mode = arguments["filter_shape"], arguments["padding"].lower()
    border = arguments.get("constant_values", 0)
    padding = "reflect" if mode == "reflect" else "zero"
    blur = gaussian_blur(size, arguments["sigma"], padding, dtype)
    # The weighted mean of numbers in [0, 1]: a sum of `taps` terms, whose weights, exponentials
    # of rounded numbers and normalised, have taken about 16 roundings.
    taps = size[0] * size[1]
    sides = 2 if dtype == "float32" else 1
    for key, value in expected.items():
        u = inputs(key).astype(dtype)
        if mode == "symmetric" or border:
            width = [(0, 0), *((k, k) for k in size), (0, 0)]
            values = {} if mode == "symmetric" else {"constant_values": border}
            padded = blur(np.pad(u, width, mode, **values))
            result = padded[:, size[0] : -size[0], size[1] : -size[1]]
        else:
            result = blur(u)
        np.testing.assert_allclose(result, value, rtol=0, atol=sides * (taps + 16) * U)


def test_even_gaussians_differ():
    """The reason for the detour of `gaussian_blur` above."""
    arguments, expected = case("gaussian_filter2d", "4x4-constant")
    ours = operators.GaussianBlur(arguments["filter_shape"], arguments["sigma"], "zero")
    assert np.abs(ours(inputs("gray")) - expected["gray"]).max() > 0.05


@pytest.mark.parametrize("name", ["3x3-constant", "5x5-constant", "7x7-constant"])
def test_gaussian_blur_of_keras(name):
    """It pads with zeros only, takes the horizontal deviation first; square kernels are right."""
    arguments, expected = case("gaussian_filter2d", name)
    size, sigma = arguments["filter_shape"], np.broadcast_to(arguments["sigma"], 2)
    result = keras.ops.image.gaussian_blur(inputs("gray"), size, sigma[::-1])
    tolerance = 2 * (size[0] * size[1] + 16) * U
    np.testing.assert_allclose(result, expected["gray"], rtol=0, atol=tolerance)


@pytest.mark.skipif(keras.__version__ != "3.15.1", reason="what another Keras does is not known")
@pytest.mark.parametrize("swap", [False, True])
def test_gaussian_blur_of_keras_is_wrong_for_other_kernels(swap):
    """Whichever way round its arguments are meant; hence the warning in docs/."""
    arguments, expected = case("gaussian_filter2d", "5x3-constant")
    size, sigma = (tuple(arguments[k])[:: -1 if swap else 1] for k in ("filter_shape", "sigma"))
    for deviation in (sigma, sigma[::-1]):
        result = keras.ops.image.gaussian_blur(inputs("gray"), size, deviation)
        assert np.abs(result - expected["gray"]).max() > 0.05


@cases("mean_filter2d")
def test_mean_filter2d(name):
    arguments, expected = case("mean_filter2d", name)
    size = arguments["filter_shape"]
    result = operators.BoxBlur(size, "reflect")(inputs("gray"))
    tolerance = 2 * (size[0] * size[1] + 2) * U
    np.testing.assert_allclose(result, expected["gray"], rtol=0, atol=tolerance)


@cases("median_filter2d")
def test_median_filter2d(name):
    """Keras has no such function, but its parts."""
    arguments, expected = case("median_filter2d", name)
    size = arguments["filter_shape"]
    width = [(0, 0), *((k // 2, k // 2) for k in size), (0, 0)]
    patches = keras.ops.image.extract_patches(np.pad(inputs("gray"), width, "reflect"), size, 1)
    median = keras.ops.median(patches, axis=-1, keepdims=True)
    np.testing.assert_array_equal(median, expected["gray"])


def test_dense_image_warp():
    _, expected = case("dense_image_warp", "flow")
    flow = inputs("flow")[0]
    points = np.indices(flow.shape[:2], np.float32) - np.moveaxis(flow, -1, 0)
    image = inputs("gray")[0, ..., 0]
    result = keras.ops.image.map_coordinates(image, points, order=1, fill_mode="nearest")
    # Three interpolations between numbers in [0, 1] at coordinates that are rounded.
    tolerance = 3 * (2 * max(image.shape) + 8) * U
    np.testing.assert_allclose(result, expected["gray"][0, ..., 0], rtol=0, atol=tolerance)


@cases("transform")
def test_transform(name):
    arguments, expected = case("transform", name)
    transform = np.float32(arguments["transforms"])
    result = keras.ops.image.affine_transform(
        inputs("gray"), transform, name, arguments["fill_mode"], fill_value=0.0
    )
    np.testing.assert_array_equal(result, expected["gray"])

"""Kernels: sums, symmetries and moments."""

import numpy as np
import pytest

from deq_keras import operators


def centred(kernel):
    """Offsets of the pixels of a kernel from its origin, rows upwards."""
    rows, columns = kernel.shape
    y, x = np.mgrid[:rows, :columns]
    return rows // 2 - y, x - columns // 2


@pytest.mark.parametrize(
    "kernel",
    [
        operators.gaussian_kernel(9, 1.6),
        operators.gaussian_kernel((4, 7), (0.5, 3.0)),
        operators.gaussian_kernel(4, 1e-3),
        operators.box_kernel((3, 4)),
        operators.diagonal_kernel(5),
        operators.motion_kernel(7.5, 33.0),
    ],
)
def test_averages(kernel):
    assert kernel.sum() == pytest.approx(1, abs=1e-14)
    assert (kernel >= 0).all()
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-15)


def test_gaussian():
    kernel = operators.gaussian_kernel((5, 3), (1.5, 0.8))
    y, x = centred(kernel)
    expected = np.exp(-(y**2) / (2 * 1.5**2) - x**2 / (2 * 0.8**2))
    np.testing.assert_allclose(kernel, expected / expected.sum())


def test_diagonal():
    np.testing.assert_array_equal(operators.diagonal_kernel(3), np.eye(3) / 3)


@pytest.mark.parametrize("angle", [0, 17, 45, 90, 120, 180, -30, 400])
@pytest.mark.parametrize("length", [1, 4, 9.5])
def test_motion_has_the_moments_of_its_path(angle, length):
    kernel = operators.motion_kernel(length, angle)
    y, x = centred(kernel)
    direction = np.deg2rad(angle)
    along = x * np.cos(direction) + y * np.sin(direction)
    across = y * np.cos(direction) - x * np.sin(direction)
    assert np.sum(kernel * along) == pytest.approx(0, abs=1e-12)
    # A pixel and the width of the path spread it by up to 1/12 each.
    assert np.sum(kernel * along**2) == pytest.approx(length**2 / 12, abs=0.17)
    assert np.sum(kernel * across**2) <= 0.2


def test_motion_along_the_axes():
    np.testing.assert_allclose(operators.motion_kernel(1), [[1]])
    np.testing.assert_allclose(operators.motion_kernel(5), np.full((1, 5), 0.2), atol=1e-12)
    even = operators.motion_kernel(4)
    np.testing.assert_allclose(even, np.array([[0.5, 1, 1, 1, 0.5]]) / 4, atol=1e-12)
    np.testing.assert_allclose(operators.motion_kernel(4, 90), even.T, atol=1e-12)
    np.testing.assert_allclose(
        operators.motion_kernel(6, 30), operators.motion_kernel(6, -30)[::-1], atol=1e-12
    )


def test_motion_turns_anticlockwise():
    kernel = operators.motion_kernel(9, 30)
    height, width = kernel.shape
    assert kernel[: height // 2, width // 2 + 1 :].sum() > kernel[: height // 2, : width // 2].sum()


@pytest.mark.parametrize("size", [0, -1, 2.5, "3", (3,), (3, 0), (3, 3, 3), None])
def test_invalid_sizes(size):
    for function in (operators.box_kernel, operators.diagonal_kernel):
        with pytest.raises(ValueError, match="kernel_size"):
            function(size)
    with pytest.raises(ValueError, match="kernel_size"):
        operators.gaussian_kernel(size, 1.0)


def test_invalid_arguments():
    for stddev in (0, -1, np.nan, np.inf, (1.0,), (1.0, 0.0)):
        with pytest.raises(ValueError, match="stddev"):
            operators.gaussian_kernel(3, stddev)
    for length in (0, 0.5, np.nan, np.inf):
        with pytest.raises(ValueError, match="length"):
            operators.motion_kernel(length)
    with pytest.raises(ValueError, match="angle"):
        operators.motion_kernel(3, np.inf)
    with pytest.raises(ValueError, match="one integer"):
        operators.diagonal_kernel((3, 4))

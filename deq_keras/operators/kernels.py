"""Blur kernels as NumPy arrays of sum 1.

The origin of a kernel of size `k` is at index `k // 2` of each dimension.
"""

import math

import numpy as np

from deq_keras.checks import kernel_size as check_kernel_size

_SUBSAMPLES = 32  # of a pixel and dimension, in the area integral of a motion kernel


def gaussian_kernel(kernel_size, stddev):
    """`k[i, j]` proportional to `exp(-((i - ci)^2 + (j - cj)^2) / (2 stddev^2))`.

    The centre `(ci, cj)` is the middle of the array, between two pixels if a size is even.

    Args:
        kernel_size: A positive integer or a pair (height, width).
        stddev: Standard deviation in pixels, positive, or a pair (vertical, horizontal).

    Returns:
        An array `(height, width)` of sum 1.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> kernel = deq_keras.operators.gaussian_kernel((9, 7), stddev=1.6)
    """
    sizes = check_kernel_size(kernel_size)
    pair = (stddev, stddev) if np.ndim(stddev) == 0 else tuple(stddev)
    if len(pair) != 2 or not all(0 < s < math.inf for s in pair):
        raise ValueError(
            f"Expected `stddev` to be a positive number or two of them. Received {stddev!r}."
        )
    profiles = []
    for size, width in zip(sizes, pair, strict=True):
        exponent = -((np.arange(size) - (size - 1) / 2) ** 2) / (2 * width**2)
        profiles.append(np.exp(exponent - exponent.max()))  # no underflow to a sum of zero
    kernel = np.outer(*profiles)
    return kernel / kernel.sum()


def box_kernel(kernel_size):
    """The mean over a rectangle.

    Args:
        kernel_size: A positive integer or a pair (height, width).

    Returns:
        An array `(height, width)` of sum 1.

    Raises:
        ValueError: If `kernel_size` is out of range.

    Example:

    >>> kernel = deq_keras.operators.box_kernel(5)
    """
    sizes = check_kernel_size(kernel_size)
    return np.full(sizes, 1 / (sizes[0] * sizes[1]))


def diagonal_kernel(size):
    """The identity matrix divided by its size: motion along the main diagonal.

    Args:
        size: A positive integer.

    Returns:
        An array `(size, size)` of sum 1.

    Raises:
        ValueError: If `size` is out of range.

    Reference:
        Riccio, Ehrhardt and Benning, arXiv:2206.13193, the deblurring experiments.

    Example:

    >>> kernel = deq_keras.operators.diagonal_kernel(5)
    """
    size, width = check_kernel_size(size)
    if size != width:
        raise ValueError(f"Expected `size` to be one integer. Received {(size, width)}.")
    return np.eye(size) / size


def motion_kernel(length, angle=0.0):
    """Uniform motion along a straight line, antialiased.

    The path is a rectangle of the given length and a width of one pixel, centred on the middle
    pixel; each pixel's weight is the area of it that the rectangle covers.

    Args:
        length: Length of the path in pixels, at least 1.
        angle: Direction in degrees, anticlockwise from the horizontal (rows count downwards).

    Returns:
        An array of odd height and width, as small as the path allows, of sum 1.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> kernel = deq_keras.operators.motion_kernel(length=9, angle=30.0)
    """
    if not 1 <= length < math.inf:
        raise ValueError(f"Expected `length` to be at least 1 (pixel). Received {length!r}.")
    if not math.isfinite(angle):
        raise ValueError(f"Expected `angle` to be finite (degrees). Received {angle!r}.")
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    height = (length * abs(sine) + abs(cosine)) / 2
    width = (length * abs(cosine) + abs(sine)) / 2
    rows, columns = (math.ceil(half - 0.5 - 1e-9) for half in (height, width))
    steps = (np.arange(_SUBSAMPLES) + 0.5) / _SUBSAMPLES - 0.5
    y = -(np.arange(-rows, rows + 1)[:, None] + steps).reshape(-1, 1)
    x = (np.arange(-columns, columns + 1)[:, None] + steps).reshape(1, -1)
    along, across = np.abs(x * cosine + y * sine), np.abs(y * cosine - x * sine)
    inside = (along <= length / 2 + 1e-9) & (across <= 0.5 + 1e-9)
    shape = (2 * rows + 1, _SUBSAMPLES, 2 * columns + 1, _SUBSAMPLES)
    kernel = inside.reshape(shape).sum((1, 3))
    return kernel / kernel.sum()

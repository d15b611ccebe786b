"""Norms of convolutions at one image size, and of compositions of convolutions."""

import numbers

import tensorflow as tf

from deq_keras.checks import positive_int
from deq_keras.convolution.composition import compose
from deq_keras.convolution.correlation import correlate, correlate_adjoint
from deq_keras.convolution.norm_bounds import norm_bound, square_root
from deq_keras.convolution.padding import check_padding
from deq_keras.convolution.reflected_bounds import largest_eigenvalue


def circular_norm(filters, size) -> tf.Tensor:
    """Returns the exact norm of `correlate(., filters, "circular")` at one image size.

    The discrete Fourier transform turns the convolution into one matrix `(c, f)` for each frequency
    of the image; the norm is their largest singular value. Filters larger than the image are
    wrapped around it. `norm_bound` is an upper bound for all sizes, and is not much larger; for
    many channels it is also cheaper.

    Args:
        filters: `(kh, kw, c, f)`, of static shape.
        size: `(height, width)` of the image, integers.

    Returns:
        A scalar tensor, differentiable with respect to the filters where the largest singular
        value is simple (with gradient 0 at 0).

    Raises:
        ValueError: If the size is not two positive integers.

    Reference:
        H. Sedghi, V. Gupta, P. M. Long: The singular values of convolutional layers. ICLR 2019.

    Example:

    >>> float(deq_keras.convolution.circular_norm(tf.reshape([-1.0, 1.0], (2, 1, 1, 1)), (32, 32)))
    2.0
    """
    size = _check_size(size)
    filters, dtype = _computable(filters)
    planes = tf.transpose(_wrapped(filters, size), [2, 3, 0, 1])
    c, f = planes.shape[:2]
    spectrum = tf.reshape(tf.transpose(tf.signal.rfft2d(planes), [2, 3, 0, 1]), [-1, c, f])
    if min(c, f) == 1:
        squares = tf.math.real(spectrum) ** 2 + tf.math.imag(spectrum) ** 2
        largest = tf.reduce_max(tf.reduce_sum(squares, [1, 2]))
    else:
        left = c > f
        largest = largest_eigenvalue(
            tf.linalg.matmul(spectrum, spectrum, adjoint_a=left, adjoint_b=not left)
        )
    return tf.cast(square_root(largest), dtype)


def composition_norm_bound(layers, size=None) -> tf.Tensor:
    """Returns an upper bound on the norm of a sequence of convolutions.

    The product of the bounds of the layers always holds. Neighbours with "circular" or with "valid"
    padding are *one* convolution, with the filters' full convolution for filters; for these the
    bound of that one is taken if it is smaller. "zero" padding cuts off what a layer writes beyond
    the border before the next layer reads it, so there the joint spectrum is no bound.

    Args:
        layers: Pairs `(filters, padding)`, the first applied first.
        size: `(height, width)` of the image, integers, or `None` for a bound for all sizes. If all
            layers are circular the result is exact at that size; for "reflect" it is tighter.

    Returns:
        A scalar tensor, differentiable with respect to all filters.

    Raises:
        ValueError: If there is no layer, a padding is unknown, or numbers of channels do not fit.

    Example:

    >>> blur, difference = tf.ones((3, 1, 1, 1)), tf.reshape([-1.0, 1.0], (2, 1, 1, 1))
    >>> layers = [(blur, "circular"), (difference, "circular")]
    >>> round(float(deq_keras.convolution.composition_norm_bound(layers, (64, 64))), 3)
    2.0
    """
    layers = [(tf.convert_to_tensor(filters), padding) for filters, padding in layers]
    if not layers:
        raise ValueError("Expected at least one pair (filters, padding). Received an empty list.")
    for _, padding in layers:
        check_padding(padding)
    for (first, _), (second, _) in zip(layers, layers[1:], strict=False):
        if first.shape[3] != second.shape[2]:
            raise ValueError(
                "Expected each layer to take the channels that the one before it gives. Received "
                f"filters of shapes {[tuple(filters.shape) for filters, _ in layers]}."
            )
    size = None if size is None else _check_size(size)
    total, start = None, 0
    while start < len(layers):
        padding, end = layers[start][1], start + 1
        while padding in ("circular", "valid") and end < len(layers) and layers[end][1] == padding:
            end += 1
        bound = _run_bound([filters for filters, _ in layers[start:end]], padding, size)
        total = bound if total is None else total * bound
        if padding == "valid" and size is not None:
            for filters, _ in layers[start:end]:
                size = [n - k + 1 for n, k in zip(size, filters.shape[:2], strict=True)]
        start = end
    return total


def power_iteration_norm(filters, padding, size, steps: int = 30, seed=(0, 0)) -> tf.Tensor:
    """Estimates the norm of `correlate` on images of one size from below, as a diagnostic.

    It is the norm of the result for one image of norm 1, the best that `steps` power iterations
    found: **never a certificate**, and for a step size on its own it is the wrong number, since it
    is too small. Beside `norm_bound` it says how much that gives away at this size.

    Args:
        filters: As for `correlate`.
        padding: As for `correlate`.
        size: `(height, width)` of the image, integers.
        steps: How many power iterations, each an application of `correlate` and its adjoint.
        seed: Two integers, or a tensor of them, for the image to start from.

    Returns:
        A scalar tensor. Its derivative in the filters is that of the norm for a fixed image.

    Raises:
        ValueError: If the steps or the size are not positive integers, the padding is unknown, or
            the image is too small for it.

    Example:

    >>> filters = tf.random.normal((3, 3, 1, 8))
    >>> estimate = deq_keras.convolution.power_iteration_norm(filters, "zero", (32, 32))
    >>> bool(estimate <= deq_keras.convolution.norm_bound(filters, "zero"))
    True
    """
    check_padding(padding)
    size = _check_size(size)
    steps = positive_int("steps", steps)
    filters, dtype = _computable(filters)
    kh, kw, c, _ = filters.shape
    if padding == "valid" and (size[0] < kh or size[1] < kw):
        raise ValueError(
            f"Expected a size of at least {(kh, kw)} for 'valid' padding. Received size={size}."
        )
    image = tf.random.stateless_normal((1, *size, c), seed, dtype=filters.dtype)
    fixed = tf.stop_gradient(filters)
    for _ in range(steps):
        image = correlate_adjoint(correlate(_unit(image), fixed, padding), fixed, padding)
    image = tf.stop_gradient(_unit(image))
    return tf.cast(square_root(tf.reduce_sum(correlate(image, filters, padding) ** 2)), dtype)


def _run_bound(filters, padding, size):
    """Bounds layers that are one convolution, or a single layer."""
    joint = filters[0]
    for one in filters[1:]:
        joint = compose(joint, one)
    if padding == "circular" and size is not None:
        return circular_norm(joint, size)
    bound = norm_bound(joint, padding, size)
    if len(filters) > 1:
        product = norm_bound(filters[0], padding)
        for one in filters[1:]:
            product *= norm_bound(one, padding)
        bound = tf.minimum(bound, product)
    return bound


def _wrapped(filters, size):
    """The filters as a periodic function of the image's size, `(*size, c, f)`."""
    for axis, n in enumerate(size):
        periods = -(-filters.shape[axis] // n)
        sizes = [[0, 0]] * 4
        sizes[axis] = [0, periods * n - filters.shape[axis]]
        shape = filters.shape.as_list()
        shape[axis : axis + 1] = [periods, n]
        filters = tf.reduce_sum(tf.reshape(tf.pad(filters, sizes), shape), axis)
    return filters


def _computable(filters):
    """Filters in a dtype that has a Fourier transform, and the dtype that they had."""
    filters = tf.convert_to_tensor(filters)
    if filters.dtype in (tf.float32, tf.float64):
        return filters, filters.dtype
    return tf.cast(filters, tf.float32), filters.dtype


def _unit(image):
    norm = tf.norm(image)
    return image / tf.where(norm > 0, norm, tf.ones_like(norm))


def _check_size(size):
    numbers_only = [n for n in size if isinstance(n, numbers.Integral) and n > 0]
    if len(size) != 2 or len(numbers_only) != 2:
        raise ValueError(
            f"Expected `size` to be two positive integers (height, width). Received size={size!r}."
        )
    return tuple(int(n) for n in size)

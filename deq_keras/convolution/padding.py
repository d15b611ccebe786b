"""Padding of images beyond their border, and its adjoint."""

import math

import numpy as np
import tensorflow as tf

from deq_keras.checks import one_of

PADDINGS = ("valid", "zero", "circular", "reflect")


def check_padding(padding, allowed=PADDINGS) -> str:
    """The padding, or a `ValueError` that names the nearest one that is allowed.

    Example:

    >>> deq_keras.convolution.check_padding("reflect")
    'reflect'
    """
    return one_of("padding", padding, allowed)


def pad(u, sizes, padding) -> tf.Tensor:
    """Pads images.

    Args:
        u: Images `(batch, height, width, channels)`; height and width may be unknown in a graph.
        sizes: `((top, bottom), (left, right))`, Python integers.
        padding: `"valid"` (none: returns `u`), `"zero"`, `"circular"` (at most one period) or
            `"reflect"` (about the border pixels, which are not repeated; less than the size).

    Returns:
        Images `(batch, top + height + bottom, left + width + right, channels)`.

    Example:

    >>> row = tf.reshape([1.0, 2.0, 3.0], (1, 1, 3, 1))
    >>> padded = deq_keras.convolution.pad(row, ((0, 0), (1, 1)), "circular")
    >>> padded[0, 0, :, 0].numpy()
    array([3., 1., 2., 3., 1.], dtype=float32)
    """
    check_padding(padding)
    (top, bottom), (left, right) = sizes
    if padding == "valid" or not any((top, bottom, left, right)):
        return u
    _check_sizes(u, sizes, padding)
    if padding == "circular":
        return _wrap(_wrap(u, top, bottom, 1), left, right, 2)
    if padding == "reflect" and u.shape[0] == 0:  # TensorFlow mirrors no batch of no images
        return _mirror(_mirror(u, top, bottom, 1), left, right, 2)
    mode = "REFLECT" if padding == "reflect" else "CONSTANT"
    return tf.pad(u, np.array([(0, 0), *sizes, (0, 0)], np.int32), mode)


def pad_adjoint(v, sizes, padding) -> tf.Tensor:
    """Applies the adjoint of `pad` to `v`: crops, or adds each copied pixel to its source.

    Example:

    >>> row = tf.ones((1, 1, 5, 1))
    >>> folded = deq_keras.convolution.pad_adjoint(row, ((0, 0), (1, 1)), "circular")
    >>> folded[0, 0, :, 0].numpy()
    array([2., 1., 2.], dtype=float32)
    """
    check_padding(padding)
    (top, bottom), (left, right) = sizes
    if padding == "valid" or not any((top, bottom, left, right)):
        return v
    if padding == "circular":
        return _fold(_fold(v, top, bottom, 1), left, right, 2)
    if padding == "reflect":
        return _unmirror(_unmirror(v, top, bottom, 1), left, right, 2)
    height, width = (v.shape[axis] or tf.shape(v)[axis] for axis in (1, 2))
    size = [-1, height - top - bottom, width - left - right, v.shape[3] or -1]
    if not any(map(tf.is_tensor, size)):
        size = np.array(size, np.int32)
    # The gradient of v[...] is slow.
    return tf.slice(v, np.array([0, top, left, 0], np.int32), size)


def same_sizes(filters) -> tuple[tuple[int, int], tuple[int, int]]:
    """Returns the sizes `((top, bottom), (left, right))` of the padding that keeps a size.

    Example:

    >>> deq_keras.convolution.same_sizes(tf.ones((3, 4, 1, 1)))
    ((1, 1), (1, 2))
    """
    kh, kw = filters.shape[:2]
    top, left = (kh - 1) // 2, (kw - 1) // 2
    return (top, kh - 1 - top), (left, kw - 1 - left)


def _check_sizes(u, sizes, padding):
    margin = {"zero": math.inf, "circular": 0, "reflect": -1}[padding]
    for length, size in zip(u.shape[1:3], sizes, strict=True):
        if length is not None and max(size) > length + margin:
            raise ValueError(
                f"Expected an image large enough for {padding!r} padding by {sizes}. "
                f"Received an image of shape {tuple(u.shape)}. Use a larger image, a smaller "
                "kernel or `padding='zero'`."
            )


def _between(x, start, end, axis):
    """`x[start:end]` along an axis; where sizes are known by arrays, for brackets take longer."""
    length = x.shape[axis]
    if length is None:
        return x[:, start:end] if axis == 1 else x[:, :, start:end]
    start, end, _ = slice(start, end).indices(length)
    begin, size = np.zeros(4, np.int32), np.full(4, -1, np.int32)
    begin[axis], size[axis] = start, max(end - start, 0)
    return tf.slice(x, begin, size)


def _wrap(u, before, after, axis):
    first = [_between(u, -before, None, axis)] if before else []
    last = [_between(u, 0, after, axis)] if after else []
    return tf.concat([*first, u, *last], axis) if first or last else u


def _mirror(u, before, after, axis):
    end = (u.shape[axis] or tf.shape(u)[axis]) - 1
    first = [tf.reverse(_between(u, 1, before + 1, axis), [axis])] if before else []
    last = [tf.reverse(_between(u, end - after, end, axis), [axis])] if after else []
    return tf.concat([*first, u, *last], axis) if first or last else u


def _unmirror(v, before, after, axis):
    """The adjoint of mirroring along an axis.

    Not `tf.raw_ops.MirrorPadGrad`, which LiteRT, ONNX and OpenVINO lack.
    """
    if not before and not after:
        return v
    length = v.shape[axis]
    if before and after and (length is None or length < 2 * (before + after + 1)):
        # Some pixels may be near both borders.
        return _unmirror(_unmirror(v, 0, after, axis), before, 0, axis)
    # All parts by one split: the mirrored pixels, the border pixel, the pixels that they mirror.
    sizes = [before, 1, before] if before else []
    sizes += [-1, after, 1, after] if after else [-1]
    parts = tf.split(v, np.array(sizes, np.int32), axis)
    if before:
        mirrored, border, inside, *parts = parts
        parts = [border, inside + tf.reverse(mirrored, [axis]), *parts]
    if after:
        *parts, inside, border, mirrored = parts
        parts += [inside + tf.reverse(mirrored, [axis]), border]
    return tf.concat(parts, axis)


def _fold(v, before, after, axis):
    if not before and not after:
        return v
    size = v.shape[axis]
    inner = -1 if size is None else size - 2 * (before + after)
    if inner >= 0:  # all parts by one split
        sizes = np.array([before, after, inner, before, after], np.int32)
        first, head, middle, tail, last = tf.split(v, sizes, axis)
        return tf.concat([head + last, middle, tail + first], axis)

    length = (size or tf.shape(v)[axis]) - before - after
    end = before + length
    if after:
        head = _between(v, before, before + after, axis) + _between(v, end, None, axis)
        rest = _between(v, before + after, end, axis)
        v = tf.concat([_between(v, 0, before, axis), head, rest], axis)
    if before:
        tail = _between(v, length, end, axis) + _between(v, 0, before, axis)
        v = tf.concat([_between(v, before, length, axis), tail], axis)
    return v

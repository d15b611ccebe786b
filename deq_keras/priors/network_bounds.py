"""Bounds on the first and second derivatives of networks of convolutions."""

from typing import NamedTuple

import tensorflow as tf

from deq_keras.convolution.norm_bounds import square_root


class Bound(NamedTuple):
    """What is certified of a map `x(u)` from images to features, for images of any size.

    For an energy `R(u) = <w, x(u)>` with the same weights at each pixel the Hessian is `<w, D^2 x>`
    and its norm at most `max |w| bending`: in the sum norm, and not the Euclidean one, a bound on
    the second derivative does not grow with the number of pixels. Through `x' = f(B x + c u)` with
    an activation of `|f'| <= a`, `|f''| <= b` and `t = B x + c u`,

        slope'   = a slope_t,
        bending' = a |B|_1 bending + b slope_t^2,

    as the sum of squares `(D t[h])^2` is the square of a Euclidean norm.

    Attributes:
        slope: `||Dx(u)[h]||_2 <= slope ||h||_2`.
        bending: `||D^2 x(u)[h, h]||_1 <= bending ||h||_2^2`.
    """

    slope: tf.Tensor
    bending: tf.Tensor


def sums(filters):
    """The norms of a convolution and of its adjoint, from sums of absolute values to the same.

    They hold for zeros beyond the boundary, and for any stride.

    Args:
        filters: `(kh, kw, c, f)`.
    """
    size = tf.abs(filters)
    outward = tf.reduce_max(tf.reduce_sum(size, axis=(0, 1, 3)))
    return outward, tf.reduce_max(tf.reduce_sum(size, axis=(0, 1, 2)))


def schur_norm(filters):
    """The Schur bound on the Euclidean norm: sharp for filters of one sign, and cheap.

    Args:
        filters: As for `sums`, with zeros beyond the boundary.
    """
    first, second = sums(filters)
    return square_root(first * second)

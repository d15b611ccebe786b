"""Potentials whose derivative is a learned linear spline: their curvature is piecewise constant."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class Splines(NamedTuple):
    """Functions with piecewise constant second derivatives on equal parts of [-1, 1].

    Function and slope are zero at 0; beyond [-1, 1] the slope stays what it is at the end.

    Attributes:
        curvature: `(groups, parts)`, the second derivative on each part.
        slope: `(groups, parts + 1)`, the first derivative at each knot.
        value: `(groups, parts + 1)`, the function at each knot.
    """

    curvature: tf.Tensor
    slope: tf.Tensor
    value: tf.Tensor


def integrated(curvature) -> Splines:
    """The `Splines` with given second derivatives.

    Args:
        curvature: `(groups, parts)`, with an even number of parts, so that 0 is a knot.
    """
    middle, width = curvature.shape[1] // 2, 2.0 / curvature.shape[1]

    def sums(steps):
        """Of the steps from 0 to each knot: those of one side do not round those of the other."""
        left = -tf.cumsum(steps[:, :middle], axis=1, reverse=True)
        right = tf.cumsum(steps[:, middle:], axis=1)
        return tf.concat([left, tf.zeros_like(left[:, :1]), right], axis=1)

    slope = sums(width * curvature)
    return Splines(curvature, slope, sums(0.5 * width * (slope[:, :-1] + slope[:, 1:])))


class SplineProfile(NamedTuple):
    """`psi(t) = F(alpha t) / alpha^2` with learned `F`, so that `psi''(t) = F''(alpha t)`.

    All functions take responses `t`, the `Splines` of one group or of one for each filter, which is
    the last axis of `t`, and `alpha`, of a shape that can be broadcast to that of `t`. Derivatives
    flow to all of them.
    """

    def value(self, t, splines, scaling):
        """`psi(t)`."""
        t = scaling * t
        inside, rest, at = _place(t, splines)
        curvature, slope, value = (_pick(part, at) for part in splines)
        found = value + rest * (slope + 0.5 * rest * curvature)
        return (found + (slope + rest * curvature) * (t - inside)) / scaling**2

    def slope(self, t, splines, scaling):
        """`psi'(t)`."""
        _, rest, at = _place(scaling * t, splines)
        return (_pick(splines.slope, at) + rest * _pick(splines.curvature, at)) / scaling

    def curvature(self, t, splines, scaling):
        """`psi''(t)`, at a knot that of one side."""
        t = scaling * t
        _, _, at = _place(t, splines)
        return tf.where(tf.abs(t) < 1.0, _pick(splines.curvature, at), tf.zeros_like(t))

    def curvature_lipschitz(self, splines, scaling):
        """A bound on `|psi'''|`: none, for the curvature jumps."""
        return float("inf") * tf.ones_like(scaling)


def _place(t, splines):
    """The nearest number in [-1, 1], how far it is from a knot to its left, and which that is."""
    parts = splines.curvature.shape[1]
    half = parts // 2
    inside = tf.clip_by_value(t, -1.0, 1.0)
    knot = tf.clip_by_value(tf.floor(tf.stop_gradient(inside) * half), -half, half - 1)
    return inside, inside - knot / half, tf.cast(knot, tf.int32) + half


def _pick(values, at):
    """The entry of each place, in the row of its filter."""
    groups, length = values.shape
    if groups > 1:
        at += length * tf.range(groups)
    return tf.gather(tf.reshape(values, (-1,)), at)

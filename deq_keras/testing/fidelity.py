"""The test of a data fidelity: its value, its gradient and its stated constants."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deq_keras.numerics.jacobian import power
from deq_keras.testing.gradient import gradient_test
from deq_keras.testing.report import (
    check_close,
    default_rtol,
    divide,
    fail,
    inner,
    name_of,
    norm,
    normal,
    to_numpy,
    unit,
)

_SLACK = {"float64": 1e-6, "float32": 1e-3}


class FidelityReport(NamedTuple):
    """What `fidelity_test` found.

    Attributes:
        gradient_error: relative difference between `gradient` and the derivative of `value`.
        lipschitz: the largest `‖g(v) - g(w)‖ / ‖v - w‖` seen: no Lipschitz constant is less.
        strong_convexity: the least `<g(v) - g(w), v - w> / ‖v - w‖²` seen: no modulus is more.
        measurement_sensitivity: the largest norm seen of the derivative of `g(v)` by `y`.
    """

    gradient_error: float
    lipschitz: float
    strong_convexity: float
    measurement_sensitivity: float


def fidelity_test(
    fidelity,
    shape,
    dtype="float64",
    *,
    seed=0,
    rtol=None,
    measurement=None,
    check_constants: bool = True,
):
    """Checks that the value, the gradient and the stated constants of a fidelity belong together.

    The constants and the convexity are tested on pairs of predictions far apart and nearby, along
    the extreme curvatures, which power iterations find. Passing does not prove them, but what is
    found shows how sharp they are.

    Args:
        fidelity: a `deq_keras.fidelities.Fidelity`.
        shape: shape of a measurement, `(batch, ...)`, with two images or more; a list of such for
            several measurements.
        dtype: float64, complex128, or float32 and complex64 without finite differences.
        seed: of the random measurements and predictions.
        rtol: largest relative error. By default 1e-9 in double and 1e-4 in single precision.
        measurement: `y`, where the fidelity takes no other than certain ones. By default numbers
            from [0, 1], and complex numbers with such a real and imaginary part.
        check_constants: `is_convex` and the stated constants.

    Returns:
        A `FidelityReport`; what was not checked is NaN in it.

    Raises:
        AssertionError: if the fidelity fails.
        ValueError: if there is one image only, or the dtype is another one.

    Example:

    >>> report = deq_keras.testing.fidelity_test(deq_keras.fidelities.Huber(0.3), (2, 8, 9, 1))
    """
    shapes = [shape] if isinstance(shape[0], int) else list(shape)
    name = f"fidelity_test({name_of(fidelity)}, shape={shape}, dtype={dtype!r})"
    known = ("float64", "float32", "complex128", "complex64")
    if any(each[0] < 2 for each in shapes) or dtype not in known:
        raise ValueError(f"{name} expects two images or more, of a dtype among {known}.")
    defaults = {**dict.fromkeys(known[::2], 1e-9), **dict.fromkeys(known[1::2], 1e-4)}
    rtol = default_rtol(name, rtol, dtype, defaults)
    test = _Test(fidelity, shapes, dtype, name, rtol, np.random.default_rng(seed), measurement)
    error = test.gradient()
    if not check_constants:
        return FidelityReport(error, np.nan, np.nan, np.nan)
    return FidelityReport(error, *test.curvatures(), test.sensitivity())


class _Test:
    """The checks, on predictions and measurements as real rows `(batch, n)`."""

    def __init__(self, fidelity, shapes, dtype, name, rtol, rng, measurement):
        self.fidelity, self.shapes, self.dtype = fidelity, shapes, tf.as_dtype(dtype)
        self.name, self.rtol, self.rng = name, rtol, rng
        self.real = self.dtype.real_dtype.name
        self.batch, self.seed = shapes[0][0], 0
        width = 2 if self.dtype.is_complex else 1
        self.sizes = [width * int(np.prod(each[1:])) for each in shapes]
        if measurement is None:
            size = (self.batch, sum(self.sizes))
            self.y = tf.constant(rng.uniform(size=size), self.real)
        else:
            self.y = self.rows(measurement)

    def rows(self, structure):
        """A structure as real rows, the real parts before the imaginary parts."""
        parts = []
        for leaf in tf.nest.flatten(structure):
            flat = tf.reshape(tf.cast(leaf, self.dtype), (len(leaf), -1))
            parts += [tf.math.real(flat), tf.math.imag(flat)] if flat.dtype.is_complex else [flat]
        return tf.concat(parts, axis=1)

    def structure(self, rows):
        """A measurement, or a list of several, from its rows."""
        leaves = []
        for part, shape in zip(tf.split(rows, self.sizes, axis=1), self.shapes, strict=True):
            if self.dtype.is_complex:
                part = tf.complex(*tf.split(part, 2, axis=1))
            leaves.append(tf.reshape(part, (-1, *shape[1:])))
        return leaves[0] if len(leaves) == 1 else leaves

    def value_at(self, v, y):
        return self.fidelity.value(self.structure(v), self.structure(y))

    def gradient_at(self, v, y):
        return self.rows(self.fidelity.gradient(self.structure(v), self.structure(y)))

    def predictions(self):
        """Rows at several distances from the measurement."""
        for scale in (1e-3, 0.1, 1.0, 10.0):
            yield self.y + tf.cast(scale, self.real) * normal(self.rng, self.y.shape, self.real)

    def gradient(self):
        mixing = "a mean, norm or sum over the batch."
        cause = (
            "a factor such as the 1/2 of a square, a sign, or the conjugate of a complex residual."
        )
        error = 0.0
        for v in self.predictions():
            with tf.GradientTape() as tape:
                tape.watch(v)
                value = self.value_at(v, self.y)
            if tuple(value.shape) != (self.batch,) or value.dtype != self.real:
                fail(
                    f"{self.name}: value has shape {value.shape} and dtype {value.dtype.name}.",
                    "a sum over the batch or too few axes, or a complex value.",
                )
            gradient = self.fidelity.gradient(self.structure(v), self.structure(self.y))
            for found, like in zip(
                tf.nest.flatten(gradient), tf.nest.flatten(self.structure(v)), strict=True
            ):
                if found.shape != like.shape or found.dtype != like.dtype:
                    fail(
                        f"{self.name}: a gradient of shape {found.shape} and dtype "
                        f"{found.dtype.name} for a prediction of shape {like.shape} and dtype "
                        f"{like.dtype.name}.",
                        "a modulus in place of a complex residual, or broadcasting.",
                    )
            gradient = self.rows(gradient)
            alone = [(v[i : i + 1], self.y[i : i + 1]) for i in range(self.batch)]
            values = tf.concat([self.value_at(*one) for one in alone], axis=0)
            check_close(f"{self.name}: value of each image alone", values, value, self.rtol, mixing)
            gradients = tf.concat([self.gradient_at(*one) for one in alone], axis=0)
            what = f"{self.name}: gradient of each image alone"
            check_close(what, gradients, gradient, self.rtol, mixing)
            derivative = tape.gradient(value, v)
            derivative = tf.zeros_like(v) if derivative is None else derivative
            what = f"{self.name}: gradient(v, y)"
            error = max(error, check_close(what, gradient, derivative, self.rtol, cause))
            if self.real == "float64":
                gradient_test(lambda v: self.value_at(v, self.y), v)
        return error

    def curvatures(self):
        """The largest Lipschitz quotient and the least monotonicity quotient of pairs."""
        y = self.structure(self.y)
        stated, modulus = self.fidelity.lipschitz(y), self.fidelity.strong_convexity(y)
        largest, least = np.zeros(self.batch), np.full(self.batch, np.inf)

        def compare(v, w, segment=False):
            nonlocal largest, least
            d = to_numpy(v) - to_numpy(w)
            g = to_numpy(self.gradient_at(v, self.y)) - to_numpy(self.gradient_at(w, self.y))
            largest = np.maximum(largest, divide(norm(g), norm(d)))  # NaN stays NaN
            least = np.minimum(least, divide(inner(g, d), inner(d, d)))
            if segment:
                self._segment(v, w)
            return g

        step = {"float64": 1e-3, "float32": 1e-1}[self.real]
        for v in self.predictions():
            compare(v, self.y, segment=True)
            compare(v, -v, segment=True)
            for number in range(2):  # the largest curvature, and that farthest from it
                d = unit(self.rng.standard_normal(v.shape))
                for _ in range(6):
                    move = tf.constant(0.5 * step * d, self.real)
                    moved = compare(v + move, v - move) / step
                    d = unit(moved - number * largest[:, None] * d, otherwise=d)
        slack = _SLACK[self.real]
        if stated is not None and not np.all(largest <= to_numpy(stated) * (1 + slack)):
            fail(
                f"{self.name}: lipschitz(y) is {stated}, but for two predictions ‖g(v) - g(w)‖ / "
                f"‖v - w‖ is {largest} for each image.",
                "a weight or a factor left out, or a mean over entries in place of the largest.",
            )
        tolerance = slack * np.maximum(largest, 1.0)
        if modulus is not None and not np.all(least >= to_numpy(modulus) - tolerance):
            fail(
                f"{self.name}: strong_convexity(y) is {modulus}, but for two predictions "
                f"<g(v) - g(w), v - w> / ‖v - w‖² is {least} for each image.",
                "a curvature that vanishes far from the measurement, or an entry of weight zero.",
            )
        if self.fidelity.is_convex and not np.all(least >= -tolerance):
            fail(
                f"{self.name}: is_convex is True, but for two predictions "
                f"<g(v) - g(w), v - w> / ‖v - w‖² is {least} for each image.",
                "a function that grows slower than linearly. Declare is_convex = False.",
            )
        return float(largest.max()), float(least.min())

    def _segment(self, v, w):
        if not self.fidelity.is_convex:
            return
        ends = [to_numpy(self.value_at(end, self.y)) for end in (v, w)]
        for share in (0.25, 0.5):
            between = to_numpy(self.value_at((1 - share) * v + share * w, self.y))
            chord = (1 - share) * ends[0] + share * ends[1]
            excess = between - chord
            size = np.abs(ends[0]) + np.abs(ends[1]) + norm(self.y) ** 2 + self.y.shape[1]
            if not np.all(excess <= 1e2 * np.finfo(self.real).eps * size):
                fail(
                    f"{self.name}: is_convex is True, but between two predictions the value is "
                    f"above its chord by {excess}.",
                    "a function that grows slower than linearly. Declare is_convex = False.",
                )

    def sensitivity(self):
        """The largest norm of the derivative of the gradient by the measurement."""
        worst = 0.0
        for v in self.predictions():
            found = power(lambda y, v=v: self.gradient_at(v, y), self.y, (0, 0), steps=8)
            stated = self.fidelity.measurement_sensitivity(
                self.structure(v), self.structure(self.y)
            )
            found, stated = to_numpy(found), to_numpy(tf.cast(stated, self.real))
            if not np.all(found <= stated * (1 + _SLACK[self.real])):
                fail(
                    f"{self.name}: measurement_sensitivity(v, y) is {stated}, but the derivative "
                    f"of the gradient by y has norm {found} or more for each image.",
                    "a weight left out, or a bound that holds for nonnegative predictions only.",
                )
            worst = max(worst, float(found.max()))
        return worst

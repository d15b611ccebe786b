"""The test of a prior: its energy, its gradient and its stated constants."""

from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deq_keras.testing.gradient import gradient_test
from deq_keras.testing.report import (
    check_close,
    check_dtype_of,
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


class PriorReport(NamedTuple):
    """What `prior_test` found.

    Attributes:
        gradient_error: relative difference between `gradient` and the derivative of `energy`.
        lipschitz: the largest `‖g(u) - g(v)‖ / ‖u - v‖` seen: no Lipschitz constant is less.
        strong_convexity: the least `<g(u) - g(v), u - v> / ‖u - v‖²` seen: no modulus is more.
    """

    gradient_error: float
    lipschitz: float
    strong_convexity: float


def prior_test(
    prior,
    shape,
    dtype="float64",
    *,
    seed=0,
    rtol=None,
    check_energy: bool = True,
    check_constants: bool = True,
) -> PriorReport:
    """Checks that a prior's energy, gradient and stated constants belong together.

    Constants are tested on pairs of images far apart and on nearby pairs along the extreme
    curvatures, found by power iterations at images of several contrasts. Passing does not prove
    them, but what is found shows how sharp they are. Check trained weights too.

    Args:
        prior: has `energy(u) -> (batch,)` and `gradient(u)`, and may have `gradient_lipschitz()`,
            an upper bound on the Lipschitz constant of the gradient, and `strong_convexity()`, a
            modulus (positive: strongly convex, negative: weakly). `None` or `NotImplementedError`
            from these states nothing. `has_energy = False` says that there is no energy.
        shape: shape of `u`, `(batch, height, width, channels)`, with two images or more.
        dtype: float64, or float32 without finite differences.
        seed: of the random images.
        rtol: largest relative error. By default 1e-9 in float64 and 1e-4 in float32.
        check_energy: `energy` is there for each image, and `gradient` its derivative.
        check_constants: the stated constants.

    Returns:
        A `PriorReport`; what was not checked is NaN in it.

    Raises:
        AssertionError: if the prior fails.
        ValueError: if the prior is a layer of another dtype, or there is one image only.

    Example:

    >>> prior = deq_keras.priors.TotalVariation(dtype="float64")
    >>> report = deq_keras.testing.prior_test(prior, (2, 16, 17, 1))
    """
    name = f"prior_test({name_of(prior)}, shape={tuple(shape)}, dtype={dtype!r})"
    if shape[0] < 2 or dtype not in ("float64", "float32"):
        raise ValueError(f"{name} expects two images or more, of float64 or float32.")
    check_dtype_of(name, prior, dtype)
    rtol = default_rtol(name, rtol, dtype, {"float64": 1e-9, "float32": 1e-4})
    if isinstance(prior, keras.layers.Layer) and not prior.built:
        prior.build(tuple(shape))
    rng = np.random.default_rng(seed)
    u = tf.constant(rng.uniform(size=shape), dtype)
    gradient, error = prior.gradient(u), np.nan
    mixing = "a mean, norm or sum over the batch."
    alone = tf.concat([prior.gradient(u[i : i + 1]) for i in range(len(u))], axis=0)
    check_close(f"{name}: gradient of each image alone", alone, gradient, rtol, mixing)
    if check_energy and getattr(prior, "has_energy", True):
        with tf.GradientTape() as tape:
            tape.watch(u)
            energy = prior.energy(u)
        if energy.shape != (shape[0],):
            fail(
                f"{name}: energy has shape {energy.shape}.", "a sum over the batch or too few axes."
            )
        alone = tf.concat([prior.energy(u[i : i + 1]) for i in range(len(u))], axis=0)
        check_close(f"{name}: energy of each image alone", alone, energy, rtol, mixing)
        derivative = tape.gradient(energy, u)
        cause = (
            "the derivative of another potential, a wrong adjoint of the filters (flip, padding), "
            "or a factor such as the 1/2 of a square or the number of pixels."
        )
        derivative = tf.zeros_like(u) if derivative is None else derivative
        error = check_close(f"{name}: gradient(u)", gradient, derivative, rtol, cause)
        if dtype == "float64":
            gradient_test(prior.energy, u, seed=seed)
    if not check_constants:
        return PriorReport(error, np.nan, np.nan)
    largest, least = _extreme_curvatures(prior, shape, dtype, rng)
    stated, modulus = (
        _constant(prior, method) for method in ("gradient_lipschitz", "strong_convexity")
    )
    slack = {"float64": 1e-6, "float32": 1e-3}[dtype]
    if stated is not None and not largest <= stated * (1 + slack):
        fail(
            f"{name}: gradient_lipschitz() is {stated:.8g}, but for two images ‖g(u) - g(v)‖ / "
            f"‖u - v‖ is {largest:.8g}.",
            "the norm of a reshaped kernel for that of its convolution, too few power iterations, "
            "or a factor left out (number of filters, their weights, the potential's curvature).",
        )
    if modulus is not None and not least >= modulus - slack * max(abs(modulus), largest):
        fail(
            f"{name}: strong_convexity() is {modulus:.8g}, but for two images "
            f"<g(u) - g(v), u - v> / ‖u - v‖² is {least:.8g}.",
            "a weight or the norm of the filters left out of the potential's least curvature.",
        )
    return PriorReport(error, largest, least)


def _extreme_curvatures(prior, shape, dtype, rng, iterations=15):
    """The largest Lipschitz quotient and the least monotonicity quotient of pairs of images."""
    gradient = tf.function(prior.gradient, autograph=False)  # as in a Keras layer
    found = {"largest": 0.0, "least": np.inf}

    def difference(u, v):
        d, g = to_numpy(u) - to_numpy(v), to_numpy(gradient(u)) - to_numpy(gradient(v))
        lipschitz, modulus = divide(norm(g), norm(d)), divide(inner(g, d), inner(d, d))
        found["largest"] = np.maximum(found["largest"], lipschitz.max())  # NaN stays NaN
        found["least"] = np.minimum(found["least"], modulus.min())
        return g

    step = {"float64": 1e-3, "float32": 1e-1}[dtype]
    # The first curvature is that of H, the second, from what was found, that of H - largest. Each
    # goes on from the image before, with some noise, so that it leaves subspaces.
    directions = np.zeros((2, *shape))
    contrasts = ((0.0, 0.0), (0.5, 0.0), (0.5, 0.01), (0.5, 0.1), (0.0, 1.0), (0.0, 9.0))
    for level, contrast in contrasts:
        u = level + contrast * normal(rng, shape, dtype)
        difference(u, u + (contrast or 0.1) * normal(rng, shape, dtype))
        for number, d in enumerate(directions):
            shift = number * found["largest"]
            d = unit(d + 0.1 * unit(rng.standard_normal(shape)))
            for _ in range(iterations):
                move = tf.constant(0.5 * step * d, dtype)
                d = unit(difference(u + move, u - move) / step - shift * d, otherwise=d)
            directions[number] = d
    return float(found["largest"]), float(found["least"])


def _constant(prior, method):
    try:
        value = getattr(prior, method, lambda: None)()
    except NotImplementedError:
        return None
    return None if value is None else float(value)

"""The dot-product test of a linear operator and its adjoint."""

import numpy as np
import tensorflow as tf

from deq_keras.operators import LinearOperator
from deq_keras.testing import operator_checks
from deq_keras.testing.operator_checks import inner_of, norm_of
from deq_keras.testing.report import (
    check_dtype_of,
    default_rtol,
    divide,
    fail,
    inner,
    name_of,
    norm,
    normal,
    to_numpy,
)


def dot_test(operator, shape, dtype="float32", seed=0, data=None, rtol=None):
    """Checks that an operator is linear and that its `adjoint` is its adjoint.

    For random images it compares `<K u, v>` with `<u, Kᵀ v>`, image by image and summed, and
    `K(a u₁ + b u₂)` with `a K u₁ + b K u₂`. Measurements may have any shape and dtype, or be
    several in a structure; complex numbers count as pairs of real ones. Test odd, even and
    non-square sizes: many a mistake needs one of them to show.

    Of a `deq_keras.operators.LinearOperator` it also checks that a symbolic model states the shape
    and dtype of the measurements that there are, that `bind` gives the maps of `call` and
    `adjoint`, and that `operator_norm` is not below what a power iteration finds.

    Args:
        operator: has `operator(u)` and `operator.adjoint(v)`; a `LinearOperator` is told the
            shape of the images, `operator.adjoint(v, data, image_shape=shape)`.
        shape: shape of `u`, `(batch, height, width, channels)`.
        dtype: dtype of `u`; float64 proves more.
        seed: of the random images.
        data: second argument of both maps, if they need one: a tensor or a structure of them.
        rtol: largest error relative to `‖K u‖ ‖v‖` (for linearity to `|a| ‖K u₁‖ + |b| ‖K u₂‖`).
            By default 1e-12 in float64 and 1e-5 in float32.

    Returns:
        The largest relative error of the inner products.

    Raises:
        AssertionError: if the operator fails.
        ValueError: if the operator is a layer of another dtype, or the dtype has no default `rtol`.

    Example:

    >>> error = deq_keras.testing.dot_test(deq_keras.operators.Identity(), (2, 33, 48, 1))

    Reference: Claerbout, "Earth Soundings Analysis: Processing versus Inversion", 1992, the
    "dot-product test".
    """
    name = f"dot_test({name_of(operator)}, shape={tuple(shape)}, dtype={dtype!r})"
    rtol = default_rtol(name, rtol, dtype, {"float64": 1e-12, "float32": 1e-5})
    check_dtype_of(name, operator, dtype)
    extra = () if data is None else (data,)
    rng = np.random.default_rng(seed)
    u, other = normal(rng, shape, dtype), normal(rng, shape, dtype)
    # Of a person's own class no more is asked than the two maps.
    is_operator = isinstance(operator, LinearOperator)
    told = {"image_shape": tuple(shape)} if is_operator else {}
    image = operator(u, *extra)
    if is_operator:
        operator_checks.check_stated_shapes(name, operator, u, data, image)
    v = tf.nest.map_structure(lambda leaf: normal(rng, leaf.shape, leaf.dtype), image)
    back = operator.adjoint(v, *extra, **told)
    dtypes = [leaf.dtype for leaf in tf.nest.flatten(image)]
    if (
        back.shape != u.shape
        or back.dtype != u.dtype
        or any(d.real_dtype != u.dtype.real_dtype for d in dtypes)
    ):
        fail(
            f"{name}: K u has dtype {', '.join(d.name for d in dtypes)}, and Kᵀ v has shape "
            f"{tuple(back.shape)} and dtype {back.dtype.name}.",
            "a cast, or a padding or stride that forgets the size of the image.",
        )
    left, right, each, total = _pairings(u, v, image, back)
    if not max(each.max(), total) <= rtol:
        inside = _interior(u), tf.nest.map_structure(_interior, v)
        maps = operator(inside[0], *extra), operator.adjoint(inside[1], *extra, **told)
        ratio = divide(right, left)
        if total <= rtol:
            cause = "one of the maps mixes the images of a batch or changes their order."
        elif np.isfinite(ratio).all() and np.ptp(ratio) <= 1e-3 * abs(ratio.mean()):
            cause = f"the adjoint is {ratio.mean():.6g} times the right one: a scale or a sign."
        elif _pairings(*inside, *maps)[2].max() <= rtol:
            cause = (
                "the border, since images that vanish near it pass. The adjoint of zero padding "
                "crops, of circular padding wraps, of reflecting padding folds back."
            )
        else:
            cause = (
                "a kernel transposed where it should be flipped (in the adjoint both axes reverse "
                "and the channels swap), an even kernel shifted by a pixel (its padding swaps "
                "sides), or a complex conjugate left out."
            )
        fail(
            f"{name}: <K u, v> and <u, Kᵀ v> differ.\n  <K u, v> for each image:  {left}\n"
            f"  <u, Kᵀ v> for each image: {right}\n  relative error: {each}, of the sum: "
            f"{total:.2e}, allowed: {rtol:.1e}",
            cause,
        )
    a, b = 1.75, -0.5  # exact in every dtype; a + b is not 1, so that an offset shows
    second, both = operator(other, *extra), operator(a * u + b * other, *extra)
    difference = tf.nest.map_structure(
        lambda x, y, z: to_numpy(z) - a * to_numpy(x) - b * to_numpy(y), image, second, both
    )
    error = divide(norm_of(difference), abs(a) * norm_of(image) + abs(b) * norm_of(second))
    if not error.max() <= rtol:
        fail(
            f"{name}: K(a u₁ + b u₂) and a K u₁ + b K u₂ differ; relative error for each image: "
            f"{error}, allowed: {rtol:.1e}",
            "a bias, clipping, normalisation, or noise drawn at each call.",
        )
    if is_operator:
        operator_checks.check_bound(name, operator, u, v, data, image, back, rtol)
        operator_checks.check_norms(name, operator, u, data, rtol)
    return float(max(each.max(), total))


def _pairings(u, v, image, back):
    """<K u, v> and <u, Kᵀ v> for each image, and the relative errors of each and of the sums."""
    left, right = inner_of(image, v), inner(u, back)
    scale = norm_of(image) * norm_of(v)
    scale = np.where(scale > 0, scale, norm(u) * norm(back))
    total = divide(abs(left.sum() - right.sum()), scale.sum())
    return left, right, divide(np.abs(left - right), scale), float(total)


def _interior(images):
    """The images with all but their middle set to zero."""
    mask = np.ones(images.shape)
    for axis, length in enumerate(images.shape[1:3], start=1):
        outside = np.abs(np.arange(length) - (length - 1) / 2) > length / 4
        mask[(slice(None),) * axis + (outside,)] = 0
    return images * tf.cast(mask, images.dtype)

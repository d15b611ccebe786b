"""The dot-product test of a linear operator and its adjoint."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.numerics.shapes import tensors_of
from deq_keras.operators import LinearOperator
from deq_keras.testing.report import (
    check_dtype_of,
    default_rtol,
    divide,
    fail,
    name_of,
    normal,
    to_numpy,
)

_POWER_STEPS = 10


def dot_test(operator, shape, dtype="float32", seed=0, data=None, rtol=None):
    """Checks that an operator is linear and that its `adjoint` is its adjoint.

    For random images it compares `<K u, v>` with `<u, Kᵀ v>`, image by image and summed, and
    `K(a u₁ + b u₂)` with `a K u₁ + b K u₂`. Complex numbers count as pairs of real ones, so the
    inner product is `Re <a, b>`; measurements may have any shape, and be nested lists of tensors.
    Test odd, even and non-square sizes: many a mistake needs one of them to show.

    Of a Keras layer it checks that a symbolic call states the shape and dtype of the measurement,
    and of a `deq_keras.operators.LinearOperator` that what `bind` returns does the same as the
    operator, and that `operator_norm` is not below a lower bound found by power iteration.

    Args:
        operator: has `operator(u)` and `operator.adjoint(v)`.
        shape: shape of `u`, `(batch, height, width, channels)`.
        dtype: dtype of `u`; float64 proves more.
        seed: of the random images.
        data: second argument of both maps, if they need one: a tensor or any structure of them.
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
    forward, adjoint = _maps(operator, shape, data)
    rng = np.random.default_rng(seed)
    u, other = normal(rng, shape, dtype), normal(rng, shape, dtype)
    image = forward(u)
    v = tf.nest.map_structure(lambda leaf: normal(rng, leaf.shape, leaf.dtype), image)
    back = adjoint(v)
    _check_shapes(name, u, image, back)
    if isinstance(operator, keras.layers.Layer):
        _check_symbolic(name, operator, u, data, image)
    error = _check_adjoint(name, forward, adjoint, u, v, image, back, rtol)
    a, b = 1.75, -0.5  # exact in every dtype; a + b is not 1, so that an offset shows
    combined = a * _rows(image) + b * _rows(forward(other))
    scale = abs(a) * _norm(image) + abs(b) * _norm(forward(other))
    _check_same(
        f"{name}: K(a u₁ + b u₂) and a K u₁ + b K u₂ differ",
        _rows(forward(a * u + b * other)) - combined,
        scale,
        rtol,
        "a bias, clipping, normalisation, or noise drawn at each call.",
    )
    if isinstance(operator, LinearOperator):
        _check_bound(name, operator, u, v, data, image, back, rtol)
        _check_norm(name, operator, forward, adjoint, u, data, rtol)
    return error


def _maps(operator, shape, data):
    extra = () if data is None else (data,)
    # The size of the images need not follow from that of their measurements.
    size = {"image_shape": tuple(shape)} if isinstance(operator, LinearOperator) else {}
    return (lambda u: operator(u, *extra)), (lambda v: operator.adjoint(v, *extra, **size))


def _check_shapes(name, u, image, back):
    leaves = tf.nest.flatten(image)
    if any(leaf.shape[:1] != u.shape[:1] for leaf in leaves):
        fail(
            f"{name}: K u has the shapes {[tuple(leaf.shape) for leaf in leaves]}.",
            "a measurement without the batch on its first axis.",
        )
    precise = all(leaf.dtype.real_dtype == u.dtype.real_dtype for leaf in leaves)
    if back.shape != u.shape or back.dtype != u.dtype or not precise:
        fail(
            f"{name}: K u has dtype {', '.join(leaf.dtype.name for leaf in leaves)}, and Kᵀ v has "
            f"shape {tuple(back.shape)} and dtype {back.dtype.name}.",
            "a cast, or a padding or stride that forgets the size of the image.",
        )


def _check_symbolic(name, operator, u, data, image):
    """A symbolic call states the shape and dtype that a call has."""

    def symbolic(leaf):
        return None if leaf is None else keras.KerasTensor(leaf.shape, leaf.dtype.name)

    data = tf.nest.map_structure(symbolic, tensors_of(data))
    for shape in (tuple(u.shape), (None, *u.shape[1:])):
        spec = operator(keras.KerasTensor(shape, u.dtype.name), *([] if data is None else [data]))
        stated, actual = tf.nest.flatten(spec), tf.nest.flatten(image)
        fits = len(stated) == len(actual) and all(
            a.shape.is_compatible_with(s.shape) and a.dtype.name == s.dtype
            for s, a in zip(stated, actual, strict=True)
        )
        if not fits:
            fail(
                f"{name}: a symbolic call for images of shape {shape} states measurements "
                f"{[(s.dtype, tuple(s.shape)) for s in stated]}, and they are "
                f"{[(a.dtype.name, tuple(a.shape)) for a in actual]}.",
                "a `compute_output_shape`, `compute_output_spec` or `measurement_shape` of another "
                "size or dtype: one that is derived for layers that keep them, say.",
            )


def _check_adjoint(name, forward, adjoint, u, v, image, back, rtol):
    left, right, each, total = _pairings(u, v, image, back)
    if max(each.max(), total) <= rtol:
        return float(max(each.max(), total))
    ratio = divide(right, left)
    imaginary = tf.nest.map_structure(
        lambda leaf: leaf - tf.cast(tf.math.real(leaf), leaf.dtype), v
    )
    if total <= rtol:
        cause = "one of the maps mixes the images of a batch or changes their order."
    elif np.isfinite(ratio).all() and np.ptp(ratio) <= 1e-3 * abs(ratio.mean()):
        cause = f"the adjoint is {ratio.mean():.6g} times the right one: a scale or a sign."
    elif _norm(imaginary).any() and not _norm(adjoint(imaginary)).any():
        cause = "the adjoint drops the imaginary part of the measurement, by a cast, say."
    elif _passes_inside(forward, adjoint, u, v, rtol):
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
    return None


def _check_bound(name, operator, u, v, data, image, back, rtol):
    """The maps of `bind` are those of the operator."""
    bound = operator.bind(tuple(u.shape), data, u.dtype)
    twice = operator.adjoint(image, data, image_shape=tuple(u.shape))
    for part, actual, expected, scale in (
        ("forward(u)", bound.forward(u), image, _norm(image)),
        ("adjoint(v)", bound.adjoint(v), back, _norm(back)),
        ("normal(u)", bound.normal(u), twice, _norm(twice)),
    ):
        _check_same(
            f"{name}: bind(...).{part} is not what the operator gives",
            _rows(actual) - _rows(expected),
            scale,
            10 * rtol,
            "`bind` and `call` or `adjoint` were written twice, or `normal` is that of a "
            "convolution where the borders are none.",
        )


def _check_norm(name, operator, forward, adjoint, u, data, rtol):
    """`‖K u‖ <= operator_norm ‖u‖` for the images that power iteration finds."""
    norm = to_numpy(operator.operator_norm(data, tuple(u.shape)))
    for _ in range(_POWER_STEPS):
        length = tf.cast(_norm(u).reshape(-1, 1, 1, 1), u.dtype)
        u = adjoint(forward(tf.math.divide_no_nan(u, length)))
    found = divide(_norm(forward(u)), _norm(u))
    if not (norm >= found * (1 - 10 * rtol)).all():
        fail(
            f"{name}: operator_norm is {norm}, but there are images with ‖K u‖ / ‖u‖ = {found}.",
            "a norm for images of another size, for other data, or without the border.",
        )


def _check_same(message, difference, scale, rtol, cause):
    error = divide(np.sqrt(np.sum(difference**2, 1)), scale)
    if not error.max() <= rtol:
        fail(f"{message}; relative error for each image: {error}, allowed: {rtol:.1e}", cause)


def _rows(structure):
    """Real rows `(batch, n)` in double precision, with complex numbers as pairs."""
    parts = []
    for leaf in tf.nest.flatten(structure):
        array = to_numpy(leaf)
        parts += [array.real, array.imag] if np.iscomplexobj(array) else [array]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def _norm(structure):
    """The Euclidean norm for each image."""
    return np.sqrt(np.sum(_rows(structure) ** 2, axis=1))


def _pairings(u, v, image, back):
    """<K u, v> and <u, Kᵀ v> for each image, and the relative errors of each and of the sums."""
    left = np.sum(_rows(image) * _rows(v), 1)
    right = np.sum(_rows(u) * _rows(back), 1)
    scale = _norm(image) * _norm(v)
    scale = np.where(scale > 0, scale, _norm(u) * _norm(back))
    total = divide(abs(left.sum() - right.sum()), scale.sum())
    return left, right, divide(np.abs(left - right), scale), float(total)


def _passes_inside(forward, adjoint, u, v, rtol):
    """Whether the test passes for images that vanish near the border."""
    if any(leaf.shape[1:3] != u.shape[1:3] for leaf in tf.nest.flatten(v)):
        return False  # a measurement that is no such image
    u, v = _interior(u), tf.nest.map_structure(_interior, v)
    return _pairings(u, v, forward(u), adjoint(v))[2].max() <= rtol


def _interior(images):
    """The images with all but their middle set to zero."""
    mask = np.ones(images.shape)
    for axis, length in enumerate(images.shape[1:3], start=1):
        outside = np.abs(np.arange(length) - (length - 1) / 2) > length / 4
        mask[(slice(None),) * axis + (outside,)] = 0
    return images * tf.cast(mask, images.dtype)

"""Checks of what a linear operator states of itself: shapes, dtypes, bound maps and its norm."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.numerics.shapes import map_shapes, shapes_of
from deq_keras.testing.report import blame, divide, fail, inner, to_numpy

_ITERATIONS = 20


def inner_of(a, b):
    """Real inner product of each image's measurements, tensors or structures of them."""
    pairs = zip(tf.nest.flatten(a), tf.nest.flatten(b), strict=True)
    return np.sum([inner(x, y) for x, y in pairs], axis=0)


def norm_of(a):
    """Euclidean norm of each image's measurements."""
    return np.sqrt(inner_of(a, a))


def check_stated_shapes(name, operator, u, data, measurement):
    """Compares what a symbolic model and `measurement_shape` state with a real measurement."""
    real = [(tuple(y.shape), y.dtype.name) for y in tf.nest.flatten(measurement)]
    batches = [(len(u), "of this size"), (None, "of an unknown batch")]
    for batch, words in batches:
        cause = "an operation that needs to know the size of the batch."
        with blame(f"{name}: a symbolic image {words}", cause):
            image = keras.KerasTensor((batch, *u.shape[1:]), u.dtype.name)
            spec = operator.compute_output_spec(image, _symbolic(data, batch))
        stated = [(tuple(y.shape), y.dtype) for y in tf.nest.flatten(spec)]
        if not _agree(stated, real):
            fail(
                f"{name}: a symbolic model states measurements {stated} of an image {words}. Those "
                f"of a call are {real}.",
                "a `compute_output_spec` that forgets a stride or takes complex for real numbers.",
            )
    shapes = []
    map_shapes(shapes.append, operator.measurement_shape(tuple(u.shape), shapes_of(data, True)))
    if not _agree([(tuple(s), dtype) for s, (_, dtype) in zip(shapes, real, strict=True)], real):
        fail(
            f"{name}: `measurement_shape` states {shapes}. The shapes of a call are "
            f"{[shape for shape, _ in real]}.",
            "a `measurement_shape` that forgets a stride, or swaps height and width.",
        )


def check_bound(name, operator, u, v, data, measurement, back, rtol):
    """Compares the maps that `bind` gives with `call` and `adjoint`."""
    bound = operator.bind(tuple(u.shape), data)
    twice = operator.adjoint(measurement, data, image_shape=tuple(u.shape))
    for word, found, expected in (
        ("forward(u)", bound.forward(u), measurement),
        ("adjoint(v)", bound.adjoint(v), back),
        ("normal(u)", bound.normal(u), twice),
    ):
        difference = tf.nest.map_structure(lambda x, y: to_numpy(x) - to_numpy(y), found, expected)
        error = divide(norm_of(difference), norm_of(expected))
        if not error.max() <= 10 * rtol:
            fail(
                f"{name}: `bind(...).{word}` is not what call and adjoint give; relative error for "
                f"each image: {error}, allowed: {10 * rtol:.1e}.",
                "a `bind` that was changed without `call` and `adjoint`, or the other way round.",
            )
    _, height, width, _ = u.shape
    if bound.spectrum is not None:
        spectrum = bound.spectrum()
        shape = tuple(spectrum.shape)
        fits = shape[0] in (1, len(u)) and shape[1:] == (height, width // 2 + 1)
        if not fits or not np.min(spectrum) >= -10 * rtol * np.max(spectrum):
            fail(
                f"{name}: the spectrum has shape {shape} and minimum {np.min(spectrum)}.",
                "a layout other than that of `tf.signal.rfft2d`, or a sign.",
            )


def check_norms(name, operator, u, data, rtol):
    """Compares the stated norm with a power iteration, which can only find less."""
    shape = tuple(u.shape)
    normal = operator.bind(shape, data).normal
    stated = np.broadcast_to(to_numpy(operator.operator_norm(data, shape)), (len(u),))
    smallest = np.broadcast_to(to_numpy(operator.smallest_singular_value(data)), (len(u),))
    slack = 1 + max(100 * rtol, 1e-9)
    for _ in range(_ITERATIONS):
        length = norm_of(u)
        u = u / tf.cast(np.where(length > 0, length, 1).reshape(-1, 1, 1, 1), u.dtype)
        image = normal(u)
        found = np.sqrt(np.maximum(inner(u, image), 0))
        if not np.all(found <= stated * slack):
            kind = "certified" if operator.certified else "estimated"
            fail(
                f"{name}: the {kind} norm is {stated} for each image. A power iteration finds an "
                f"image of norm 1 whose measurement has norm {found}.",
                "a bound for another size, padding or scale; a step size from it would diverge.",
            )
        if not np.all(smallest <= found * slack + 1e-30) and np.all(length > 0):
            fail(
                f"{name}: the smallest singular value is said to be {smallest} for each image. An "
                f"image of norm 1 has a measurement of norm {found}.",
                "a value for the measurements that are known, where others are lost.",
            )
        u = image


def _symbolic(data, batch):
    """The data as symbolic tensors; the first axis is the batch, or one for all."""

    def symbolic(leaf):
        leaf = tf.convert_to_tensor(leaf)
        first = 1 if leaf.shape[0] == 1 else batch
        return keras.KerasTensor((first, *leaf.shape[1:]), leaf.dtype.name)

    return tf.nest.map_structure(lambda leaf: None if leaf is None else symbolic(leaf), data)


def _agree(stated, real):
    return len(stated) == len(real) and all(
        tf.TensorShape(a).is_compatible_with(b) and c == d
        for (a, c), (b, d) in zip(stated, real, strict=True)
    )

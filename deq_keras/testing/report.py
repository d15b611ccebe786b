"""Tools of the checks: arithmetic in double precision, and failures with their likely cause."""

import contextlib

import keras
import numpy as np
import tensorflow as tf


def fail(message, cause):
    """Raise an `AssertionError` with a message and the likely cause."""
    raise AssertionError(f"{message}\nLikely cause: {cause}")


@contextlib.contextmanager
def blame(message, cause):
    """Turn any exception inside into an `AssertionError` that names the likely cause."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        first = error
        while first.__cause__ or first.__context__:  # Keras wraps what happened in long messages
            first = first.__cause__ or first.__context__
        text = f"{message} raised {type(first).__name__}: {str(first)[:300]}"
        raise AssertionError(f"{text}\nLikely cause: {cause}") from error


def check_close(message, actual, expected, rtol, cause):
    """Relative error of each image of `actual`, at most `rtol`; returns the largest."""
    if tuple(actual.shape) != tuple(expected.shape):
        fail(f"{message} has shape {tuple(actual.shape)}, expected {tuple(expected.shape)}.", cause)
    actual, expected = to_numpy(actual), to_numpy(expected)
    error = divide(norm(actual - expected), norm(expected))
    if not error.max() <= rtol:
        row = int(np.argmax(error))  # the first NaN, if there is one
        worst = np.unravel_index(np.argmax(np.abs(actual - expected)[row]), actual.shape[1:])
        index = (row, *(int(i) for i in worst))
        fail(
            f"{message} is wrong by {error} for each image, relative, allowed: {rtol:.1e}; at "
            f"{index} it is {actual[index]:.8g}, expected {expected[index]:.8g}.",
            cause,
        )
    return float(error.max())


def name_of(thing):
    """The name of a class, function or object, for messages."""
    return getattr(thing, "__name__", type(thing).__name__)


def default_rtol(name, rtol, dtype, defaults):
    """The tolerance asked for, or the default one of a dtype."""
    if rtol is None and dtype not in defaults:
        raise ValueError(f"{name} expects an explicit `rtol` for a dtype other than {[*defaults]}.")
    return defaults[dtype] if rtol is None else rtol


def check_dtype_of(name, layer, dtype):
    """Refuse a layer that computes in another dtype than the check asks for."""
    if isinstance(layer, keras.layers.Layer) and layer.compute_dtype != dtype:
        raise ValueError(
            f"{name} expects a layer that computes in {dtype}. Received one that computes in "
            f"{layer.compute_dtype}. Build it with dtype={dtype!r}, or pass that dtype here."
        )


def normal(rng, shape, dtype):
    """A tensor of normal random numbers."""
    values = rng.standard_normal(tuple(shape))
    if tf.as_dtype(dtype).is_complex:
        values = values + 1j * rng.standard_normal(tuple(shape))
    return tf.cast(values, dtype)


def to_numpy(tensor):
    """In double precision, so that the checks add no rounding errors of their own."""
    array = np.asarray(tf.convert_to_tensor(tensor))
    return array.astype(complex if np.iscomplexobj(array) else float)


def inner(a, b):
    """Real inner product of each image of `a` with that of `b`, shape `(batch,)`."""
    products = np.real(to_numpy(a) * np.conj(to_numpy(b)))
    return products.reshape(len(products), -1).sum(axis=1)


def norm(a):
    """Euclidean norm of each image."""
    return np.sqrt(inner(a, a))


def divide(a, b):
    """`a / b` with `0 / 0 = 0`, `a / 0 = inf`; NaN stays."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.equal(a, 0), 0.0, np.divide(a, b))


def unit(d, otherwise=None):
    """Each image divided by its norm; one that is zero is taken from `otherwise`."""
    length = norm(d).reshape(-1, *[1] * (d.ndim - 1))
    return np.where(length > 0, divide(d, length), 0.0 if otherwise is None else otherwise)

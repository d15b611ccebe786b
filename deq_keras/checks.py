"""Checks of arguments: each returns a valid value, and explains an invalid one."""

import difflib
import math
import numbers


def unknown_name_error(kind, name, known):
    """A `ValueError` that lists the known names and the nearest to the one received."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ValueError(f"Unknown {kind}: {name!r}.{hint} Expected one of {sorted(known)}.")


def one_of(name, value, allowed):
    """`value` if it is among the allowed ones, else a `ValueError` with the nearest of them."""
    if value not in allowed:
        near = difflib.get_close_matches(str(value).lower(), list(allowed), 1, 0.4)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(
            f"Expected `{name}` to be one of {tuple(allowed)}. Received {name}={value!r}.{hint}"
        )
    return value


def solvable(layer):
    """A `ValueError` for a layer whose variables, in which solves run, are of half precision."""
    if layer.variable_dtype in ("float16", "bfloat16"):
        raise ValueError(
            "Expected variables of float32 or float64, in which a fixed point can be solved for. "
            f"Received {type(layer).__name__} of dtype={layer.variable_dtype!r}. Use "
            f"dtype='mixed_{layer.variable_dtype}' for outputs of half precision."
        )


def no_integer(what, tensor):
    """The tensor that something returns, or a `ValueError` if it has no derivative."""
    if not (tensor.dtype.is_floating or tensor.dtype.is_complex):
        raise ValueError(
            f"Expected {what} to return floating-point numbers, which alone have derivatives. "
            f"Received {tensor.dtype.name}."
        )
    return tensor


def real(image, operator):
    """The image `K^T y` itself; a `ValueError` if it is complex, as no operator makes it."""
    if image.dtype.is_complex:
        raise ValueError(
            f"Expected {type(operator).__name__} to make real images of a measurement. Received "
            f"{image.dtype.name}, as the measurement is complex: take its real part, or an "
            "operator with complex measurements such as `operators.FourierMask`."
        )
    return image


def kernel_size(value):
    """`(height, width)` from one positive integer or a pair of them, else a `ValueError`."""
    try:
        pair = (value,) * 2 if isinstance(value, numbers.Real) else tuple(value)
        sides = tuple(positive_int("kernel_size", side) for side in pair)
    except (TypeError, ValueError):
        sides = ()
    if len(sides) != 2:
        raise ValueError(
            "Expected `kernel_size` to be a positive integer or a pair of them (height, width). "
            f"Received kernel_size={value!r}."
        )
    return sides


def shape_4d(owner, shape):
    """The shape of images, a tuple of four with known channels, else a `ValueError`."""
    if shape is None or len(shape) != 4 or shape[-1] is None:
        received = None if shape is None else tuple(shape)
        raise ValueError(
            f"{owner} expected images of shape (batch, height, width, channels) with a known "
            f"number of channels. Received shape {received}. Add the missing axes, for example "
            "with `u[None, ..., None]` for one grey image."
        )
    return tuple(shape)


def positive(name, value, zero: bool = False, upper=None):
    """`value` as a float if it is a finite number > 0 (>= 0 with `zero`), else a ValueError."""
    number = _float(value)
    fits = (number >= 0 if zero else number > 0) and number < float("inf")
    if not fits or (upper is not None and number > upper):
        limit = "" if upper is None else f" and <= {upper}"
        raise ValueError(
            f"Expected `{name}` to be a finite number {'>=' if zero else '>'} 0{limit}. "
            f"Received {name}={value!r}."
        )
    return number


def _float(value):
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def positive_int(name, value, upper=None):
    """`value` if it is an integer >= 1 (and <= `upper`), else a ValueError."""
    number = _float(value)
    fits = number >= 1 and number.is_integer() and (upper is None or number <= upper)
    if isinstance(value, bool) or not fits:
        limit = "" if upper is None else f" and <= {upper}"
        raise ValueError(
            f"Expected `{name}` to be an integer >= 1{limit}. Received {name}={value!r}."
        )
    return int(value)

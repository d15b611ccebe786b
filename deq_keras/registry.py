"""`get()` for names, configurations and objects, in Keras's manner."""

import difflib
import math

import keras


class Configurable:
    """An object that Keras can serialise by its constructor's arguments."""

    def get_config(self):
        """The arguments of the constructor."""
        return {}

    @classmethod
    def from_config(cls, config):
        """An object from what `get_config` returned."""
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{k}={v!r}" for k, v in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


def unknown_name_error(kind, name, known):
    """A `ValueError` that lists the known names and the nearest to the one received."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return ValueError(f"Unknown {kind}: {name!r}.{hint} Expected one of {sorted(known)}.")


def get(identifier, kind, classes, base):
    """Turn a name, a serialised configuration or an object into an object of class `base`.

    Args:
        identifier: A name among `classes`, a dictionary made by
            `keras.saving.serialize_keras_object`, or an instance of `base`.
        kind: The word for such an object in error messages.
        classes: Dictionary from name to class (constructed without arguments).
        base: Class that the result must be an instance of.

    Raises:
        ValueError: If the name is not known, with the nearest known name.
        TypeError: If the identifier is of another type.
    """
    if isinstance(identifier, base):
        return identifier
    if isinstance(identifier, str):
        if identifier not in classes:
            raise unknown_name_error(kind, identifier, classes)
        return classes[identifier]()
    if isinstance(identifier, dict):
        found = keras.saving.deserialize_keras_object(identifier)
        if isinstance(found, base):
            return found
    raise TypeError(
        f"Expected a {kind}: one of {sorted(classes)}, an instance of {base.__name__}, or a "
        f"serialised configuration. Received {identifier!r}."
    )


def positive(name, value, zero=False, upper=None):
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

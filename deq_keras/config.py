"""Configurations of objects: `get()` for names, configurations and objects, as in Keras."""

import inspect

import keras
import numpy as np

from deq_keras.checks import unknown_name_error


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


def serialise(value):
    """An object's configuration; a name, `None` or another plain value as it is."""
    if value is None or isinstance(value, (str, int, float)):
        return value
    return keras.saving.serialize_keras_object(value)


def deserialise(config, *names):
    """A copy of `config` with the named entries turned from configurations into objects."""
    config = dict(config)
    for name in names:
        if isinstance(config.get(name), dict):
            config[name] = keras.saving.deserialize_keras_object(config[name])
    return config


def described(layer):
    """`Name(argument=value, ...)` of a layer: those arguments that are not the defaults.

    Of a layer whose arguments cannot be had, as it defines no `get_config`, its name.
    """
    try:
        config = layer.get_config()
    except (AttributeError, NotImplementedError, RuntimeError):  # or it is not constructed yet
        return f"<{type(layer).__name__}>"
    return _described(type(layer), config)


def _described(cls, config):
    defaults = {}  # in the order of the arguments
    for base in cls.__mro__:
        if "__init__" in vars(base):
            for name, parameter in inspect.signature(base.__init__).parameters.items():
                defaults.setdefault(name, parameter.default)
    defaults.setdefault("trainable", True)
    config = dict(config)
    if str(config.get("name")).rstrip("_0123456789").replace("_", "") == cls.__name__.lower():
        del config["name"]  # Keras's own
    policy = config.get("dtype")
    if isinstance(policy, dict):
        config["dtype"] = policy = policy["config"]["name"]
    if policy == keras.config.dtype_policy().name:
        del config["dtype"]
    order = sorted(config, key=lambda name: [*defaults, name].index(name))
    shown = {name: _text(config[name]) for name in order}
    parts = [
        f"{name}={text}"
        for name, text in shown.items()
        if name not in defaults or not _is_default(config[name], text, defaults[name])
    ]
    return f"{cls.__name__}({', '.join(parts)})"


def _is_default(value, text, default):
    if isinstance(default, str) and text.endswith("()"):  # "implicit" is `Implicit()`
        return text[:-2].lower() == default.replace("_", "")
    pair = (default, default)  # a kernel size of 7 is kept as (7, 7)
    return type(value) in (type(default), list, tuple) and value in (default, pair, [*pair])


def _text(value):
    """A value of a configuration as Python would write it, arrays by their shape."""
    if isinstance(value, dict) and {"class_name", "config"} <= set(value):
        cls = keras.saving.get_registered_object(value.get("registered_name"))
        cls = cls or getattr(keras.initializers, value["class_name"], None)
        if cls is None or issubclass(cls, keras.Model):
            return f"<{value['class_name']}>"
        return _described(cls, value["config"] or {})
    if isinstance(value, list | tuple):
        if value and isinstance(value[0], dict):
            return f"[{', '.join(map(_text, value))}]"
        if len(repr(value)) > 60:
            return f"<array of shape {np.shape(value)}>"
    return repr(value)

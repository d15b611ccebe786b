"""Configurations of objects: `get()` for names, configurations and objects, as in Keras."""

import keras

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

"""Checks of what a configuration says."""

import importlib
import re

from trainers.process.errors import ConfigurationError


def entry(config, name):
    """The entry of a dotted name."""
    for part in name.split("."):
        config = config[part]
    return config


def names(config, prefix=""):
    """The dotted names of all entries of a nested configuration."""
    for key, value in config.items():
        if hasattr(value, "items"):
            yield from names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def check_entries(config, reference, program):
    """Refuses a configuration that lacks entries: that of another program, say.

    Raises:
        ConfigurationError: If `reference` has entries that `config` has not.
    """
    missing = sorted(set(names(reference)) - set(names(config)))
    if missing:
        raise ConfigurationError(
            f"Expected --config to be a configuration of experiments.{program}. Received one "
            f"without {', '.join(missing[:5])}."
        )


def check_seed(config):
    """Raises a `ConfigurationError` unless the seed is one that NumPy takes."""
    if not 0 <= config.seed < 2**32:
        raise ConfigurationError(f"Expected 0 <= seed < 2**32. Received {config.seed}.")


def check_counts(config, **least):
    """Refuses numbers that are too small; `section__entry=least`, and `None` is always right.

    Raises:
        ConfigurationError: For the first that is wrong.
    """
    for name, limit in least.items():
        name = name.replace("__", ".")
        value = entry(config, name)
        if value is not None and value < limit:
            raise ConfigurationError(f"Expected {name} >= {limit}. Received {value}.")


def check_positive(config, *entries):
    """Raises a `ConfigurationError` unless these numbers are finite and positive, or `None`."""
    for name in entries:
        value = entry(config, name)
        if value is not None and not 0 < value < float("inf"):
            raise ConfigurationError(f"Expected {name} to be finite and > 0. Received {value}.")


def check_function_name(name):
    """Raises a `ConfigurationError` unless the name is like `"package.module:function"`."""
    if not re.fullmatch(r"[\w.]+:\w+", name):
        raise ConfigurationError(
            "Expected `model` to be 'bilevel', 'equilibrium' or the name of a function of your "
            f"own, 'package.module:function'. Received {name!r}."
        )


def function(name):
    """The function that `"package.module:function"` names.

    Raises:
        ConfigurationError: If there is nothing of that name.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"The model {name!r} cannot be imported: {error}.") from error
    if not callable(found):
        raise ConfigurationError(f"Expected {name!r} to be a function. Received {found!r}.")
    return found

"""Priors and denoisers by name, from their sections of a configuration."""

import inspect
import re

import deq_keras as dk
from trainers.process.errors import ConfigurationError, unknown_name


def prior_class(name):
    """The class of `deq_keras.priors` that a configuration names: `"fields_of_experts"`, say.

    Raises:
        ConfigurationError: If there is none, with the nearest known name.
    """
    known = {
        key: value
        for key, value in _by_name(dk.priors).items()
        if inspect.isclass(value) and issubclass(value, dk.priors.Prior)
        if value is not dk.priors.Prior and not key.startswith("untied")
        if "prior" not in inspect.signature(value).parameters  # made of another one
    }
    if name not in known:
        raise unknown_name("prior", name, known)
    return known[name]


def denoiser(section):
    """A denoiser from its section of a configuration: `name`, of `deq_keras.denoisers`, and its
    arguments.

    Raises:
        ConfigurationError: If there is no denoiser of that name, or it takes other arguments.
    """
    known = {
        key: value
        for key, value in _by_name(dk.denoisers).items()
        if "denoiser" not in inspect.signature(value).parameters  # made of another one
    }
    if section.name not in known:
        raise unknown_name("denoiser", section.name, known)
    arguments = {key: value for key, value in section.items() if key != "name"}
    _check_arguments("denoiser", section.name, known[section.name], arguments)
    return known[section.name](**arguments)


def _by_name(module):
    """What a module lists, by names as in a configuration: `UNet` as `"unet"`."""
    return {
        re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower(): getattr(module, key)
        for key in module.__all__
    }


def _check_arguments(kind, name, cls, arguments):
    known = set(inspect.signature(cls).parameters) - {"kwargs"}
    if unknown := sorted(set(arguments) - known):
        raise ConfigurationError(
            f"The {kind} {name!r} takes the arguments {sorted(known)}. Received also {unknown}: "
            "write a configuration whose section `prior` does without."
        )


def prior(section, tied=True, **options):
    """A prior from its section of a configuration: `name`, and the arguments of its class.

    Args:
        section: The section. What it is made of has a section of its own there: `denoiser` of a
            denoiser energy, `first` and `second` of a difference of two priors.
        tied: Whether it must have an energy. Otherwise its untied form is taken, if it has one.
        **options: Arguments of the untied form.

    Raises:
        ConfigurationError: If there is no prior of that name, or it takes other arguments.
    """
    cls = prior_class(section.name)
    parts = {"denoiser": denoiser, "first": prior, "second": prior}
    arguments = {
        key: parts[key](value) if key in parts else value
        for key, value in section.items()
        if key != "name"
    }
    _check_arguments("prior", section.name, cls, arguments)
    if not tied:
        cls = getattr(dk.priors, f"Untied{cls.__name__}", cls)
    if unknown := sorted(set(options) - set(inspect.signature(cls).parameters)):
        raise ConfigurationError(
            f"The prior {section.name!r} has nothing that train.{unknown[0]} could limit. Received "
            f"train.{unknown[0]}={options[unknown[0]]}: leave it out."
        )
    return cls(**arguments, **options)

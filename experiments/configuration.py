"""Configurations: checks of what they say, and what they say of a training."""

from experiments import models, priors, supervision
from trainers import datasets
from trainers.callbacks import phases
from trainers.process.errors import ConfigurationError
from trainers.training import Options

VALIDATIONS = ("patches", "images", "")


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

    Another prior has other arguments, so of the section `prior` only `name` is needed.

    Raises:
        ConfigurationError: If `reference` has entries that `config` lacks.
    """
    needed = {n for n in names(reference) if not n.startswith("prior.") or n == "prior.name"}
    missing = sorted(needed - set(names(config)))
    if missing:
        raise ConfigurationError(
            f"Expected --config to be a configuration of experiments.{program}. Received one "
            f"without {', '.join(missing[:5])}."
        )


def use_folder(config, folder):
    """Takes the images from a person's own folder, unless it is `None`."""
    if folder is not None:
        config.data.name, config.data.data_dir = "folder", folder


def check_names(config):
    """Raises a `ConfigurationError` if there is no such prior or data set."""
    priors.prior_class(config.prior.name)
    datasets.get(config.data.name)


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


def check_training(config):
    """Refuses what can be known to be wrong from a configuration of `experiments.train` alone.

    Raises:
        ConfigurationError: With what was expected and received.
    """
    check_seed(config)
    check_counts(
        config,
        train__epochs=1,
        train__steps_per_epoch=1,
        train__batch_size=1,
        train__decay_steps=0,
        train__early_stopping=1,
        train__reduce_on_plateau=1,
        evaluate__training_batches=1,
        evaluate__pictures=0,
    )
    check_positive(config, "train.learning_rate", "train.weight")
    if "step_size" in config.train:  # older trainings can be evaluated
        check_positive(config, "train.step_size")
    training_options(config)
    train = config.train
    models.check_name(config.model)
    supervision.check_name(config)
    check_names(config)
    phases.checked(train.phases)
    if train.validation not in VALIDATIONS:
        raise ConfigurationError(
            f"Expected train.validation to be one of {VALIDATIONS}. Received {train.validation!r}."
        )
    watches = train.early_stopping or train.reduce_on_plateau
    if watches and train.monitor.startswith("val_") and not train.validation:
        raise ConfigurationError(
            f"Expected a train.monitor that is there without validation, such as 'loss'. Received "
            f"{train.monitor!r}."
        )
    if train.reduce_on_plateau and train.decay_steps:
        raise ConfigurationError(
            "Expected a constant rate for train.reduce_on_plateau to reduce. Received "
            f"train.decay_steps={train.decay_steps}: set it to 0."
        )
    known = set(names(config))
    unknown = [name for name in config.may_change if name not in known]
    if unknown:
        raise ConfigurationError(f"Expected entries in may_change. Received {unknown}.")


def training_options(config):
    """The `trainers.training.Options` that a configuration asks for."""
    names = ("accumulation", "clip_norm", "average", "precision", "max_skipped", "keep")
    names += ("save_every", "monitor", "mode")
    return Options(**{name: config.train[name] for name in names})

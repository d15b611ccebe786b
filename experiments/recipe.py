"""What a configuration of `experiments.train` asks for: checks, options, the model."""

from pathlib import Path

from experiments import configuration, methods, models
from trainers.process.errors import ConfigurationError
from trainers.training import Options

VALIDATIONS = ("patches", "images", "")


def check(config):
    """Refuses what can be known to be wrong from the configuration alone.

    Raises:
        ConfigurationError: With what was expected and received.
    """
    configuration.check_seed(config)
    configuration.check_counts(
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
    configuration.check_positive(config, "train.learning_rate", "train.weight")
    options(config)
    train = config.train
    if config.model not in methods.METHODS:
        configuration.check_function_name(config.model)
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
    known = set(configuration.names(config))
    unknown = [name for name in config.may_change if name not in known]
    if unknown:
        raise ConfigurationError(f"Expected entries in may_change. Received {unknown}.")


def options(config):
    """The `trainers.training.Options` that a configuration asks for."""
    names = ("accumulation", "clip_norm", "average", "precision", "max_skipped", "keep")
    names += ("save_every", "monitor", "mode")
    return Options(**{name: config.train[name] for name in names})


def builder(problem, config, weight):
    """The function that makes and compiles the model, for a `trainers.training.Trainer`.

    Args:
        problem: An `experiments.methods.Problem`.
        config: The effective configuration.
        weight: Initial lambda. A model of one's own has none.
    """
    if config.model not in methods.METHODS:
        own = configuration.function(config.model)
        return lambda: own(config)

    def build():
        model = problem.model(getattr(problem, config.model)(weight))
        return models.compiled(model, config.train.learning_rate, config.train.decay_steps or None)

    return build


def first_weight(problem, config, workdir):
    """The initial lambda: the same on all workers, for all find it on the same patches."""
    if config.model not in methods.METHODS:
        return None
    if config.train.weight is not None:
        return config.train.weight
    if any((Path(workdir) / "checkpoints").glob("*.index")):
        return 0.1  # the trained one is in there
    # The equilibrium model is at first the same map, and this is the fastest way to solve for it.
    layer = problem.bilevel()
    problem.model(layer)
    return problem.tune(layer)["weight"]

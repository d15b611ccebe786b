"""What a training compares with: clean images, or measurements alone."""

import deq_keras as dk
from trainers.datasets import pipeline
from trainers.process.errors import ConfigurationError

_CLEAN = (None, "mse", "psnr", "adversarial")
LOSSES = ("mse", "psnr", "adversarial", "sure", "r2r", "noise2noise")


def check_name(config):
    """Refuses a configuration whose `train.loss` there is not, or not for its model.

    Raises:
        ConfigurationError: With those that there are.
    """
    name = config.train.get("loss")
    if name not in (None, *LOSSES):
        raise ConfigurationError(f"Expected train.loss to be one of {LOSSES}. Received {name!r}.")
    if name == "adversarial" and config.model != "denoiser":
        raise ConfigurationError(
            "Expected the model 'denoiser' for train.loss='adversarial', which trains its prior. "
            f"Received {config.model!r}: train the denoiser first, and this model with its folder "
            "as train.start."
        )
    if name not in _CLEAN and ":" in config.model:
        raise ConfigurationError(
            f"Expected train.loss={name!r} for a model of this package. Received "
            f"{config.model!r}: let your function return a `deq_keras.losses.SelfSupervised`."
        )


def with_clean_images(config):
    """The Keras loss between a reconstruction and the clean image."""
    name = config.train.get("loss")
    return dk.losses.NegativePSNR() if name == "psnr" else "mse"


def loss(task, config):
    """The `deq_keras.losses.MeasurementLoss` of a task, or `None` with clean images.

    Args:
        task: An `experiments.tasks.Task`.
        config: The effective configuration.

    Raises:
        ConfigurationError: If the loss says nothing about such measurements.
    """
    name = config.get("train", {}).get("loss")
    if name in _CLEAN:
        return None
    arguments = {"operator": task.operator()}
    if name != "noise2noise":
        arguments["noise_level"] = config[task.name].noise

    def measure(truth, seed, index):
        return found.prepare(lambda *numbers: task.measure(truth, *numbers), seed, index)

    try:
        found = dk.losses.get(name, **arguments)
        pipeline.measurement_spec(measure, config.data.channels)
    except ValueError as error:
        raise ConfigurationError(f"train.loss={name!r}, task {task.name!r}: {error}") from None
    return found

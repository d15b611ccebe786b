"""Tomography: integrals along parallel lines under few angles, with Gaussian noise."""

import deq_keras as dk
from deq_keras.operators import gaussian_noise
from experiments.tasks.task import Task, check_noise
from trainers.process.errors import ConfigurationError

DEFAULTS = {
    "angles": 30,  # spread evenly over 180 degrees
    "pixel_size": 0.01,  # the unit of length of the integrals, so that these are near 1
    "noise": 0.01,  # standard deviation of an integral
}


def task(config):
    """The task for its section of a configuration."""
    noise = check_noise(config.noise, "tomography.noise")

    def operator():
        return dk.operators.Radon(config.angles, pixel_size=config.pixel_size)

    try:
        measured = operator()
    except ValueError as error:
        raise ConfigurationError(f"Wrong entry of `tomography`. {error}") from None

    def measure(truth, seed, index):
        return gaussian_noise(measured.call(truth[None])[0], noise, seed, index)

    return Task(
        "tomography",
        "Tomography",
        f"Integrals of the image along parallel lines, under {config.angles} angles between 0 and "
        f"180 degrees, with Gaussian noise of standard deviation {noise:g}.",
        operator,
        measure,
        lambda measurement: measured.filtered_backprojection(measurement),
        "filtered backprojection",
        square=True,
    )

"""Super-resolution: the image blurred and decimated, with Gaussian noise."""

import tensorflow as tf

import deq_keras as dk
from deq_keras.operators import gaussian_noise
from experiments.tasks.task import Task, check_noise
from trainers.process.errors import ConfigurationError

DEFAULTS = {
    "factor": 2,  # in each dimension; images are cropped to a multiple of it
    "noise": 0.02,  # standard deviation on [0, 1]
}


def task(config):
    """The task for its section of a configuration."""
    noise, factor = check_noise(config.noise, "super_resolution.noise"), config.factor
    if factor not in (2, 3, 4):
        raise ConfigurationError(
            f"Expected super_resolution.factor to be 2, 3 or 4. Received {factor!r}."
        )

    def operator():
        return dk.operators.Downsample(factor)

    measured = operator()

    def measure(truth, seed, index):
        return gaussian_noise(measured.call(truth[None])[0], noise, seed, index)

    def picture(measurement):
        """The image of least norm whose measurement it is."""
        y = tf.nest.flatten(measurement)[0]
        maps = measured.bind(measured.image_shape(tuple(tf.shape(y)[i] for i in range(4))))
        solver = dk.linear_solvers.ConjugateGradient(tolerance=1e-3, max_steps=50)
        return maps.adjoint(solver.solve(lambda v: maps.forward(maps.adjoint(v)), y).value)

    return Task(
        "super_resolution",
        "Super-resolution",
        f"The image is blurred and every pixel in {factor} kept along both axes, with Gaussian "
        f"noise of standard deviation {noise:g}.",
        operator,
        measure,
        picture,
        "pseudo-inverse",
        multiple=factor,
    )

"""Deconvolution: the image blurred by a Gaussian kernel, with Gaussian noise."""

import deq_keras as dk
from deq_keras.operators import gaussian_noise
from experiments.tasks.task import Task, check_noise

DEFAULTS = {
    "kernel_size": 9,
    "stddev": 1.6,  # of the Gaussian kernel, in pixels
    "noise": 0.02,  # standard deviation on [0, 1]
}


def task(config):
    """The task for its section of a configuration."""
    noise = check_noise(config.noise, "deblurring.noise")

    def operator():
        return dk.operators.GaussianBlur(kernel_size=config.kernel_size, stddev=config.stddev)

    measured = operator()

    def measure(truth, seed, index):
        return gaussian_noise(measured.call(truth[None])[0], noise, seed, index)

    return Task(
        "deblurring",
        "Deconvolution",
        f"The image is blurred by a Gaussian kernel of {config.kernel_size} x {config.kernel_size} "
        f"pixels and standard deviation {config.stddev:g} pixels (periodic boundary), with "
        f"Gaussian noise of standard deviation {noise:g}.",
        operator,
        measure,
    )

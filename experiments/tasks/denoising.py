"""Denoising: the image with Gaussian noise."""

import deq_keras as dk
from deq_keras.operators import gaussian_noise
from experiments.tasks.task import Task, check_noise

DEFAULTS = {"noise": 0.1}  # standard deviation on [0, 1]


def task(config):
    """The task for its section of a configuration."""
    noise = check_noise(config.noise, "denoising.noise")
    return Task(
        "denoising",
        "Denoising",
        f"Gaussian noise of standard deviation {noise:g} is added to the image.",
        dk.operators.Identity,
        lambda truth, seed, index: gaussian_noise(truth, noise, seed, index),
    )

"""Denoising: the image with Gaussian noise, of one level or of a level of its own.

Two entries that a configuration may add to the section: `least_noise`, and then the level of each
image is drawn between that and `noise`; `known`, and then each image comes with its level, for a
prior that takes it.
"""

import tensorflow as tf

import deq_keras as dk
from deq_keras.operators import gaussian_noise
from experiments.tasks.task import Task, check_noise
from trainers.process.errors import ConfigurationError

DEFAULTS = {"noise": 0.1}  # standard deviation on [0, 1]


def task(config):
    """The task for its section of a configuration."""
    noise = check_noise(config.noise, "denoising.noise")
    least = check_noise(config.get("least_noise", noise), "denoising.least_noise")
    known = config.get("known", False)
    if least > noise:
        raise ConfigurationError(
            f"Expected denoising.least_noise <= denoising.noise. Received {least:g} > {noise:g}."
        )

    def measure(truth, seed, index):
        level = tf.constant(noise, truth.dtype)
        if least < noise:
            # The level has random numbers of its own.
            pair = tf.stack([seed + 1, index])
            level = tf.random.stateless_uniform((), pair, least, noise, truth.dtype, alg="philox")
        noisy = gaussian_noise(truth, level, seed, index)
        return (noisy, level) if known else noisy

    levels = f"between {least:g} and {noise:g}" if least < noise else f"{noise:g}"
    return Task(
        "denoising",
        "Denoising",
        f"Gaussian noise of standard deviation {levels} is added to the image.",
        dk.operators.Identity,
        measure,
    )

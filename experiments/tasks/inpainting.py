"""Inpainting: some of the pixels, with Gaussian noise, and the mask that says which."""

import tensorflow as tf

import deq_keras as dk
from deq_keras.operators import gaussian_noise
from experiments.tasks.task import Task, check_noise
from trainers.process.errors import ConfigurationError

DEFAULTS = {
    "keep": 0.5,  # share of pixels that are measured
    "noise": 0.05,  # standard deviation on [0, 1]
}


def task(config):
    """The task for its section of a configuration."""
    noise, keep = check_noise(config.noise, "inpainting.noise"), config.keep
    if not 0 < keep <= 1:
        raise ConfigurationError(f"Expected 0 < inpainting.keep <= 1. Received {keep!r}.")

    def measure(truth, seed, index):
        # The mask has random numbers of its own, and one for all channels of a pixel.
        pair = tf.stack([seed + 1, index])
        draws = tf.random.stateless_uniform(tf.shape(truth[..., :1]), pair, alg="philox")
        mask = tf.cast(draws < keep, truth.dtype) * tf.ones_like(truth)
        return mask * gaussian_noise(truth, noise, seed, index), mask

    return Task(
        "inpainting",
        "Inpainting",
        f"{keep:.0%} of the pixels, chosen at random for each image, are measured, with Gaussian "
        f"noise of standard deviation {noise:g}.",
        dk.operators.Mask,
        measure,
    )

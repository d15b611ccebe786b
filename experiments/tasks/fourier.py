"""Compressed sensing in the Fourier domain, as in magnetic resonance imaging of real images."""

import tensorflow as tf

import deq_keras as dk
from deq_keras.operators import gaussian_noise
from experiments.tasks.task import Task, check_noise
from trainers.process.errors import ConfigurationError

DEFAULTS = {
    "keep": 0.33,  # share of the columns of the Fourier plane that are measured
    "centre": 0.08,  # share of the columns, those of low frequency, that always are
    "noise": 0.02,  # standard deviation of real and imaginary part, for images on [0, 1]
}


def task(config):
    """The task for its section of a configuration."""
    noise, keep, centre = check_noise(config.noise, "fourier.noise"), config.keep, config.centre
    if not 0 < keep <= 1 or not 0 <= centre <= keep:
        raise ConfigurationError(
            "Expected 0 < fourier.keep <= 1 and 0 <= fourier.centre <= fourier.keep. Received "
            f"keep={keep!r} and centre={centre!r}."
        )
    measured = dk.operators.FourierMask()
    others = (keep - centre) / (1.0 - centre) if centre < 1 else 1.0

    def measure(truth, seed, index):
        # Columns, at random for each image; the mask has random numbers of its own.
        width = tf.shape(truth)[1]
        column = tf.range(width)
        frequency = tf.cast(tf.minimum(column, width - column), truth.dtype)
        low = frequency < 0.5 * centre * tf.cast(width, truth.dtype)
        draws = tf.random.stateless_uniform([width], tf.stack([seed + 1, index]), alg="philox")
        mask = tf.cast(low | (draws < others), truth.dtype)
        mask = tf.reshape(mask, (1, -1, 1)) * tf.ones_like(truth[..., :1])
        clean = measured.call(truth[None], mask[None])[0]
        noisy = gaussian_noise(clean, noise, seed, index)
        return tf.cast(mask, noisy.dtype) * noisy, mask

    def picture(measurement):
        """The image of the frequencies that were measured, others being zero."""
        y, mask = measurement
        return measured.adjoint(y, mask)

    return Task(
        "fourier",
        "Undersampled Fourier transform",
        f"{keep:.0%} of the columns of the Fourier transform are measured, the lowest frequencies "
        f"among them, others at random for each image, with complex Gaussian noise of standard "
        f"deviation {noise:g} in each part.",
        dk.operators.FourierMask,
        measure,
        picture,
        "adjoint",
    )

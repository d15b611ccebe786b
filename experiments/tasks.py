"""The inverse problems of the paper: an operator, a noise, and how images are measured."""

import difflib
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

import deq_keras as dk
from deq_keras.operators import gaussian_noise


class Task(NamedTuple):
    """An inverse problem.

    Attributes:
        name: Its name in configurations and results.
        title: Its name for people.
        description: A sentence on operator and noise.
        operator: A new `deq_keras.operators.LinearOperator`, for each layer its own.
        measure: `(truth, seed, index) -> measurement`, or `-> (measurement, operator data)`.
        with_data: Whether there is operator data.
    """

    name: str
    title: str
    description: str
    operator: Callable
    measure: Callable
    with_data: bool = False


def _denoising(config):
    noise = _noise(config.denoising.noise, "denoising.noise")
    return Task(
        "denoising",
        "Denoising",
        f"Gaussian noise of standard deviation {noise:g} is added to the image.",
        dk.operators.Identity,
        lambda truth, seed, index: gaussian_noise(truth, noise, seed, index),
    )


def _inpainting(config):
    noise, keep = _noise(config.inpainting.noise, "inpainting.noise"), config.inpainting.keep
    if not 0 < keep <= 1:
        raise ValueError(f"Expected 0 < inpainting.keep <= 1. Received {keep!r}.")

    def measure(truth, seed, index):
        # The mask has numbers of its own, and one for all channels of a pixel.
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
        with_data=True,
    )


def _deblurring(config):
    blur, noise = config.deblurring, _noise(config.deblurring.noise, "deblurring.noise")

    def operator():
        return dk.operators.GaussianBlur(kernel_size=blur.kernel_size, stddev=blur.stddev)

    measured = operator()

    def measure(truth, seed, index):
        return gaussian_noise(measured.call(truth[None])[0], noise, seed, index)

    return Task(
        "deblurring",
        "Deconvolution",
        f"The image is blurred by a Gaussian kernel of {blur.kernel_size} x {blur.kernel_size} "
        f"pixels and standard deviation {blur.stddev:g} pixels (periodic boundary), with Gaussian "
        f"noise of standard deviation {noise:g}.",
        operator,
        measure,
    )


_TASKS = {"denoising": _denoising, "inpainting": _inpainting, "deblurring": _deblurring}


def get(name, config):
    """The task of a name.

    Args:
        name: `"denoising"`, `"inpainting"` or `"deblurring"`.
        config: The whole configuration; the task reads its own section.

    Raises:
        ValueError: If the name is unknown, with the nearest known one, or a number is wrong.
    """
    if name not in _TASKS:
        near = difflib.get_close_matches(str(name), _TASKS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"Unknown task {name!r}.{hint} Expected some of {sorted(_TASKS)}.")
    return _TASKS[name](config)


def _noise(value, name):
    if not 0 <= value < float("inf"):
        raise ValueError(f"Expected {name}, a standard deviation, to be >= 0. Received {value!r}.")
    return float(value)

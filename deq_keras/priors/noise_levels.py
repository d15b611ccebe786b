"""What depends on the noise level: interpolated between the levels for which it is learned."""

import math

import tensorflow as tf

from deq_keras.checks import positive


def check_levels(levels, zero: bool = False) -> tuple[float, ...] | None:
    """Increasing positive numbers, with `zero` or zero, as a tuple of floats; `None` stays.

    Raises:
        ValueError: If they are something else.
    """
    if levels is None:
        return None
    found = tuple(positive("noise_levels", level, zero=zero) for level in levels)
    if not found or any(a >= b for a, b in zip(found, found[1:], strict=False)):
        raise ValueError(
            "Expected `noise_levels` to be one or more increasing standard deviations, such as "
            f"(0.02, 0.1, 0.2), or None. Received noise_levels={levels!r}."
        )
    return found


def check_given(owner, takes, noise_level):
    """Refuses a noise level where none is taken, and none where one is.

    Args:
        owner: What takes it, for messages.
        takes: Whether it does.
        noise_level: `(batch,)` or `None`.

    Raises:
        ValueError: If they do not fit.
    """
    if takes != (noise_level is not None):
        expected = "the noise level of each image" if takes else "none"
        raise ValueError(
            f"{owner} expected `noise_level` to be {expected}. Received {noise_level!r}."
        )


def interpolation_weights(noise_level, levels) -> tf.Tensor:
    """The weights of the levels in a piecewise linear function of the logarithm of the noise level.

    What is inversely proportional to the noise level at all levels is so between them, too, if it
    is learned as a logarithm. Beyond the first and the last level the function is constant.

    Args:
        noise_level: `(batch,)`, standard deviations.
        levels: Increasing positive numbers.

    Returns:
        `(batch, levels)`, not negative, of sum one.

    Example:

    >>> from deq_keras.priors.noise_levels import interpolation_weights
    >>> interpolation_weights(tf.constant([0.1, 0.2, 9.0]), (0.1, 0.4)).numpy().round(2)
    array([[1. , 0. ],
           [0.5, 0.5],
           [0. , 1. ]], dtype=float32)
    """
    place = tf.math.log(tf.clip_by_value(noise_level, levels[0], levels[-1]))
    return linear_weights(place, [math.log(level) for level in levels])


def linear_weights(place, knots) -> tf.Tensor:
    """The weights of the knots in a piecewise linear function, constant beyond the outer ones.

    Args:
        place: `(batch,)`.
        knots: Increasing numbers.

    Returns:
        `(batch, knots)`, not negative, of sum one.

    Example:

    >>> from deq_keras.priors.noise_levels import linear_weights
    >>> linear_weights(tf.constant([0.5, 9.0]), (0.0, 2.0)).numpy()
    array([[0.75, 0.25],
           [0.  , 1.  ]], dtype=float32)
    """
    ones = tf.ones_like(place)
    # How far the place is beyond each of the knots: at least the first, never the last.
    beyond = [ones]
    for low, high in zip(knots, knots[1:], strict=False):
        beyond.append(tf.clip_by_value((place - low) / (high - low), 0.0, 1.0))
    beyond.append(tf.zeros_like(ones))
    return tf.stack([a - b for a, b in zip(beyond, beyond[1:], strict=False)], axis=1)

"""What controls the steps of an inexact Newton method; a number of each image, `(batch,)`.

Sizes are norms of residuals, `before` at the last accepted point and `after` at the trial.
"""

import tensorflow as tf

from deq_keras.numerics.rows import safe_divide
from deq_keras.solvers import line_search

SMALL_SHIFT = 0.01  # preconditioners are near the inverse of the system without a shift
_AVERAGING = 0.85  # weight of the past in the average of sizes that a new one is compared with
_GROWTH = 4.0  # a size may not grow by more in one step, whatever the average
_LEAST_CURVATURE = 1e-4


def forcing_term(ratio, last, largest):
    """Eisenstat and Walker's second choice with its safeguard.

    Args:
        ratio: `after / before` of the step.
        last: The forcing term of its direction.
        largest: What it may not exceed.
    """
    choice, floor = 0.9 * ratio**2, 0.9 * last**2
    choice = tf.where(floor > 0.1, tf.maximum(choice, floor), choice)
    return tf.minimum(choice, largest)


def judge(before, after, noise, reference, forcing, length):
    """Which trials of a map are accepted, and the lengths that follow on those that are not.

    Args:
        before: The size at the point.
        after: That at the trial.
        noise: Its rounding.
        reference: The average of past sizes.
        forcing: The forcing term of the direction.
        length: Of the trial.
    """
    decrease = line_search.SUFFICIENT * length * (1.0 - forcing) * before
    accepted = after <= tf.minimum(reference, _GROWTH * before) - decrease + noise
    # By a parabola through the squares; the slope is that of an exact Newton step.
    rise = after**2 + (2.0 * length - 1.0) * before**2
    return accepted, line_search.safeguarded(safe_divide((length * before) ** 2, rise), length)


def averaged(reference, weight, size):
    """Zhang and Hager's average of sizes and its weight, with another one; never below that."""
    new = 1.0 + _AVERAGING * weight
    return tf.maximum((_AVERAGING * weight * reference + size) / new, size), new


def next_shift(shift, length, before, after, direction):
    """The shift of the next linear system of a map.

    It falls with the size, at least by half, after a full step to a smaller one, and rises after a
    step that was shortened, or led to a larger one.

    Args:
        shift: That of the last direction.
        length: Of the accepted step along it.
        before: The size before the step.
        after: The size after it.
        direction: The norm of the direction.
    """
    ratio, slope = safe_divide(after, before), safe_divide(before, direction)
    # With about this shift the direction would have been as long as the step.
    shortened = tf.maximum(shift, (safe_divide(1.0, length) - 1.0) * slope)
    worse, better = tf.maximum(4.0 * shift, slope), 0.5 * ratio * shift
    shift = tf.where(length < 1, shortened, tf.where(ratio > 1, worse, better))
    return tf.minimum(shift, 1.0)


def next_curvature(curvature, length):
    """What is taken in place of a negative curvature of an energy: less after each full step."""
    factor = tf.where(length < 1, safe_divide(1.0, length), 0.25)
    return tf.clip_by_value(factor * curvature, _LEAST_CURVATURE, 1.0)

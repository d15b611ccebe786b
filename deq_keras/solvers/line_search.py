"""Parts of line searches on smooth energies, a number for each image: `(batch,)` throughout."""

import tensorflow as tf

from deq_keras.numerics.rows import safe_divide

SUFFICIENT = 1e-4  # Armijo's constant
OVERSHOOT = 0.5  # slope behind a minimum of a convex energy, relative to that before it


def accepts(change, length, before, after, rounding):
    """Which images accept their trials: Armijo's or the approximate Wolfe condition.

    Args:
        change: Of the energy, from the point to the trial.
        length: Of the trial, along the direction.
        before: Slope along the direction at the point, < 0.
        after: The same at the trial.
        rounding: The change below which energies count as equal.
    """
    armijo = change <= SUFFICIENT * length * before
    wolfe = (change <= rounding) & (after <= (2.0 * SUFFICIENT - 1.0) * before)
    return tf.math.is_finite(after) & (armijo | wolfe)


def judge(convex, energy, change, length, before, after, rounding):
    """Which images accept their trials: by slopes alone where energies are certified to be convex.

    Args:
        convex: Whether they are: a boolean, or a tensor of them, scalar or `(batch,)`.
        energy: At the trial.
        change, length, before, after, rounding: Those of `accepts`.
    """
    by_slopes = after <= -OVERSHOOT * before  # not if it is NaN
    if not tf.is_tensor(convex) and convex:
        return by_slopes
    by_energies = accepts(change, length, before, after, rounding) & tf.math.is_finite(energy)
    return tf.where(convex, by_slopes, by_energies) if tf.is_tensor(convex) else by_energies


def shorter(change, length, before, after):
    """The length of the next trial after a rejected one, by a quadratic through what is known.

    Args are those of `accepts`.
    """
    # By slopes if the trial went too far, else by energies: the former are the more exact.
    by_slopes = safe_divide(length * before, before - after)
    by_energies = safe_divide(-0.5 * length**2 * before, change - length * before)
    return safeguarded(tf.where(after > 0, by_slopes, by_energies), length)


def safeguarded(guess, length):
    """The guess of a shorter length, or what is nearest to it from a tenth to half of the last."""
    guess = tf.where(tf.math.is_finite(guess), guess, tf.zeros_like(guess))
    return tf.clip_by_value(guess, 0.1 * length, 0.5 * length)

"""Potentials `phi` of experts, each known by its derivative: the activation `sigma = phi'`.

Every one is convex, has `phi(0) = 0` for odd activations, and an activation with Lipschitz constant
one, so a prior built on it is convex and its constants come from its filters alone.
"""

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from deq_keras.registry import unknown_name_error

SHRINKAGE = 0.1


class Potential(NamedTuple):
    """A convex function of a real number and its derivative, applied elementwise.

    Attributes:
        value: `phi`.
        activation: `sigma = phi'`, nondecreasing with Lipschitz constant at most one.
    """

    value: Callable
    activation: Callable


def _log_cosh(t):
    # log cosh t = |t| + log((1 + exp(-2|t|)) / 2), which cannot overflow.
    magnitude = tf.abs(t)
    return magnitude + tf.math.log1p(tf.exp(-2.0 * magnitude)) - 0.6931471805599453


def _smoothed_l1(t):
    # sqrt(1 + t^2) - 1 without cancellation near zero.
    return t * t / (1.0 + tf.sqrt(1.0 + t * t))


def _shrink(t):
    return tf.sign(t) * tf.nn.relu(tf.abs(t) - SHRINKAGE)


_POTENTIALS = {
    "tanh": Potential(_log_cosh, tf.tanh),
    "relu": Potential(lambda t: 0.5 * tf.nn.relu(t) ** 2, tf.nn.relu),
    "soft_shrinkage": Potential(lambda t: 0.5 * _shrink(t) ** 2, _shrink),
    "identity": Potential(lambda t: 0.5 * t * t, tf.identity),
    "smoothed_l1": Potential(_smoothed_l1, lambda t: t * tf.math.rsqrt(1.0 + t * t)),
}


def get(name):
    """The `Potential` that belongs to an activation.

    | activation `sigma(t)` | potential `phi(t)` |
    |---|---|
    | `"tanh"` | `log cosh t` |
    | `"relu"` | `max(t, 0)^2 / 2` |
    | `"soft_shrinkage"`: `sign(t) max(abs(t) - 0.1, 0)` | `max(abs(t) - 0.1, 0)^2 / 2` |
    | `"identity"` | `t^2 / 2` |
    | `"smoothed_l1"`: `t / sqrt(1 + t^2)` | `sqrt(1 + t^2) - 1` |

    Raises:
        ValueError: If the name is unknown, with the nearest known one.
    """
    if name not in _POTENTIALS:
        raise unknown_name_error("activation", name, _POTENTIALS)
    return _POTENTIALS[name]

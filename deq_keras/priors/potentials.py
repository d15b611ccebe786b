"""Potentials `phi` of experts, each known by its derivative: the activation `sigma = phi'`.

Every one is convex, has `phi(0) = 0` for odd activations, and an activation with Lipschitz constant
one, so a prior built on it is convex and its constants come from its filters alone.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import tensorflow as tf

from deq_keras.checks import positive, unknown_name_error

SHRINKAGE = 0.1  # the threshold of "soft_shrinkage", unless another is named


class Potential(NamedTuple):
    """A convex function of a real number and its derivative, applied elementwise.

    Attributes:
        value: `phi`.
        activation: `sigma = phi'`, nondecreasing with Lipschitz constant at most one.
        curvature: `sigma' = phi''`, in [0, 1]; at a corner of `sigma` its value on one side.
        curvature_lipschitz: `sup |sigma''|`; infinite if `sigma` has a corner.
        elasticity_lipschitz: `sup |(t sigma'(t))'|`.
    """

    value: Callable
    activation: Callable
    curvature: Callable
    curvature_lipschitz: float = float("inf")
    elasticity_lipschitz: float = float("inf")


def _log_cosh(t):
    # log cosh t = |t| + log((1 + exp(-2|t|)) / 2), which cannot overflow.
    magnitude = tf.abs(t)
    return magnitude + tf.math.softplus(-2.0 * magnitude) - 0.6931471805599453


def _smoothed_l1(t):
    # sqrt(1 + t^2) - 1 without cancellation near zero.
    return t * t / (1.0 + tf.sqrt(1.0 + t * t))


def _step(t):
    return tf.cast(t > 0, t.dtype)


def _soft_shrinkage(threshold):
    def shrink(t):
        return tf.sign(t) * tf.nn.relu(tf.abs(t) - threshold)

    return Potential(lambda t: 0.5 * shrink(t) ** 2, shrink, lambda t: _step(tf.abs(t) - threshold))


_POTENTIALS = {
    "tanh": Potential(
        _log_cosh, tf.tanh, lambda t: 1.0 - tf.tanh(t) ** 2, 4.0 / (3.0 * math.sqrt(3.0)), 1.0
    ),
    "relu": Potential(lambda t: 0.5 * tf.nn.relu(t) ** 2, tf.nn.relu, _step),
    "soft_shrinkage": _soft_shrinkage(SHRINKAGE),
    "identity": Potential(lambda t: 0.5 * t * t, tf.identity, tf.ones_like, 0.0, 1.0),
    "smoothed_l1": Potential(
        _smoothed_l1,
        lambda t: t * tf.math.rsqrt(1.0 + t * t),
        lambda t: tf.math.rsqrt(1.0 + t * t) ** 3,
        1.5 * 1.25**-2.5,
        1.0,
    ),
}


def get(activation: str | dict) -> Potential:
    """The `Potential` that belongs to an activation.

    | activation `sigma(t)` | potential `phi(t)` |
    |---|---|
    | `"tanh"` | `log cosh t` |
    | `"relu"` | `max(t, 0)^2 / 2` |
    | `"soft_shrinkage"`: `sign(t) max(abs(t) - 0.1, 0)` | `max(abs(t) - 0.1, 0)^2 / 2` |
    | `"identity"` | `t^2 / 2` |
    | `"smoothed_l1"`: `t / sqrt(1 + t^2)` | `sqrt(1 + t^2) - 1` |

    Args:
        activation: A name; or, for another threshold `a >= 0` of soft shrinkage, the dictionary
            `{"name": "soft_shrinkage", "threshold": a}`.

    Raises:
        ValueError: If the name is unknown, with the nearest known one, or the threshold negative.

    Example:

    >>> potential = deq_keras.priors.potentials.get("relu")
    >>> potential.activation(tf.constant([-1.0, 2.0])).numpy()
    array([0., 2.], dtype=float32)
    """
    if isinstance(activation, Mapping):
        if set(activation) != {"name", "threshold"} or activation["name"] != "soft_shrinkage":
            raise ValueError(
                "Expected `activation` to be a name, or a dictionary {'name': 'soft_shrinkage', "
                f"'threshold': number}}. Received {dict(activation)!r}."
            )
        return _soft_shrinkage(positive("threshold", activation["threshold"], zero=True))
    if activation not in _POTENTIALS:
        raise unknown_name_error("activation", activation, _POTENTIALS)
    return _POTENTIALS[activation]

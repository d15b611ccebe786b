"""Constraints and other simple terms of an energy, known by their proximal maps."""

from __future__ import annotations

import keras
import tensorflow as tf

from deq_keras import config as _config
from deq_keras.checks import positive
from deq_keras.config import Configurable


class Constraint(Configurable):
    """Base class of terms `G` known by their proximal map, for `argmin_u F(u) + G(u)`.

    `F` is smooth; `G` need not be: the indicator function of a set of images, or a norm with
    corners. Methods of proximal gradients alternate steps on `F` with

        prox_{step G}(u) = argmin_x  G(x) + ||x - u||^2 / (2 step),

    for an indicator function the projection. A subclass defines `proximal(u, step)`, `value(u)`,
    unless it is an indicator function, and `is_convex = False` if it is not convex. With arguments
    it returns them from `get_config()`.

    Example:

    >>> @keras.saving.register_keras_serializable(package="example")
    ... class UnitBall(deq_keras.constraints.Constraint):
    ...     def proximal(self, u, step):
    ...         return tf.clip_by_norm(u, 1.0, axes=[1, 2, 3])
    >>> projected = UnitBall().proximal(tf.ones((2, 4, 4, 1)), tf.ones(2))
    >>> float(tf.norm(projected[0]))
    1.0
    """

    is_convex = True

    def value(self, u):
        """`G(u)` for each image, `(batch,)`.

        For an indicator function it is zero, here as outside of its set: what a solver compares are
        results of the proximal map, which lie in the set.
        """
        return tf.zeros(tf.shape(u)[:1], u.dtype)

    def proximal(self, u, step):
        """`prox_{step G}(u)`, of the shape of `u`.

        Args:
            u: Images `(batch, ...)`.
            step: `(batch,)`, >= 0. For zero it is the nearest image with a finite `G`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} expected a method `proximal(u, step)`. Found none."
        )


@keras.saving.register_keras_serializable(package="deq_keras")
class NonNegative(Constraint):
    """Images that are nowhere negative.

    Example:

    >>> deq_keras.constraints.NonNegative().proximal(tf.constant([[-1.0, 2.0]]), tf.ones(1)).numpy()
    array([[0., 2.]], dtype=float32)
    """

    def proximal(self, u, step):
        return tf.nn.relu(u)


@keras.saving.register_keras_serializable(package="deq_keras")
class Box(Constraint):
    """Images whose values lie in an interval.

    Args:
        lower: The least value.
        upper: The largest value, > `lower`.

    Raises:
        ValueError: If there is no number between the two, or one is not finite.

    Example:

    >>> box = deq_keras.constraints.Box(0.0, 1.0)
    >>> box.proximal(tf.constant([[-1.0, 0.5, 2.0]]), tf.ones(1)).numpy()
    array([[0. , 0.5, 1. ]], dtype=float32)
    """

    def __init__(self, lower=0.0, upper=1.0):
        try:
            self.lower, self.upper = float(lower), float(upper)
        except (TypeError, ValueError):
            self.lower = self.upper = float("nan")
        if not -float("inf") < self.lower < self.upper < float("inf"):
            raise ValueError(
                "Expected finite numbers `lower` < `upper`. Received "
                f"lower={lower!r}, upper={upper!r}."
            )

    def proximal(self, u, step):
        return tf.clip_by_value(u, self.lower, self.upper)

    def get_config(self):
        return {"lower": self.lower, "upper": self.upper}


@keras.saving.register_keras_serializable(package="deq_keras")
class L1(Constraint):
    """`G(u) = weight ||u||_1`: most values of the minimiser are zero.

    Its proximal map is soft thresholding. The weight is constant.

    Args:
        weight: > 0, relative to the data fidelity.

    Example:

    >>> deq_keras.constraints.L1(0.5).proximal(tf.constant([[-1.0, 0.2]]), tf.ones(1)).numpy()
    array([[-0.5,  0. ]], dtype=float32)
    """

    def __init__(self, weight=0.1):
        self.weight = positive("weight", weight)

    def value(self, u):
        return self.weight * tf.reduce_sum(tf.abs(u), axis=tf.range(1, tf.rank(u)))

    def proximal(self, u, step):
        shape = tf.concat([tf.shape(step), tf.ones([tf.rank(u) - 1], tf.int32)], axis=0)
        threshold = self.weight * tf.reshape(step, shape)
        return tf.sign(u) * tf.nn.relu(tf.abs(u) - threshold)

    def get_config(self):
        return {"weight": self.weight}


_BY_NAME = {"box": Box, "l1": L1, "non_negative": NonNegative}


def get(identifier):
    """A `Constraint` from a name, a configuration or a constraint.

    The names: `"non_negative"`, `"box"` (the values in [0, 1]) and `"l1"` (with the weight 0.1).

    Raises:
        ValueError: If the name is unknown, with the nearest known one.
        TypeError: If the identifier is of another type.

    Example:

    >>> deq_keras.constraints.get("box")
    Box(lower=0.0, upper=1.0)
    """
    return _config.get(identifier, "constraint", _BY_NAME, Constraint)

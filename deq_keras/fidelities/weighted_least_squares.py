"""Weighted least squares: the fidelity of Gaussian noise of another variance at each entry."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.fidelities.base import Fidelity, pairs, scaled, square, sum_entries


@keras.saving.register_keras_serializable(package="deq_keras")
class WeightedLeastSquares(Fidelity):
    """`D(v, y) = 1/2 sum_i w_i |v_i - y_i|^2` with constant weights.

    With the inverse variances of the entries as weights it is the negative log-likelihood of
    independent Gaussian noise; a weight of zero leaves out an entry that is broken in all images.
    (For masks that differ from image to image, use `deq_keras.operators.Mask` and its data.)

    Args:
        weights: Finite numbers >= 0: one, or an array (nested lists) that can be broadcast to the
            measurement of one image, which has no batch axis. If there are several measurements, it
            holds for each of them; a tuple of arrays holds the weights of each.

    Raises:
        ValueError: If a weight is negative or not finite; in use, if they do not fit the
            measurement.

    Example:

    >>> weights = np.array([1.0, 0.0])[:, None, None]
    >>> fidelity = deq_keras.fidelities.WeightedLeastSquares(weights)
    >>> fidelity.value(tf.ones((1, 2, 3, 1)), tf.zeros((1, 2, 3, 1))).numpy()
    array([1.5], dtype=float32)
    """

    is_convex = True
    quadratic = True

    def __init__(self, weights):
        parts = weights if isinstance(weights, tuple) else (weights,)
        self.weights = tuple(_weights(part) for part in parts)
        if not self.weights:
            raise ValueError("Expected `weights` for one measurement or more. Received ().")
        self._several = isinstance(weights, tuple)

    def value(self, v, y):
        weighted = zip(pairs(v, y), self._fitting(v), strict=True)
        return 0.5 * sum(sum_entries(w * square(v - y)) for (v, y), w in weighted)

    def gradient(self, v, y):
        weighted = zip(pairs(v, y), self._fitting(v), strict=True)
        return tf.nest.pack_sequence_as(v, [scaled(v - y, w) for (v, y), w in weighted])

    def lipschitz(self, y):
        return float(max(part.max() for part in self.weights))

    def strong_convexity(self, y):
        return float(min(part.min() for part in self.weights))

    def measurement_sensitivity(self, v, y):
        return self.lipschitz(y)

    def _fitting(self, v):
        """The weights of each measurement, as tensors of its precision."""
        leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(v)]
        parts = self.weights if self._several else self.weights * len(leaves)
        if len(parts) != len(leaves):
            raise ValueError(
                "WeightedLeastSquares expected weights for each measurement. Received a tuple of "
                f"weights for {len(parts)} measurements, and {len(leaves)} of these."
            )
        for part, leaf in zip(parts, leaves, strict=True):
            shape = leaf.shape[1:]
            fits = shape.rank is None or (
                part.ndim <= shape.rank
                and all(
                    size in (1, known) or known is None
                    for size, known in zip(part.shape[::-1], [*shape][::-1], strict=False)
                )
            )
            if not fits:
                raise ValueError(
                    "WeightedLeastSquares expected `weights` that can be broadcast to the "
                    f"measurement of one image, {tuple(shape)}. Received shape {part.shape}. A "
                    "last axis for the channels may be missing: `weights[..., None]`."
                )
        return [
            tf.constant(part, leaf.dtype.real_dtype)
            for part, leaf in zip(parts, leaves, strict=True)
        ]

    def get_config(self):
        parts = tuple(part.tolist() for part in self.weights)
        return {"weights": parts if self._several else parts[0]}


def _weights(value):
    try:
        array = np.asarray(value, "float64")
    except (TypeError, ValueError):
        array = np.array(np.nan)
    if not array.size or not (np.isfinite(array) & (array >= 0)).all():
        raise ValueError(
            "Expected `weights` to be finite numbers >= 0: a number or an array. Received "
            f"weights={value!r}."
        )
    return array

"""The contract of a data fidelity: the distance `D(K u, y)` of a prediction to a measurement."""

from __future__ import annotations

import tensorflow as tf

from deq_keras.config import Configurable


class Fidelity(Configurable):
    """Base class of data fidelities `D(v, y)`, differentiable in the predicted measurement `v`.

    `v = K u` and `y` have the same structure, shapes and dtype: a tensor `(batch, ...)`, real or
    complex, or nested lists of several such measurements. The inner product is the real one,
    `Re <a, b>`, so for complex measurements the gradient is complex. A fidelity has no weights and
    no state.

    A subclass must define

    - `value(v, y)`: one number for each image, `(batch,)`.

    Everything else follows, and is worth defining where more is known:

    - `gradient(v, y)`, by `v`; found by differentiation;
    - `is_convex = True`: `D` is convex in `v` for every `y`;
    - `quadratic = True`: the gradient is affine in `v`, with the same derivative by `y` everywhere;
    - `residual_gradient = True`: the gradient is `v - y`, so that `K^T K` and `K^T y` can be used;
    - `lipschitz(y)`: a certified Lipschitz constant of `v -> gradient(v, y)`. Without one, layers
      search along lines;
    - `strong_convexity(y)`: a certified modulus;
    - `measurement_sensitivity(v, y)`: how much the gradient changes with `y`.

    A subclass with arguments returns them from `get_config()`.

    Example:

    >>> @keras.saving.register_keras_serializable(package="example")
    ... class Cauchy(deq_keras.fidelities.Fidelity):
    ...     def value(self, v, y):
    ...         return 0.5 * tf.reduce_sum(tf.math.log1p((v - y) ** 2), axis=(1, 2, 3))
    >>> Cauchy().gradient(tf.ones((2, 8, 8, 1)), tf.zeros((2, 8, 8, 1))).shape
    TensorShape([2, 8, 8, 1])
    """

    is_convex = False
    quadratic = False
    residual_gradient = False

    @property
    def certified(self) -> bool:
        """Whether a Lipschitz constant of the gradient is certified."""
        return type(self).lipschitz is not Fidelity.lipschitz

    def value(self, v, y):
        """`D(v, y)` for each image, `(batch,)`.

        Args:
            v: The predicted measurement, a tensor or a structure of tensors.
            y: The measurement, like `v`.
        """
        raise NotImplementedError(
            f"{type(self).__name__} expected a method `value(v, y)` that returns one number for "
            "each image. Found none: the gradient follows from it by differentiation."
        )

    def gradient(self, v, y):
        """The gradient of `D(v, y)` by `v`, like `v`."""
        v = tf.nest.map_structure(tf.identity, v)  # `y` may be the same tensor
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(v)
            total = tf.reduce_sum(self.value(v, y))
        return tape.gradient(total, v, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    def lipschitz(self, y):
        """A certified Lipschitz constant of `v -> gradient(v, y)`.

        Returns:
            A scalar or `(batch,)`; `None` if none is known.
        """
        return None

    def strong_convexity(self, y):
        """A certified modulus of strong convexity of `v -> D(v, y)`.

        Returns:
            A scalar or `(batch,)`, 0 if there is none; `None` if nothing is known.
        """
        return 0.0 if self.is_convex else None

    def measurement_sensitivity(self, v, y):
        """A certified bound on the norm of the derivative of `gradient(v, y)` by `y`, at `(v, y)`.

        Returns:
            A scalar or `(batch,)`, infinite if nothing is known.
        """
        return float("inf")


def map_measurements(function, v, y):
    """`function` of each prediction in `v` and its measurement in `y`, in the structure of `v`.

    Raises:
        ValueError: If they do not fit together.
    """
    return tf.nest.pack_sequence_as(v, [function(*pair) for pair in pairs(v, y)])


def sum_measurements(function, v, y):
    """The sum `(batch,)` over all entries of `function`, which acts on each of them.

    Raises:
        ValueError: If predictions and measurements do not fit together.
    """
    return sum(sum_entries(function(*pair)) for pair in pairs(v, y))


def pairs(v, y):
    """The pairs of a prediction and its measurement, as tensors of the same shape and dtype."""
    predicted, measured = (
        [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(structure)] for structure in (v, y)
    )
    fit = len(predicted) == len(measured) and all(
        a.shape.is_compatible_with(b.shape) and a.dtype == b.dtype
        for a, b in zip(predicted, measured, strict=True)
    )
    if not fit:

        def words(leaves):
            return ", ".join(f"{leaf.dtype.name} {tuple(leaf.shape)}" for leaf in leaves)

        raise ValueError(
            "Expected a prediction like the measurement. Received a prediction "
            f"{words(predicted)} and a measurement {words(measured)}. The operator does not "
            "belong to this measurement, or one of them was cast."
        )
    return list(zip(predicted, measured, strict=True))


def sum_entries(tensor):
    """The sum of the entries of each image, `(batch,)`."""
    return tf.reduce_sum(tensor, _all_but_batch(tensor))


def max_entries(function, *structures):
    """The largest entry of `function` in each image, `(batch,)`."""
    largest = None
    for leaves in zip(*(tf.nest.flatten(structure) for structure in structures), strict=True):
        entries = function(*(tf.convert_to_tensor(leaf) for leaf in leaves))
        found = tf.reduce_max(entries, _all_but_batch(entries))
        largest = found if largest is None else tf.maximum(largest, found)
    return largest


def square(residual):
    """The squared modulus of each entry, real."""
    if residual.dtype.is_complex:
        return tf.math.real(residual) ** 2 + tf.math.imag(residual) ** 2
    return residual * residual


def scaled(residual, factor):
    """A residual times real numbers."""
    return residual * tf.cast(factor, residual.dtype)


def _all_but_batch(tensor):
    rank = tensor.shape.rank
    return tf.range(1, tf.rank(tensor)) if rank is None else list(range(1, rank))

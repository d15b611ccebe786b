"""The difference of two convex priors."""

import keras
import tensorflow as tf

from deq_keras.config import deserialise, serialise
from deq_keras.numerics.partial import Partial
from deq_keras.priors.base import BoundPrior, Prior


@keras.saving.register_keras_serializable(package="deq_keras")
class DifferenceOfConvex(Prior):
    """`R = R_1 - R_2` with two convex priors: any smooth energy can be written so.

    With `m_i <= Hess R_i <= L_i`, as the two certify for their current weights,

        m_1 - L_2 <= Hess R <= L_1 - m_2,

    so the modulus of weak convexity is known, and so is a step size. With an `InputConvexNetwork`
    each, this is the IDCNN of the field.

    Args:
        first: `R_1`, a convex `deq_keras.priors.Prior`.
        second: `R_2`, another one.

    Raises:
        ValueError: If one is not convex for all its weights, or they are of two dtypes.

    Reference:
        Zhang and Leong, Learning difference-of-convex regularizers for inverse problems: a flexible
        framework with theoretical guarantees, 2025.

    Example:

    >>> network = deq_keras.priors.InputConvexNetwork
    >>> prior = deq_keras.priors.DifferenceOfConvex(network((8, 8)), network((8, 8)))
    >>> prior.energy(tf.random.uniform((2, 32, 48, 1))).shape
    TensorShape([2])
    >>> bool(prior.strong_convexity() < 0)
    True
    """

    has_energy = True

    def __init__(self, first: Prior, second: Prior, **kwargs):
        for name, part in (("first", first), ("second", second)):
            if not isinstance(part, Prior) or not part.is_convex or part.takes_noise_level:
                raise ValueError(
                    f"Expected `{name}` to be a convex prior without a noise level, such as "
                    f"`deq_keras.priors.InputConvexNetwork()`. Received {part!r}."
                )
        kwargs.setdefault("dtype", first.dtype_policy)
        super().__init__(**kwargs)
        if first.variable_dtype != second.variable_dtype:
            raise ValueError(
                "Expected two priors of one dtype. Received "
                f"{first.variable_dtype} and {second.variable_dtype}."
            )
        self.first, self.second = first, second

    @property
    def certified(self):
        return self.first.certified and self.second.certified

    def build(self, input_shape):
        for part in (self.first, self.second):
            if not part.built:
                part.build(input_shape)
        self.built = True

    def bind(self, image_shape):
        first, second = self.first.bind(image_shape), self.second.bind(image_shape)
        least = _or_zero(first.strong_convexity, self.variable_dtype)
        other = _or_zero(second.strong_convexity, self.variable_dtype)
        return BoundPrior(
            Partial(_difference, (first.gradient, second.gradient)),
            Partial(_difference, (first.energy, second.energy)),
            _lipschitz(first.lipschitz, second.lipschitz, least, other),
            None if second.lipschitz is None else least - second.lipschitz,
            work=first.work + second.work,
        )

    def gradient_lipschitz(self, size=None):
        bounds = [part.gradient_lipschitz(size) for part in (self.first, self.second)]
        moduli = [
            _or_zero(part.strong_convexity(), self.variable_dtype)
            for part in (self.first, self.second)
        ]
        return _lipschitz(*bounds, *moduli)

    def strong_convexity(self):
        """Certified modulus `m_1 - L_2`, or `None` if the second prior certifies no `L_2`."""
        bound = self.second.gradient_lipschitz()
        if bound is None:
            return None
        return _or_zero(self.first.strong_convexity(), self.variable_dtype) - bound

    def pictures(self):
        """Those of both, as `"first analysis_1"` and so on."""
        parts = {"first": self.first, "second": self.second}
        return {
            f"{name} {title}": picture
            for name, part in parts.items()
            for title, picture in part.pictures().items()
        }

    def get_config(self):
        parts = {"first": serialise(self.first), "second": serialise(self.second)}
        return {**super().get_config(), **parts}

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "first", "second"))


def _difference(u, first, second):
    return first(u) - second(u)


def _lipschitz(first, second, least, other):
    """The larger one of both ends of the interval in which the Hessian lies."""
    if first is None or second is None:
        return None
    return tf.maximum(first - other, second - least)


def _or_zero(modulus, dtype):
    return tf.zeros((), dtype) if modulus is None else modulus

"""Multivariate fields of experts: potentials of several responses at once."""

import keras
import tensorflow as tf

from deq_keras.checks import positive_int
from deq_keras.priors.potentials import Potential
from deq_keras.priors.profiles import Profile
from deq_keras.priors.ridge_regularizer import RidgeRegularizer


@keras.saving.register_keras_serializable(package="deq_keras")
class MultivariateExperts(RidgeRegularizer):
    """Multivariate fields of experts: a potential for each group of filters.

        R(u)     = sum_g sum_x psi_g((a_g * u)(x))
        psi_g(t) = (M(mu_g alpha_g t) / mu_g - rho M(alpha_g t)) / alpha_g^2,    t in R^d
        M(t)     = min_x ||x||_inf + ||t - x||^2 / 2

    `M` is the Moreau envelope of the largest absolute value: `||t||^2 / 2` where the sum of the
    `|t_i|` is at most one, and beyond about the largest one. Its gradient is the projection onto
    the ball of the sum norm. So strong responses of a group hide its weak ones, and an edge costs
    about as much as its best filter says. All else is as in `RidgeRegularizer`: the same zero-mean
    filters of several layers with a certified norm, and for images that are not tiny

        -rho <= Hess R <= max_g mu_g,

    whatever the weights. This is our form of it: the paper's difference of envelopes has another
    parametrisation.

    Args:
        filters: Number of filters of each layer; the last is a multiple of `group_size`. Filter
            `i + groups k`, with `k` from 0, belongs to group `i`.
        kernel_size: As in `RidgeRegularizer`.
        weak_convexity: `rho` in [0, 1); 0 for a convex prior.
        group_size: `d`, number of filters of a group.
        scaling: Initial `alpha` of each group (trained), > 0.
        noise_levels: As in `RidgeRegularizer`.
        sharpness: Initial `mu` of each group (trained), > 0.
        max_sharpness: Training keeps `mu` at or below it, or `None`.
        padding: As in `RidgeRegularizer`.
        filters_initializer: As in `RidgeRegularizer`.

    Raises:
        ValueError: If the filters are no whole groups, or as in `RidgeRegularizer`.

    Reference:
        Ducotterd and Unser, Multivariate fields of experts for convergent image reconstruction,
        arXiv:2508.06490.

    Example:

    >>> prior = deq_keras.priors.MultivariateExperts((2, 8), weak_convexity=0.9, group_size=4)
    >>> prior.gradient(tf.random.uniform((2, 32, 48, 1))).shape
    TensorShape([2, 32, 48, 1])
    >>> round(float(prior.strong_convexity((32, 48))), 2)
    -0.9
    """

    def __init__(
        self,
        filters: tuple[int, ...] = (4, 8, 60),
        kernel_size: int | tuple[int, int] = 5,
        weak_convexity: float = 0.0,
        group_size: int = 4,
        scaling: float = 5.0,
        noise_levels: tuple[float, ...] | None = None,
        sharpness: float = 100.0,
        max_sharpness: float | None = 1000.0,
        padding: str = "reflect",
        filters_initializer="first_order",
        **kwargs,
    ):
        super().__init__(
            filters,
            kernel_size,
            weak_convexity,
            "identity",  # in whose place comes the potential of a group
            scaling,
            noise_levels,
            sharpness,
            max_sharpness,
            padding,
            filters_initializer,
            **kwargs,
        )
        self.group_size = positive_int("group_size", group_size)
        if self.filters[-1] % self.group_size:
            raise ValueError(
                "Expected the last number of `filters` to be a multiple of `group_size`. Received "
                f"filters={filters!r}, group_size={group_size!r}."
            )
        self._profile = Profile(largest_of_group(self.group_size), self.weak_convexity)

    @property
    def scales(self):
        """Number of groups: each has a sharpness and a scaling."""
        return self.filters[-1] // self.group_size

    def _of_filters(self, values):
        return tf.concat([values] * self.group_size, axis=-1)

    def curves(self, t, noise_level=None):
        """None: a potential is a function of the responses of a whole group."""
        return {}

    def get_config(self):
        config = super().get_config()
        del config["activation"]
        return {**config, "group_size": self.group_size}


def largest_of_group(size) -> Potential:
    """The `Potential` of the Moreau envelope of `max_i |t_i|` over groups of responses.

    As `M(t) = <t, p> - ||p||^2 / 2` with the projection `p` of `t`, it is a sum of one term for
    each response: they, and not each of them alone, are the potential. Entries `i`, `i + n`,
    `i + 2 n` … of the last axis are group `i` of `n`.

    Args:
        size: Number of responses of a group.
    """

    def threshold(t):
        """How much the projection takes off each absolute value, for each group."""
        values = tf.split(tf.abs(t), size, axis=-1)
        # Odd-even transposition sort: comparisons of whole tensors, where `tf.sort` is slow.
        for turn in range(size):
            for i in range(turn % 2, size - 1, 2):
                high, low = values[i : i + 2]
                values[i : i + 2] = tf.maximum(high, low), tf.minimum(high, low)
        found, total = tf.zeros_like(values[0]), -tf.ones_like(values[0])
        for count, value in enumerate(values, 1):
            total += value
            found = tf.maximum(found, total / count)
        return found

    def spread(values):
        return tf.concat([values] * size, axis=-1)

    def project(t):
        return tf.sign(t) * tf.nn.relu(tf.abs(t) - spread(threshold(t)))

    def value(t):
        p = project(t)
        return p * (t - 0.5 * p)

    def curvature(t):
        """The diagonal of the projection's Jacobian."""
        level = threshold(t)
        active = tf.cast(tf.abs(t) > spread(level), t.dtype)
        count = tf.maximum(sum(tf.split(active, size, axis=-1)), 1.0)
        outside = active * (1.0 - spread(1.0 / count))
        return tf.where(spread(level) > 0, outside, tf.ones_like(t))

    return Potential(value, project, curvature)

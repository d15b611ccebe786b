"""What ridge regularisers are made of: coefficients, and the function applied to each response."""

from typing import NamedTuple

import tensorflow as tf

from deq_keras.priors.potentials import Potential


class RidgeCoefficients(NamedTuple):
    """The weights as the energy uses them.

    Attributes:
        filters: Those of all layers as one convolution, divided by a bound on its norm.
        sharpness: `mu`, `(filters,)`; what a subclass has in its place.
        square: Certified bound on the squared norm of the convolution for images of the size: 1
            unless they are tiny.
    """

    filters: tf.Tensor
    sharpness: tf.Tensor
    square: tf.Tensor


class Profile(NamedTuple):
    """`psi(t) = (s(mu alpha t) / mu - rho s(alpha t)) / alpha^2`, with `-rho <= psi'' <= mu`.

    All take responses `t` and, of shapes that can be broadcast to theirs, `mu` and `alpha`.

    Attributes:
        potential: `s`, by a `deq_keras.priors.potentials.Potential`.
        weak_convexity: `rho`.
    """

    potential: Potential
    weak_convexity: float

    def value(self, t, sharpness, scaling):
        """`psi(t)`."""
        t, s = scaling * t, self.potential.value
        return self._less(s(sharpness * t) / sharpness, s, t) / scaling**2

    def slope(self, t, sharpness, scaling):
        """`psi'(t)`."""
        t, s = scaling * t, self.potential.activation
        return self._less(s(sharpness * t), s, t) / scaling

    def curvature(self, t, sharpness, scaling):
        """`psi''(t)`."""
        t, s = scaling * t, self.potential.curvature
        return self._less(sharpness * s(sharpness * t), s, t)

    def curvature_lipschitz(self, sharpness, scaling):
        """A bound on `|psi'''|`."""
        steepest = self.potential.curvature_lipschitz
        return steepest * scaling * (sharpness**2 + self.weak_convexity)

    def _less(self, first, s, t):
        return first - self.weak_convexity * s(t) if self.weak_convexity else first

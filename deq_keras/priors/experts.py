"""Experts, the base class of priors with `grad R(u) = S^T sigma(chi * (A u + b))`."""

import math
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from deq_keras.checks import positive
from deq_keras.numerics.partial import Partial
from deq_keras.numerics.rows import norm
from deq_keras.priors import potentials, sensitivity
from deq_keras.priors.base import BoundPrior, Prior


class Coefficients(NamedTuple):
    """The weights as the energy uses them.

    Attributes:
        analysis: The linear map `A`, of norm at most one if the prior normalises it.
        synthesis: The linear map `S`; the same tensor as `analysis` if the prior is tied.
        sharpness: `chi`, one positive number for each expert.
        bias: `b`, or `None`.
        sharp: `chi A`: it is multiplied once, and not its many responses in each evaluation.
        sharp_bias: `chi b`, or `None`.
        lipschitz: Certified Lipschitz constant of the gradient for images of the size.
        hypomonotonicity: Certified `rho`, where the prior limits it, or `None`.
    """

    analysis: tf.Tensor
    synthesis: tf.Tensor
    sharpness: tf.Tensor
    bias: tf.Tensor
    sharp: tf.Tensor
    sharp_bias: tf.Tensor
    lipschitz: tf.Tensor
    hypomonotonicity: tf.Tensor | None = None


@keras.saving.register_keras_serializable(package="deq_keras")
class Between(keras.constraints.Constraint):
    """Keeps each entry of a weight between two limits.

    Args:
        low: The lower one, or `None`.
        high: The upper one, or `None`.
    """

    def __init__(self, low=None, high=None):
        self.low = None if low is None else float(low)
        self.high = None if high is None else float(high)

    def __call__(self, w):
        w = w if self.low is None else tf.maximum(w, tf.constant(self.low, w.dtype))
        return w if self.high is None else tf.minimum(w, tf.constant(self.high, w.dtype))

    def get_config(self):
        return {"low": self.low, "high": self.high}


def logarithm_at_most(limit):
    """The constraint of a weight that is the logarithm of a number <= `limit`; `None` for none."""
    return None if limit is None else Between(high=math.log(limit))


class Experts(Prior):
    """Base class: `R(u) = sum_i sum_x phi(chi_i ((A u)_i(x) + b_i)) / chi_i`.

    `A` is a trainable linear map divided by a certified bound on its norm; derivatives flow through
    the norm. Each expert has a sharpness `chi_i`, trained as a logarithm so that it stays positive;
    optimizers keep it at or below `max_sharpness`, and with it the condition of the problem.
    As `phi` is convex with `phi'' <= 1`, `R` is convex and its gradient has Lipschitz constant at
    most `max_i chi_i`, whatever the weights. The scale of the prior belongs to the layer that uses
    it.

    With `normalize=False` the weights are the map `A` as they are, as in the paper's models, and
    the constant is `max_i chi_i ||A||^2`: it grows without limit in training, and with it the
    condition of the problem. An untied map then certifies no modulus.

    A subclass defines `_analyse(u, weights)`, `_synthesise(v, weights, like)` and
    `_norms(weights, size)`, bounds on the norm of the linear map for every image and for those of a
    size. With `tied = False` a second set of weights takes the place of the first in the synthesis;
    the map is then no gradient and has no energy.
    """

    tied = True
    hypomonotonicity = None  # a limit, of untied maps

    def __init__(
        self,
        activation,
        sharpness,
        max_sharpness,
        use_bias,
        initializer,
        normalize=True,
        train_sharpness=True,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.potential = potentials.get(activation)
        self.activation = activation if isinstance(activation, str) else dict(activation)
        self.max_sharpness = None
        if max_sharpness is not None:
            self.max_sharpness = positive("max_sharpness", max_sharpness)
        self.sharpness = positive("sharpness", sharpness, upper=self.max_sharpness)
        self.use_bias = bool(use_bias)
        self.normalize = bool(normalize)
        self.train_sharpness = bool(train_sharpness)
        self._weights_initializer = initializer
        self._bias_initializer = "zeros"

    @property
    def has_energy(self):
        return self.tied

    @property
    def is_convex(self):
        return self.tied

    def _build_experts(self, weight_shape, count):
        self.analysis = self.add_weight(
            shape=weight_shape, initializer=self._weights_initializer, name="analysis"
        )
        if not self.tied:
            self.synthesis = self.add_weight(
                shape=weight_shape, initializer=self._weights_initializer, name="synthesis"
            )
        self.log_sharpness = self.add_weight(
            shape=(count,),
            initializer=keras.initializers.Constant(np.log(self.sharpness)),
            constraint=logarithm_at_most(self.max_sharpness),
            trainable=self.train_sharpness,
            name="log_sharpness",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                shape=(count,), initializer=self._bias_initializer, name="bias"
            )

    def coefficients(self, size=None):
        """The `Coefficients` that belong to the current weights, for images of a size or any."""
        analysis, ratio = self._normalise(self.analysis, size)
        synthesis, other = analysis, ratio
        if not self.tied:
            synthesis, other = self._normalise(self.synthesis, size)
        sharpness = tf.exp(self.log_sharpness)
        bias = None if self.bias is None else tf.convert_to_tensor(self.bias)
        rho = None
        if self.hypomonotonicity is not None:
            analysis, synthesis, rho = self._limit(analysis, synthesis, sharpness, size)
        lipschitz = tf.reduce_max(sharpness)
        if ratio is not None:
            lipschitz *= ratio * other
        sharp_bias = None if bias is None else sharpness * bias
        return Coefficients(
            analysis, synthesis, sharpness, bias, sharpness * analysis, sharp_bias, lipschitz, rho
        )

    def _limit(self, analysis, synthesis, sharpness, size):
        """Both maps brought nearer to each other where they are too far apart, and `rho`.

        The Jacobian is `S^T D A` with `0 <= D <= chi`. With the halves `P, Q = (S + A, S - A) / 2`
        its symmetric part is `P^T D P - Q^T D Q >= -||sqrt(chi) Q||^2`.
        """
        half = 0.5 * (synthesis - analysis)
        norm, _ = self._norms(tf.sqrt(sharpness) * half, size)
        rho = norm**2
        limit = tf.constant(self.hypomonotonicity, rho.dtype)
        factor = tf.sqrt(tf.where(rho > limit, limit / tf.maximum(rho, limit), 1.0))
        middle = 0.5 * (synthesis + analysis)
        return middle - factor * half, middle + factor * half, tf.minimum(rho, limit)

    def _normalise(self, weights, size):
        """The weights divided by their norm for every image, and that at a size relative to it."""
        weights = self._project(tf.convert_to_tensor(weights))
        norm, at_size = self._norms(weights, size)
        if not self.normalize:
            return weights, at_size
        safe = tf.where(norm > 0, norm, tf.ones_like(norm))
        return weights / safe, None if at_size is norm else at_size / safe

    def _project(self, weights):
        return weights

    def bind(self, image_shape):
        c = self.coefficients(self._size(image_shape))

        def gradient(u, c):
            return self._synthesise(self._respond(u, c, self.potential.activation), c.synthesis, u)

        def energy(u, c):
            energies = self._respond(u, c, self.potential.value) / c.sharpness
            return tf.reduce_sum(energies, axis=np.arange(1, energies.shape.rank, dtype=np.int32))

        spectrum, diagonal = self._hessian(c)
        return BoundPrior(
            Partial(gradient, (c,)),
            Partial(energy, (c,)) if self.tied else None,
            c.lipschitz,
            tf.zeros_like(c.lipschitz) if self.tied else self._untied_modulus(c),
            spectrum,
            diagonal,
            2.0 * math.prod(self.analysis.shape),
        )

    def _size(self, image_shape):
        return None

    def _hessian(self, c):
        """The functions for the spectrum of the Hessian and its diagonal, or twice `None`."""
        return None, None

    def _respond(self, u, c, function):
        response = self._analyse(u, c.sharp)
        return function(response if c.sharp_bias is None else response + c.sharp_bias)

    def gradient_lipschitz(self, size=None):
        return self.coefficients(size).lipschitz

    def hessian_variation(self, p, size=None):
        if not self.tied:
            return super().hessian_variation(p, size)
        self.ensure_built(p)
        return sensitivity.hessian_variation(self, p, size)

    def sensitivities(self, u, radius, size=None):
        if not self.tied:
            return {}
        self.ensure_built(u)
        return sensitivity.of_experts(self, u, radius, size)

    def parameter_norms(self, u, response):
        """The norms of `dA -> dA u` and of `dA -> dA^T response`, `(batch,)` each.

        For a matrix in the Frobenius norm they are `||u||` and `||response||`.
        """
        return tuple(norm(tf.reshape(x, (tf.shape(x)[0], -1))) for x in (u, response))

    def parameter_constant(self):
        """`C` such that both are at most `C ||u||` and `C ||response||`."""
        return 1.0

    def boundary_factor(self):
        """A bound on `||patch|| / ||u||` over the patches of an image that an expert sees."""
        return 1.0

    def remove_mean(self, u):
        """`u` without the part that all possible changes of the experts map to zero."""
        return u

    def curves(self, t):
        sharpness = tf.exp(self.log_sharpness)[:, None]
        bias = 0.0 if self.bias is None else tf.convert_to_tensor(self.bias)[:, None]
        sharp = sharpness * (tf.cast(t, self.variable_dtype) + bias)
        found = {"potential": self.potential.value(sharp) / sharpness} if self.tied else {}
        return {**found, "activation": self.potential.activation(sharp)}

    def scalars(self):
        return {"largest_sharpness": tf.reduce_max(tf.exp(self.log_sharpness))}

    def strong_convexity(self):
        if self.tied:
            return super().strong_convexity()
        return self._untied_modulus(self.coefficients())

    def _untied_modulus(self, c):
        if c.hypomonotonicity is not None:
            return -c.hypomonotonicity
        # A map that is no gradient is only known to be Lipschitz continuous; and of free weights
        # the constant is too large to certify anything, and takes as long as some solves.
        return -c.lipschitz if self.normalize else None

    def adopt(self, tied):
        """Start from the weights of the tied form of this prior, so that both maps are equal."""
        self.analysis.assign(tied.analysis)
        self.log_sharpness.assign(tied.log_sharpness)
        if not self.tied:
            self.synthesis.assign(tied.synthesis if not tied.tied else tied.analysis)
        if self.bias is not None:
            self.bias.assign(tied.bias)

    def get_config(self):
        own = ("activation", "sharpness", "max_sharpness", "use_bias", "normalize")
        return {
            **super().get_config(),
            **{name: getattr(self, name) for name in (*own, "train_sharpness")},
        }

"""The cell of an energy or of a learned map: one gradient step."""

from __future__ import annotations

import functools

import keras
import numpy as np
import tensorflow as tf

from deq_keras import constraints, fidelities
from deq_keras.checks import positive, real
from deq_keras.config import deserialise, serialise
from deq_keras.layers.cell import Cell, expect, split, split_noise_level, split_with_shape
from deq_keras.layers.starts import of_fair_size
from deq_keras.linear_solvers.preconditioners import divide_by_factors, fourier_factors
from deq_keras.numerics.jacobian import power
from deq_keras.numerics.partial import Partial
from deq_keras.numerics.rows import norm, to_rows
from deq_keras.operators import LinearOperator
from deq_keras.priors import Prior
from deq_keras.priors.base import bind_prior
from deq_keras.priors.experts import logarithm_at_most
from deq_keras.problems import Preconditioner, Problem, Step

# Of solves by L-BFGS on a CPU: with 24 filters of 5 x 5 preconditioned ones take from a tenth more
# time to a third less, with 2 of 11 x 11 a tenth more, with total variation twice as much.
_MUCH_WORK = 1000


@keras.saving.register_keras_serializable(package="deq_keras")
class GradientStep(Cell):
    """One gradient step `f(u, y) = prox_{tau G}(u - tau (grad D(u) + lambda grad R(u)))`.

    `D(u) = D(K u, y)` is the data fidelity, `||K u - y||^2 / 2` by default, and `G` a constraint,
    none by default. If the prior has an energy, the fixed points are the critical points of

        E(u) = D(K u, y) + lambda R(u) + G(u),

    so `Equilibrium(GradientStep(K, R))` is the lower level of bilevel learning (`Variational` says
    that in a word). If it has none (`UntiedFieldsOfExperts`), they are those of a deep equilibrium
    model. `lambda` is trained as a logarithm, so it stays positive.

    Args:
        operator: `K`, a `deq_keras.operators.LinearOperator`.
        prior: `R`, a `deq_keras.priors.Prior`.
        weight: Initial `lambda`, the regularisation parameter, > 0.
        train_weight: Whether `lambda` is trained.
        step_size: `tau` > 0, or `None` for `1 / (L_D ||K||^2 + lambda Lip(grad R))`, from the
            constants that the parts certify for their current weights: the largest for which
            accelerated and plain gradient descent converge on a convex energy. Where a part
            certifies nothing, power iterations at the initial value estimate its constant.
        fidelity: `D`, a name such as `"least_squares"` or a `deq_keras.fidelities.Fidelity`.
        constraint: `G`, a name such as `"non_negative"` or a `deq_keras.constraints.Constraint`.
        max_weight: Training keeps `lambda` at or below it, or `None`.

    Call arguments:
        z: Images `(batch, height, width, channels)`, the current reconstruction.
        y: Measurements, or a pair `(y, data)` with per-image data of the operator (a mask for each
            image). With a prior that takes a noise level, the pair of that and the standard
            deviations `(batch,)`.

    Reference:
        Riccio, Ehrhardt and Benning, arXiv:2206.13193, section 3.

    Example:

    >>> operator = deq_keras.operators.GaussianBlur(kernel_size=5, stddev=1.0)
    >>> cell = deq_keras.layers.GradientStep(operator, deq_keras.priors.TotalVariation())
    >>> y = tf.random.uniform((2, 16, 16, 1))
    >>> cell(tf.zeros_like(y), y).shape
    TensorShape([2, 16, 16, 1])
    """

    def __init__(
        self,
        operator: LinearOperator,
        prior: Prior,
        weight: float = 0.1,
        train_weight: bool = True,
        step_size: float | None = None,
        fidelity: str | fidelities.Fidelity = "least_squares",
        constraint: str | constraints.Constraint | None = None,
        max_weight: float | None = None,
        **kwargs,
    ):
        expect("operator", operator, LinearOperator)
        expect("prior", prior, Prior)
        super().__init__(couples_batch=False, **kwargs)
        for name, part in (("operator", operator), ("prior", prior)):
            if part.variable_dtype != self.variable_dtype:
                raise ValueError(
                    f"Expected operator, prior and layer of one dtype. Received a layer of "
                    f"{self.variable_dtype} and `{name}` of {part.variable_dtype}. Construct each "
                    f"of them with dtype={self.variable_dtype!r}."
                )
        self.operator = operator
        self.prior = prior
        self.max_weight = None if max_weight is None else positive("max_weight", max_weight)
        self.weight = positive("weight", weight, upper=self.max_weight)
        self.train_weight = bool(train_weight)
        self.step_size = None if step_size is None else positive("step_size", step_size)
        self.fidelity = fidelities.get(fidelity)
        self.constraint = None if constraint is None else constraints.get(constraint)
        # A projection is no gradient.
        self.symmetric = self.prior.has_energy and self.constraint is None

    def build(self, z_shape, y_shape=None):
        data_shape = None
        if y_shape is not None:
            y_shape, _ = split_noise_level(y_shape, self.prior)
            data_shape = split(y_shape, self.operator)[1]
        if not self.operator.built:
            self.operator.build(z_shape, data_shape)
        if not self.prior.built:
            self.prior.build(z_shape)
        self.log_weight = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(np.log(self.weight)),
            trainable=self.train_weight,
            constraint=logarithm_at_most(self.max_weight),
            name="log_weight",
        )
        self.built = True

    @property
    def has_energy(self) -> bool:
        """Whether a step is one on an energy."""
        return self.prior.has_energy

    @property
    def may_certify(self) -> bool:
        # A map that is no gradient does where its prior is kept from weighing too much.
        return self.has_energy or self.max_weight is not None

    @property
    def is_convex(self) -> bool:
        """Whether a step is one on an energy that is convex."""
        parts = (self.prior, self.fidelity, *([self.constraint] if self.constraint else []))
        return self.has_energy and all(part.is_convex for part in parts)

    def bind(self, y, initial_value=None, training=None) -> Problem:
        y, noise_level = split_noise_level(y, self.prior)
        y, data, shape = split_with_shape(y, self.operator, initial_value)
        maps = self.operator.bind(shape, data, self.variable_dtype)
        prior = bind_prior(self.prior, shape, noise_level)
        weight = tf.exp(self.log_weight)
        slope = self._slope_at_zero(maps, y)
        gradient = Partial(_weighted_sum, (self._misfit(maps, y, slope), prior.gradient, weight))
        own_start = functools.cache(lambda: self._start(maps, slope))
        tau = self._step_size(y, data, shape, prior, weight, own_start)
        start = own_start() if initial_value is None else self._feasible(initial_value)
        energy = None
        if prior.energy is not None:
            misfit = Partial(self._misfit_energy, (maps.forward,), (y,))
            energy = Partial(_weighted_sum, (misfit, prior.energy, weight))
            if self.constraint is not None:
                energy = Partial(lambda u, smooth: smooth(u) + self.constraint.value(u), (energy,))
        proximal = self.constraint and Partial(self.constraint.proximal)
        own = bool(tau.shape.rank)  # whether each image has a step of its own
        parts = (gradient, proximal) if own else (gradient, proximal, tau)
        return Problem(
            Partial(_descend, parts, (tau,) if own else ()),
            start,
            tau * norm(to_rows(slope)[0]),
            self._modulus(y, data, prior, weight, tau),
            Step(energy, tau, gradient, proximal),
            self.symmetric,
            self.is_convex,
            self._preconditioner(maps, prior, weight, tau),
        )

    def call(self, z, y):
        return self.bind(y, z).f(z)

    def energy(self, u, y) -> tf.Tensor:
        """`E(u)` for each image, shape `(batch,)`.

        Raises:
            ValueError: If the prior has no energy.
        """
        if not self.has_energy:
            self.prior.energy(u)  # which says so
        return self.bind(y, u).step.energy(u)

    def gradient(self, u, y) -> tf.Tensor:
        """The gradient of the smooth part of `E` at `u`, of the shape of `u`."""
        return self.bind(y, u).step.gradient(u)

    def initial_value(self, y):
        """Where to start: `K^T y`, more generally `-grad D(0)`, feasible and of a fair size."""
        y, data, shape = split_with_shape(split_noise_level(y, self.prior)[0], self.operator)
        maps = self.operator.bind(shape, data)
        return self._start(maps, self._slope_at_zero(maps, y))

    def scalars(self):
        return {"weight": tf.exp(self.log_weight), **self.prior.scalars()}

    def state_shape(self, y_shape):
        y_shape, _ = split_noise_level(y_shape, self.prior)
        return self.operator.image_shape(*split(y_shape, self.operator))

    def _slope_at_zero(self, maps, y):
        """`grad D(0)`: for least squares `-K^T y`."""
        nothing = tf.nest.map_structure(tf.zeros_like, y)
        return real(maps.adjoint(self.fidelity.gradient(nothing, y)), self.operator)

    def _start(self, maps, slope):
        return self._feasible(of_fair_size(-slope, maps.forward))

    def _feasible(self, u):
        """The image itself, or the nearest one that satisfies the constraint."""
        if self.constraint is None:
            return u
        return self.constraint.proximal(u, tf.zeros_like(u[:, 0, 0, 0]))

    def _misfit(self, maps, y, slope):
        """The gradient of `u -> D(K u, y)`."""
        if self.fidelity.residual_gradient:
            return Partial(lambda u, normal, slope: normal(u) + slope, (maps.normal,), (slope,))

        def gradient(u, forward, adjoint, y):
            return adjoint(self.fidelity.gradient(forward(u), y))

        return Partial(gradient, (maps.forward, maps.adjoint), (y,))

    def _misfit_energy(self, u, forward, y):
        return self.fidelity.value(forward(u), y)

    def _step_size(self, y, data, shape, prior, weight, own_start):
        """`tau` for the current weights: a scalar, or `(batch,)` if the data differ."""
        if self.step_size is not None:
            return tf.constant(self.step_size, self.variable_dtype)
        lipschitz = prior.lipschitz
        if lipschitz is None:
            # Not at the iterate, or the map would change with it.
            lipschitz = _estimate(prior.gradient, own_start())
        of_data = self.fidelity.lipschitz(y)
        square = self.operator.operator_norm(data, shape) ** 2
        square = square if of_data is None else of_data * square
        return 1.0 / (square + weight * lipschitz)

    @property
    def certified(self) -> bool:
        """Whether the default step size follows from bounds that are proven, not estimated."""
        return all(part.certified for part in (self.operator, self.prior, self.fidelity))

    def _modulus(self, y, data, prior, weight, tau):
        """Certified `tau (m_D sigma_min(K)^2 + lambda m_R) >= 0`, or `None`."""
        of_data = self.fidelity.strong_convexity(y)
        if prior.strong_convexity is None or of_data is None:
            return None
        curvature = of_data * self.operator.smallest_singular_value(data) ** 2
        modulus = tf.maximum(tau * (curvature + weight * prior.strong_convexity), 0.0)
        # A proximal step contracts like the gradient step in it only if that is a short one.
        short = self.step_size is None and self.certified
        proven = self.constraint is None or (short and self.constraint.is_convex)
        return modulus if proven else None

    def _preconditioner(self, maps, prior, weight, tau):
        """The `Preconditioner`, from a point to an approximate inverse `M` of `I - df/dz` there.

        `I - df/dz = tau (K^T K + lambda Hess R(z))` is approximated by a circular convolution, and
        scaled by its diagonal. `M` is symmetric and positive definite.
        """
        parts = (maps.spectrum, prior.hessian_spectrum)
        if None in parts or self.constraint is not None or not self.fidelity.residual_gradient:
            return None

        def at(z, of_data, of_prior, data_diagonal, prior_diagonal, weight, tau):
            diagonal = None
            if data_diagonal is not None and prior_diagonal is not None:
                diagonal = data_diagonal() + weight * prior_diagonal(z)
            tau = tf.reshape(tau, (-1, 1, 1))  # one, or one for each image
            return fourier_factors(tau * (of_data() + weight * of_prior(z)), diagonal)

        shared = (*parts, maps.diagonal, prior.hessian_diagonal, weight)
        own = bool(tau.shape.rank)  # whether each image has a step of its own
        at = Partial(at, shared if own else (*shared, tau), (tau,) if own else ())
        return Preconditioner(at, divide_by_factors, prior.work >= _MUCH_WORK)

    def get_config(self):
        config = super().get_config()
        for name in ("symmetric", "couples_batch"):  # these follow from the parts
            del config[name]
        return {
            **config,
            "operator": serialise(self.operator),
            "prior": serialise(self.prior),
            "weight": self.weight,
            "train_weight": self.train_weight,
            "step_size": self.step_size,
            "fidelity": serialise(self.fidelity),
            "constraint": serialise(self.constraint),
            "max_weight": self.max_weight,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "operator", "prior", "fidelity", "constraint"))


def _weighted_sum(u, first, second, weight):
    return first(u) + weight * second(u)


def _descend(u, gradient, proximal, tau):
    length = tau
    if tau.shape.rank == 1:  # one for each image, as the operator's data differ
        length = tau[:, None, None, None]
    stepped = u - length * gradient(u)
    return stepped if proximal is None else proximal(stepped, tau * tf.ones_like(u[:, 0, 0, 0]))


def _estimate(gradient, u):
    """An estimate `(batch,)` of the Lipschitz constant of a gradient near `u`, no proven bound."""
    found = power(gradient, tf.stop_gradient(u), seed=(0, 0), steps=5, quantity="norm")
    return 2.0 * tf.stop_gradient(found)

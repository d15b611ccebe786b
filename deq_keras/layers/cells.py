"""Cells: maps `f(z, y)` whose fixed point in `z` is a reconstruction from the measurement `y`."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.checks import positive
from deq_keras.config import deserialise
from deq_keras.linear_solvers import fourier_preconditioner
from deq_keras.numerics.rows import norm, to_rows
from deq_keras.operators import LinearOperator
from deq_keras.priors import Prior
from deq_keras.priors.sensitivity import Sensitivity
from deq_keras.solvers import Objective


@keras.saving.register_keras_serializable(package="deq_keras")
class GradientStep(keras.layers.Layer):
    """One gradient step `f(u, y) = u - tau (K^T (K u - y) + lambda grad R(u))`.

    If the prior has an energy, its fixed points are the critical points of

        E(u) = ||K u - y||^2 / 2 + lambda R(u),

    so `Equilibrium(GradientStep(K, R))` is the lower level of bilevel learning (`Variational` says
    that in a word). If it has none (`UntiedFieldsOfExperts`), they are those of a deep equilibrium
    model. `lambda` is trained as a logarithm, so it stays positive.

    `bind(y)` returns the map `u -> f(u, y)` with all that does not depend on `u` computed once:
    `K^T y`, the normalised filters, the step size. Solvers iterate that.

    Args:
        operator: `K`, a `deq_keras.operators.LinearOperator`.
        prior: `R`, a `deq_keras.priors.Prior`.
        weight: Initial `lambda`, the regularisation parameter, > 0.
        train_weight: Whether `lambda` is trained.
        step_size: `tau` > 0, or `None` for `1 / (||K||^2 + lambda Lip(grad R))`, from the constants
            that operator and prior certify for their current weights: the largest for which
            accelerated and plain gradient descent converge on a convex energy.

    Call arguments:
        z: Images `(batch, height, width, channels)`, the current reconstruction.
        y: Measurements of the same shape, or a pair `(y, data)` with per-image data of the operator
            (a mask for each image).

    Reference:
        Riccio, Ehrhardt and Benning, arXiv:2206.13193, section 3.

    Example:

    >>> operator = deq_keras.operators.GaussianBlur(kernel_size=5, stddev=1.0)
    >>> cell = deq_keras.layers.GradientStep(operator, deq_keras.priors.TotalVariation())
    >>> y = tf.random.uniform((2, 16, 16, 1))
    >>> cell(tf.zeros_like(y), y).shape
    TensorShape([2, 16, 16, 1])
    """

    def __init__(self, operator, prior, weight=0.1, train_weight=True, step_size=None, **kwargs):
        super().__init__(**kwargs)
        _expect("operator", operator, LinearOperator)
        _expect("prior", prior, Prior)
        for name, part in (("operator", operator), ("prior", prior)):
            if part.variable_dtype != self.variable_dtype:
                raise ValueError(
                    f"Expected operator, prior and layer of one dtype. Received a layer of "
                    f"{self.variable_dtype} and `{name}` of {part.variable_dtype}. Construct each "
                    f"of them with dtype={self.variable_dtype!r}."
                )
        self.operator = operator
        self.prior = prior
        self.weight = positive("weight", weight)
        self.train_weight = bool(train_weight)
        self.step_size = None if step_size is None else positive("step_size", step_size)

    def build(self, z_shape, y_shape=None):
        _, data_shape = (None, None) if y_shape is None or is_shape(y_shape) else split(y_shape)
        if not self.operator.built:
            self.operator.build(z_shape, data_shape)
        if not self.prior.built:
            self.prior.build(z_shape)
        self.log_weight = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(np.log(self.weight)),
            trainable=self.train_weight,
            name="log_weight",
        )
        self.built = True

    @property
    def has_energy(self):
        """Whether a step is a gradient step on an energy; its Jacobian is then symmetric."""
        return self.prior.has_energy

    @property
    def is_convex(self):
        """Whether, in addition, that energy is convex."""
        return self.prior.has_energy and self.prior.is_convex

    def bind(self, y):
        """The map `u -> f(u, y)` for one measurement."""
        return _descent(self.gradient_map(y), self._step(y))

    def describe(self, y):
        """`bind(y)`, and a dictionary of `reference(y)`, `modulus(y)` and `objective(y)`.

        What they share, the step size before all, is computed once: its bounds are the larger part
        of a graph, and of the time to trace it. Solves ask for this, so a subclass that overrides
        one of them overrides this as well.
        """
        gradient, tau = self.gradient_map(y), self._step(y)
        return _descent(gradient, tau), {
            "reference": self._reference(y, tau),
            "modulus": self._modulus(tau),
            "objective": self._objective(y, gradient, tau),
        }

    def gradient_map(self, y):
        """The map `u -> K^T (K u - y) + lambda grad R(u)` for one measurement."""
        y, data = split(y)
        back_projection = self.operator.adjoint(y, data)
        normal = self.operator.normal_map(back_projection, data)
        prior_gradient, weight = self.prior.gradient_map(), tf.exp(self.log_weight)
        return lambda u: normal(u) - back_projection + weight * prior_gradient(u)

    def call(self, z, y):
        return self.bind(y)(z)

    def energy(self, u, y):
        """`E(u)` for each image, shape `(batch,)`."""
        return self.energy_map(y)(u)

    def energy_map(self, y):
        """The map `u -> E(u)`, `(batch,)`, for one measurement: what line searches compare."""
        y, data = split(y)
        weight, prior_energy = tf.exp(self.log_weight), self.prior.energy_map()

        def energy(u):
            misfit = tf.reduce_sum((self.operator.call(u, data) - y) ** 2, axis=(1, 2, 3))
            return 0.5 * misfit + weight * prior_energy(u)

        return energy

    def objective(self, y):
        """The energy as a `deq_keras.solvers.Objective`, or `None` if there is none."""
        return self._objective(y, self.gradient_map(y), self._step(y))

    def _objective(self, y, gradient, tau):
        if not self.has_energy:
            return None
        return Objective(self.energy_map(y), tau, gradient, convex=self.is_convex)

    def initial_state(self, y):
        """Where to start: `K^T y`."""
        y, data = split(y)
        return self.operator.adjoint(y, data)

    def reference(self, y):
        """`tau ||K^T y||` for each image: makes a residual of the map a relative gradient."""
        return self._reference(y, self._step(y))

    def _reference(self, y, tau):
        image, data = split(y)
        rows, _, _ = to_rows(self.operator.adjoint(image, data))
        return tau * norm(rows)

    def modulus(self, y):
        """Certified `tau (sigma_min(K)^2 + lambda m_R) >= 0`, with the prior's modulus `m_R`."""
        return self._modulus(self._step(y))

    def _modulus(self, tau):
        curvature = self.operator.smallest_singular_value() ** 2
        curvature += tf.exp(self.log_weight) * self.prior.convexity()
        return tf.maximum(tau * curvature, 0.0)

    def _step(self, y):
        image, data = split(y)
        return self.current_step_size(data, self._size(image))

    def _size(self, image):
        known = image.shape[1:3].is_fully_defined()
        return image.shape[1:3] if known else tf.shape(image)[1:3]

    def current_step_size(self, data=None, size=None):
        """`tau` for the current weights: a scalar, or `(batch,)` if the data differ.

        Args:
            data: Data of the operator.
            size: `(height, width)` of the images, which may allow longer steps; `None`: any.
        """
        if self.step_size is not None:
            return tf.cast(self.step_size, self.variable_dtype)
        prior = tf.exp(self.log_weight) * self.prior.gradient_lipschitz(size)
        return 1.0 / (self.operator.operator_norm(data) ** 2 + prior)

    def preconditioner(self, y):
        """The map `z -> (w -> M w)` from a solution to an approximate inverse of `I - df/dz`.

        `I - df/dz = tau (K^T K + lambda Hess R(z))` is approximated by a circular convolution, and
        scaled by its diagonal. `M` is symmetric and positive definite.

        Returns:
            A callable of callables, or `None` if operator or prior have no spectrum.
        """
        tau, weight = self._step(y), tf.exp(self.log_weight)
        y, data = split(y)
        normal, prior = self.operator.normal_spectrum(y, data), self.prior.hessian_spectrum_map()
        if normal is None or prior is None:
            return None
        tau = tf.reshape(tau, (-1, 1, 1))  # one, or one for each image
        fixed, varying = self.operator.normal_diagonal(y, data), self.prior.hessian_diagonal_map()

        def at(z):
            unknown = fixed is None or varying is None
            diagonal = None if unknown else fixed + weight * varying(z)
            return fourier_preconditioner(tau * (normal + weight * prior(z)), diagonal)

        return at

    def sensitivities(self, u, y, radius):
        """What is certified of `d grad E(u) / d theta` for each parameter `theta`.

        Args:
            u: Images.
            y: Measurement.
            radius: `(batch,)`, how far from `u` the Lipschitz constants have to hold.

        Returns:
            Dictionary from `"measurement"`, `"log_weight"` and the names of the prior's weights to
            `deq_keras.priors.sensitivity.Sensitivity`.
        """
        image, data = split(y)
        size, weight = self._size(image), tf.exp(self.log_weight)
        gradient, _, _ = to_rows(self.prior.gradient_map()(u))
        ones = tf.ones_like(radius)
        of_prior = self.prior.sensitivities(u, radius, size)
        return {
            "measurement": Sensitivity(self.operator.operator_norm(data) * ones, 0.0 * ones),
            "log_weight": Sensitivity(
                weight * norm(gradient), weight * self.prior.gradient_lipschitz(size) * ones
            ),
            **{
                name: Sensitivity(weight * known.norm, weight * known.lipschitz)
                for name, known in of_prior.items()
            },
        }

    def hessian_variation(self, p, y):
        """Certified `L` with `||(Hess E(u) - Hess E(v)) p|| <= L ||u - v||`, `(batch,)`."""
        size = self._size(split(y)[0])
        return tf.exp(self.log_weight) * self.prior.hessian_variation(p, size)

    def compute_output_shape(self, z_shape, y_shape=None):
        return z_shape

    def get_config(self):
        return {
            **super().get_config(),
            "operator": keras.saving.serialize_keras_object(self.operator),
            "prior": keras.saving.serialize_keras_object(self.prior),
            "weight": self.weight,
            "train_weight": self.train_weight,
            "step_size": self.step_size,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "operator", "prior"))


def _descent(gradient, tau):
    if tau.shape.rank == 1:  # one for each image, as the operator's data differ
        tau = tau[:, None, None, None]
    return lambda u: u - tau * gradient(u)


def split(y):
    """`(y, data)` from a measurement alone or a pair of a measurement and operator data."""
    if isinstance(y, (list, tuple)):
        if len(y) != 2:
            raise ValueError(
                "Expected a measurement or a pair (measurement, operator data). "
                f"Received {len(y)} tensors."
            )
        return y[0], y[1]
    return y, None


def is_shape(shape):
    """Whether this is the shape of one tensor, and not a structure of shapes."""
    return all(size is None or isinstance(size, int) for size in shape)


def _expect(name, value, cls):
    if not isinstance(value, cls):
        raise ValueError(
            f"Expected `{name}` to be a `{cls.__module__.split('.')[1]}.{cls.__name__}`. "
            f"Received {value!r} of type {type(value).__name__}."
        )

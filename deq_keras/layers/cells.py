"""Cells: maps `f(z, y)` whose fixed point in `z` is a reconstruction from the measurement `y`."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.operators import LinearOperator
from deq_keras.priors import Prior
from deq_keras.registry import positive
from deq_keras.rows import norm, to_rows


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
        gradient, tau = self.gradient_map(y), self.current_step_size(split(y)[1])
        if tau.shape.rank == 1:  # one for each image, as the operator's data differ
            tau = tau[:, None, None, None]
        return lambda u: u - tau * gradient(u)

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
        y, data = split(y)
        misfit = tf.reduce_sum((self.operator.call(u, data) - y) ** 2, axis=(1, 2, 3))
        return 0.5 * misfit + tf.exp(self.log_weight) * self.prior.energy(u)

    def initial_state(self, y):
        """Where to start: `K^T y`."""
        y, data = split(y)
        return self.operator.adjoint(y, data)

    def reference(self, y):
        """`tau ||K^T y||` for each image: makes a residual of the map a relative gradient."""
        y, data = split(y)
        rows, _, _ = to_rows(self.operator.adjoint(y, data))
        return self.current_step_size(data) * norm(rows)

    def modulus(self, y):
        """Certified `tau (sigma_min(K)^2 + lambda m_R) >= 0`, with the prior's modulus `m_R`."""
        _, data = split(y)
        curvature = self.operator.smallest_singular_value() ** 2
        curvature += tf.exp(self.log_weight) * self.prior.convexity()
        return tf.maximum(self.current_step_size(data) * curvature, 0.0)

    def current_step_size(self, data=None):
        """`tau` for the current weights: a scalar, or `(batch,)` if the data differ."""
        if self.step_size is not None:
            return tf.cast(self.step_size, self.variable_dtype)
        prior = tf.exp(self.log_weight) * self.prior.gradient_lipschitz()
        return 1.0 / (self.operator.operator_norm(data) ** 2 + prior)

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


def deserialise(config, *names):
    """A copy of `config` with the named entries turned from configurations into objects."""
    config = dict(config)
    for name in names:
        if isinstance(config.get(name), dict):
            config[name] = keras.saving.deserialize_keras_object(config[name])
    return config


def _expect(name, value, cls):
    if not isinstance(value, cls):
        raise ValueError(
            f"Expected `{name}` to be a `{cls.__module__.split('.')[1]}.{cls.__name__}`. "
            f"Received {value!r} of type {type(value).__name__}."
        )

"""The cell of a learned proximal map: a gradient step on the data fidelity, then a network."""

from __future__ import annotations

import keras
import tensorflow as tf

from deq_keras.checks import positive, real
from deq_keras.config import deserialise, serialise
from deq_keras.layers.averaged import certified_lipschitz
from deq_keras.layers.cell import Cell, expect, split, split_with_shape
from deq_keras.layers.starts import of_fair_size
from deq_keras.numerics import partial
from deq_keras.numerics.partial import Partial
from deq_keras.operators import LinearOperator
from deq_keras.problems import Problem


@keras.saving.register_keras_serializable(package="deq_keras")
class ProximalStep(Cell):
    """A learned proximal gradient step `f(z, y) = N(z - tau K^T (K z - y))`.

    The network `N` stands where the proximal map of a regulariser would be, so this is the deep
    equilibrium model DE-Prox of Gilton, Ongie and Willett, and plug-and-play proximal gradient
    descent if `N` is a denoiser. (Their DE-Grad is a `GradientStep` with a
    `deq_keras.priors.LearnedGradient`.)

    The gradient step does not expand for the default `tau`, so `f` is a contraction wherever `N`
    is one. That is certified for a `NormalizedConv2D`, an `Averaged` of one and a
    `keras.Sequential` of such layers, whose norms are known; of another network it can be declared.

    Args:
        operator: `K`, a `deq_keras.operators.LinearOperator`.
        network: `N`, a Keras layer or model from images to images of the same shape. Its dropout
            masks and statistics stay the same during a solve.
        step_size: `tau` > 0, or `None` for `1 / ||K||^2`.
        lipschitz: A Lipschitz constant of `N` that holds for all its weights, if you know one.
        couples_batch: As in `Cell`.

    Call arguments:
        z: Images `(batch, height, width, channels)`.
        y: Measurements, or a pair `(y, data)` with per-image data of the operator.
        training: Passed on to the network.

    Reference:
        Gilton, Ongie and Willett, Deep equilibrium architectures for inverse problems in imaging,
        IEEE TCI 2021.

    Example:

    >>> network = keras.Sequential([
    ...     deq_keras.layers.NormalizedConv2D(16, 3, norm=0.95, activation="relu"),
    ...     deq_keras.layers.NormalizedConv2D(1, 3, norm=0.95)])
    >>> blur = deq_keras.operators.GaussianBlur(kernel_size=5, stddev=1.0)
    >>> layer = deq_keras.layers.Equilibrium(deq_keras.layers.ProximalStep(blur, network))
    >>> layer(tf.random.uniform((2, 16, 16, 1))).shape
    TensorShape([2, 16, 16, 1])
    """

    def __init__(
        self,
        operator: LinearOperator,
        network: keras.layers.Layer,
        step_size: float | None = None,
        lipschitz: float | None = None,
        couples_batch: bool | None = None,
        **kwargs,
    ):
        expect("operator", operator, LinearOperator)
        if not isinstance(network, keras.layers.Layer):
            raise ValueError(f"Expected `network` to be a Keras layer. Received {network!r}.")
        kwargs.setdefault("dtype", operator.dtype_policy)
        super().__init__(symmetric=False, couples_batch=couples_batch, autocast=False, **kwargs)
        self.operator = operator
        self.network = network
        self.step_size = None if step_size is None else positive("step_size", step_size)
        self.lipschitz = None if lipschitz is None else positive("lipschitz", lipschitz)

    def build(self, z_shape, y_shape=None):
        data_shape = None if y_shape is None else split(y_shape, self.operator)[1]
        if not self.operator.built:
            self.operator.build(z_shape, data_shape)
        self.network(keras.KerasTensor(z_shape, self.variable_dtype))
        _check_precision(self.network, self.variable_dtype)
        self.built = True

    def bind(self, y, initial_value=None, training=None) -> Problem:
        maps, slope, tau, modulus = self._fidelity(y, initial_value)
        network = partial.of_layer(self, lambda x: self._apply(x, training))

        def step(z, network, normal, slope, tau):
            return network(z - _column(tau) * (normal(z) + slope))

        record = self.recorded(
            lambda z: step(z, lambda x: self._apply(x, training), maps.normal, slope, tau),
            network.shared[0],
        )
        return Problem(
            Partial(step, (network, maps.normal), (slope, tf.reshape(tau, (-1,)))),
            of_fair_size(-slope, maps.forward) if initial_value is None else initial_value,
            strong_convexity=modulus,
            symmetric=False,
            record=record,
        )

    def call(self, z, y, training=None):
        maps, slope, tau, _ = self._fidelity(y, z)
        return self._apply(z - _column(tau) * (maps.normal(z) + slope), training)

    def evaluate(self, z, y, training):
        return self.call(z, y, training)

    def initial_value(self, y):
        """Where to start: `K^T y`, scaled if it is far too large."""
        maps, slope, _, _ = self._fidelity(y, None)
        return of_fair_size(-slope, maps.forward)

    def state_shape(self, y_shape):
        return self.operator.image_shape(*split(y_shape, self.operator))

    def _fidelity(self, y, z):
        """`(maps, -K^T y, tau, modulus)` for a measurement and images like `z`."""
        y, data, shape = split_with_shape(y, self.operator, z)
        maps = self.operator.bind(shape, data, self.variable_dtype)
        square = self.operator.operator_norm(data, shape) ** 2
        tau = 1.0 / square if self.step_size is None else tf.constant(self.step_size, square.dtype)
        slope = -real(maps.adjoint(y), self.operator)
        return maps, slope, tau, self._modulus(data, tau, square)

    def _modulus(self, data, tau, square):
        """`1 - q` for a contraction with factor `q`, or `None` if none is certified."""
        lipschitz = self.lipschitz
        if lipschitz is None:
            lipschitz = certified_lipschitz(self.network)
        if lipschitz is None or not self.operator.certified:
            return None
        smallest = self.operator.smallest_singular_value(data) ** 2
        # The eigenvalues of I - tau K^T K lie between 1 - tau ||K||^2 and 1 - tau sigma_min^2.
        expansion = tf.maximum(tf.abs(1.0 - tau * smallest), tf.abs(1.0 - tau * square))
        return tf.maximum(1.0 - lipschitz * expansion, 0.0)

    def _apply(self, x, training):
        result = self.network(x, training=training)
        if tuple(result.shape[1:]) != tuple(x.shape[1:]):
            raise ValueError(
                f"Expected a `network` whose output has the shape of its input, {tuple(x.shape)}. "
                f"Received {tuple(result.shape)}. End it with as many channels as the images have, "
                "and pad its convolutions."
            )
        return tf.cast(result, x.dtype)

    def get_config(self):
        config = super().get_config()
        del config["symmetric"]
        return {
            **config,
            "operator": serialise(self.operator),
            "network": serialise(self.network),
            "step_size": self.step_size,
            "lipschitz": self.lipschitz,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "operator", "network"))


def _column(tau):
    return tf.reshape(tau, (-1, 1, 1, 1))


def _check_precision(network, dtype):
    """Refuses a `keras.Sequential` that casts its input to the global precision."""
    if isinstance(network, keras.Sequential):
        received = {network.variable_dtype, *(x.dtype for x in network.inputs)}
        if received != {dtype}:
            raise ValueError(
                f"Expected a `network` that takes {dtype}. Received a Sequential that casts its "
                f"input to {sorted(received - {dtype})[0]}. Call keras.config.set_dtype_policy("
                f"{dtype!r}) and begin it with keras.Input(shape, dtype={dtype!r}), or make a "
                "functional model."
            )

"""How large the Jacobian of a map is, and penalties on it: what keeps an equilibrium stable.

The fixed point of a map whose Jacobian is small is found in few steps and stays where it is when
the weights change a little. The estimators need products with the transposed Jacobian only, one
for each random probe or power iteration, and give one number for each image.
"""

import keras
import tensorflow as tf

from deq_keras import checks, config
from deq_keras.checks import positive, positive_int
from deq_keras.config import Configurable

_PROBES = ("rademacher", "normal")
_QUANTITIES = ("norm", "radius")


def hutchinson(f, z, seed, probes=1, distribution="rademacher"):
    """Estimates the mean squared norm of the Jacobian's columns, `||J||_F^2 / n`, for each image.

    `J` is the Jacobian of `f` at `z`, for each image apart, and `n` the number of values of `z` in
    an image. For random `e` of independent entries with mean 0 and variance 1 the mean of
    `||J^T e||^2` is `||J||_F^2`, so the estimate has no bias, whatever the number of probes.

    Args:
        f: A map of `z` that treats every image of a batch apart. Its value may have another shape
            or structure than `z`.
        z: A tensor `(batch, ...)` or a nested structure of such.
        seed: Two integers or a tensor of them: the same seed gives the same probes.
        probes: How many probes to average over, one vector-Jacobian product each.
        distribution: Of the probes: `"rademacher"` (-1 and 1, of the smallest variance) or
            `"normal"`.

    Returns:
        `(batch,)`, differentiable in all that `f` depends on, `z` included. Float32 for
        half-precision values.

    Raises:
        ValueError: If `probes` is no positive integer or the distribution is unknown.

    Reference:
        M. F. Hutchinson: A stochastic estimator of the trace of the influence matrix. 1990.
        S. Bai, V. Koltun, J. Z. Kolter: Stabilizing equilibrium models by Jacobian regularization.
        ICML 2021.

    Example:

    >>> hutchinson(lambda z: 0.5 * z, tf.zeros((2, 8, 8, 1)), seed=(0, 0))  # 0.25 for each image
    """
    probes = positive_int("probes", probes)
    _one_of("distribution", distribution, _PROBES)
    transposed, value, z = _transposed(f, z)
    total = 0.0
    for i in range(probes):
        probe = _random(value, tf.random.experimental.stateless_fold_in(seed, i), distribution)
        total += _squares(transposed(probe))
    size = sum(tf.size(leaf) / tf.shape(leaf)[0] for leaf in tf.nest.flatten(z))
    return total / (probes * tf.cast(size, total.dtype))


def power(f, z, seed, steps=10, quantity="norm"):
    """Estimates the spectral norm or the spectral radius of the Jacobian, for each image.

    Power iteration with `J^T J` or with `J^T`, from a random start. The norm is approached from
    below, and **never certified**. The radius is the growth in the last step; where the largest
    eigenvalues are a complex pair it need not settle.

    Args:
        f: A map of `z` that treats every image of a batch apart; for the radius its value has the
            structure of `z`.
        z: A tensor `(batch, ...)` or a nested structure of such.
        seed: Two integers or a tensor of them.
        steps: How many iterations. For the radius each is one vector-Jacobian product, for the
            norm one, and one product with the Jacobian, which is the derivative of a
            vector-Jacobian product.
        quantity: `"norm"` (the largest singular value) or `"radius"` (the largest modulus of the
            eigenvalues, which decides whether Picard's iteration converges).

    Returns:
        `(batch,)`. Its derivative is that of the last product, with the vector before it fixed:
        for the norm, the derivative of the norm itself once the vector has converged.

    Raises:
        ValueError: If `steps` is no positive integer, the quantity is unknown, or the radius is
            asked for a map into another structure.

    Reference:
        T. Miyato et al.: Spectral normalization for generative adversarial networks. ICLR 2018.

    Example:

    >>> power(lambda z: 0.5 * z, tf.zeros((2, 8, 8, 1)), seed=(0, 0))  # 0.5 for each image
    """
    steps = positive_int("steps", steps)
    _one_of("quantity", quantity, _QUANTITIES)
    transposed, value, z = _transposed(f, z)
    if quantity == "radius":
        _check_structure(z, value)
    u = _unit(_random(value, seed, "normal"))
    if quantity == "radius":
        for _ in range(steps - 1):
            u = _fixed(_unit(transposed(u)))
    else:
        product = _product(transposed, u)
        for _ in range(steps):
            u = _fixed(_unit(product(_unit(transposed(u)))))
    return _root(_squares(transposed(u)))


@keras.saving.register_keras_serializable(package="deq_keras")
class JacobianRegularizer(Configurable):
    """A penalty `penalty(f, z, seed) -> scalar` on the Jacobian of a map at a point.

    Args:
        weight: Factor of the penalty, >= 0.

    Call arguments:
        f: The map, which treats every image of a batch apart.
        z: Where: a tensor `(batch, ...)` or a nested structure of such. Pass
            `tf.stop_gradient(z)` for a penalty that moves the weights of `f` and not `z`.
        seed: Two integers or a tensor of them. In training, fresh ones each step.
    """

    def __init__(self, weight=1.0):
        self.weight = positive("weight", weight, zero=True)

    def estimate(self, f, z, seed):
        """What is penalised, for each image: `(batch,)`."""
        raise NotImplementedError

    def __call__(self, f, z, seed=(0, 0)):
        return self.weight * tf.reduce_mean(self.estimate(f, z, seed))

    def get_config(self):
        return {"weight": self.weight}


@keras.saving.register_keras_serializable(package="deq_keras")
class FrobeniusPenalty(JacobianRegularizer):
    """`weight ||J||_F^2 / n`, averaged over the images, by random probes (see `hutchinson`).

    Args:
        weight: Factor of the penalty, >= 0.
        probes: How many random probes, one vector-Jacobian product each.

    Example:

    >>> penalty = FrobeniusPenalty(weight=0.1)
    >>> loss = penalty(lambda z: tf.tanh(2.0 * z), tf.zeros((2, 8, 8, 1)), seed=(0, 1))
    """

    def __init__(self, weight=1.0, probes=1):
        super().__init__(weight)
        self.probes = positive_int("probes", probes)

    def estimate(self, f, z, seed):
        return hutchinson(f, z, seed, self.probes)

    def get_config(self):
        return {**super().get_config(), "probes": self.probes}


@keras.saving.register_keras_serializable(package="deq_keras")
class SpectralPenalty(JacobianRegularizer):
    """`weight ||J||_2^2`, averaged over the images, by power iterations (see `power`).

    It penalises the direction that is stretched most, and so asks less of the others than
    `FrobeniusPenalty` does; each of its steps costs three vector-Jacobian products.

    Args:
        weight: Factor of the penalty, >= 0.
        steps: How many power iterations.

    Example:

    >>> penalty = SpectralPenalty(weight=0.1, steps=3)
    >>> loss = penalty(lambda z: tf.tanh(2.0 * z), tf.zeros((2, 8, 8, 1)), seed=(0, 1))
    """

    def __init__(self, weight=1.0, steps=5):
        super().__init__(weight)
        self.steps = positive_int("steps", steps)

    def estimate(self, f, z, seed):
        return power(f, z, seed, self.steps) ** 2

    def get_config(self):
        return {**super().get_config(), "steps": self.steps}


_BY_NAME = {"jacobian_frobenius": FrobeniusPenalty, "jacobian_spectral": SpectralPenalty}


def get(identifier):
    """A `JacobianRegularizer` from a name, a configuration or an object.

    Args:
        identifier: `"jacobian_frobenius"`, `"jacobian_spectral"`, what
            `keras.saving.serialize_keras_object` made of a penalty, or a penalty.

    Raises:
        ValueError: If the name is not known.
        TypeError: If it is something else.
    """
    return config.get(identifier, "Jacobian regularizer", _BY_NAME, JacobianRegularizer)


def _transposed(f, z):
    """The map `e -> J^T e`, linearised once, the value `f(z)`, and `z` as tensors."""
    z = tf.nest.map_structure(tf.identity, z)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        value = f(z)

    def transposed(e):
        return tape.gradient(
            value, z, output_gradients=e, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    return transposed, value, z


def _product(transposed, like):
    """The map `v -> J v`: the derivative of `<J^T w, v>` in `w`, which does not depend on `w`."""
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(like)
        back = transposed(like)
    return lambda v: tape.gradient(
        back, like, output_gradients=v, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )


def _fixed(structure):
    return tf.nest.map_structure(tf.stop_gradient, structure)


def _one_of(name, value, allowed):
    if value not in allowed:
        raise checks.unknown_name_error(name, value, allowed)


def _check_structure(z, value):
    try:
        tf.nest.assert_same_structure(z, value)
        same = all(
            a.shape.is_compatible_with(b.shape)
            for a, b in zip(tf.nest.flatten(z), tf.nest.flatten(value), strict=True)
        )
    except (TypeError, ValueError):
        same = False
    if not same:
        raise ValueError(
            "Expected a map whose value has the structure and shapes of `z`, for a spectral "
            f"radius. Received z: {_shapes(z)} and f(z): {_shapes(value)}. Use quantity='norm'."
        )


def _shapes(structure):
    return tf.nest.map_structure(lambda leaf: tuple(leaf.shape), structure)


def _random(like, seed, distribution):
    leaves = []
    for i, leaf in enumerate(tf.nest.flatten(like)):
        fold = tf.random.experimental.stateless_fold_in(seed, i)
        shape = tf.shape(leaf)
        if distribution == "normal":
            dtype = tf.float64 if leaf.dtype == tf.float64 else tf.float32
            noise = tf.cast(tf.random.stateless_normal(shape, fold, dtype=dtype), leaf.dtype)
        else:
            bits = tf.random.stateless_uniform(shape, fold, 0, 2, tf.int32)
            noise = tf.cast(2 * bits - 1, leaf.dtype)
        leaves.append(tf.ensure_shape(noise, leaf.shape))
    return tf.nest.pack_sequence_as(like, leaves)


def _squares(structure):
    """The squared norm of each image, in single precision at least."""
    total = 0.0
    for leaf in tf.nest.flatten(structure):
        if leaf.dtype not in (tf.float32, tf.float64):
            leaf = tf.cast(leaf, tf.float32)
        total += tf.reduce_sum(leaf * leaf, axis=tf.range(1, tf.rank(leaf)))
    return total


def _root(squares):
    """The square root, with derivative 0 at 0."""
    nonzero = squares > 0
    return tf.where(nonzero, tf.sqrt(tf.where(nonzero, squares, 1)), 0)


def _unit(structure):
    norm = _root(_squares(structure))
    norm = tf.where(norm > 0, norm, tf.ones_like(norm))

    def divide(leaf):
        shape = tf.concat([tf.shape(norm), tf.ones([tf.rank(leaf) - 1], tf.int32)], 0)
        return leaf / tf.cast(tf.reshape(norm, shape), leaf.dtype)

    return tf.nest.map_structure(divide, structure)

"""Products with Jacobians, forward and reverse, and estimates of how large a Jacobian is.

No matrix is formed. A product with the transposed Jacobian is a backward pass; one with the
Jacobian itself is the derivative of that. The estimates need such products only, one for each
random probe or power iteration, and give one number for each image.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from deq_keras.checks import one_of, positive_int

_PROBES = ("rademacher", "normal")
_QUANTITIES = ("norm", "radius")


def linearize(f: Callable, z: Any) -> tuple[Any, Callable]:
    """The value `f(z)` and the map `w -> J^T w`, with the Jacobian `J = df/dz` at `z`.

    `f` is evaluated once, and each product is a backward pass through that evaluation. Nothing is
    cut off from gradients: the products are differentiable in `w`, in `z` and in all that `f`
    depends on. A caller who does not want that stops `z`.

    Args:
        f: Map of `z` to a tensor or a nested structure.
        z: Real floating-point tensor or nested structure of such.

    Returns:
        `f(z)`, and the map from structures like it to structures like `z`. Where the value does not
        depend on a part of `z`, that part of a product is zero.

    Example:

    >>> weights = tf.constant([[1.0, 2.0]])
    >>> value, transposed = deq_keras.numerics.jacobian.linearize(
    ...     lambda z: z @ tf.transpose(weights), tf.ones((1, 2)))
    >>> value.numpy(), transposed(tf.ones((1, 1))).numpy()
    (array([[3.]], dtype=float32), array([[1., 2.]], dtype=float32))
    """
    # New tensors: where `f` holds `z` itself, that one stays a constant.
    z = tf.nest.map_structure(tf.identity, z)
    with tf.GradientTape(persistent=True, watch_accessed_variables=False) as tape:
        tape.watch(z)
        value = f(z)
    return value, lambda w: tape.gradient(
        value, z, w, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )


def transposed_product(f: Callable, z: Any) -> Callable:
    """The map `w -> J^T w` with the Jacobian `J = df/dz` at `z`, as `linearize` gives it.

    Args:
        f: Map of `z` to a tensor or a nested structure.
        z: Real floating-point tensor or nested structure of such; differentiable, unless stopped.

    Returns:
        Map from structures like `f(z)` to structures like `z`.

    Example:

    >>> transposed = deq_keras.numerics.jacobian.transposed_product(tf.square, tf.constant([3.0]))
    >>> transposed(tf.constant([2.0])).numpy()
    array([12.], dtype=float32)
    """
    return linearize(f, z)[1]


def product(f: Callable, z: Any) -> Callable:
    """The map `v -> J v` with the Jacobian `J = df/dz` at `z`, by two reverse products.

    It is the derivative of `w -> J^T w`, so it asks of `f` derivatives of second order in form, and
    no forward mode of any operation.

    Args:
        f: Map of `z` to a tensor or a nested structure.
        z: Real floating-point tensor or nested structure of such; differentiable, unless stopped.

    Returns:
        Map from structures like `z` to structures like `f(z)`.

    Example:

    >>> forward = deq_keras.numerics.jacobian.product(tf.square, tf.constant([3.0]))
    >>> forward(tf.constant([2.0])).numpy()
    array([12.], dtype=float32)
    """
    return linearize_forward(f, z)[1]


def linearize_forward(f: Callable, z: Any) -> tuple[Any, Callable]:
    """The value `f(z)` and the map `v -> J v`, as `linearize` and `product` give them.

    `f` is evaluated once. The first of the two reverse passes of a product is recorded once, and
    does not depend on `v`: in a graph a product costs as much as one with the transposed Jacobian.

    Args:
        f: Map of `z` to a tensor or a nested structure.
        z: Real floating-point tensor or nested structure of such.

    Returns:
        `f(z)`, and the map from structures like `z` to structures like it.

    Example:

    >>> value, forward = deq_keras.numerics.jacobian.linearize_forward(
    ...     tf.square, tf.constant([3.0]))
    >>> value.numpy(), forward(tf.constant([2.0])).numpy()
    (array([9.], dtype=float32), array([12.], dtype=float32))
    """
    value, transposed = linearize(f, z)
    return value, _transpose(transposed, tf.nest.map_structure(tf.zeros_like, value))


def _transpose(linear, at):
    """The transposed of a linear map of structures like `at`, by its derivative there."""
    return linearize(linear, at)[1]


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

    >>> z = tf.zeros((2, 8, 8, 1))
    >>> deq_keras.numerics.jacobian.hutchinson(lambda z: 0.5 * z, z, seed=(0, 0)).numpy()
    array([0.25, 0.25], dtype=float32)
    """
    probes = positive_int("probes", probes)
    one_of("distribution", distribution, _PROBES)
    value, transposed = linearize(f, z)
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

    >>> z = tf.zeros((2, 8, 8, 1))
    >>> deq_keras.numerics.jacobian.power(lambda z: 0.5 * z, z, seed=(0, 0)).numpy()
    array([0.5, 0.5], dtype=float32)
    """
    steps = positive_int("steps", steps)
    one_of("quantity", quantity, _QUANTITIES)
    value, transposed = linearize(f, z)
    if quantity == "radius":
        _check_structure(z, value)
    u = _unit(_random(value, seed, "normal"))
    if quantity == "radius":
        for _ in range(steps - 1):
            u = _fixed(_unit(transposed(u)))
    else:
        forward = _transpose(transposed, u)
        for _ in range(steps):
            u = _fixed(_unit(forward(_unit(transposed(u)))))
    return _root(_squares(transposed(u)))


def _fixed(structure):
    return tf.nest.map_structure(tf.stop_gradient, structure)


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

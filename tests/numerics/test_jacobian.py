"""The products with Jacobians, and the estimates of their size, against dense ones."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import convolution, testing
from deq_keras.numerics.jacobian import (
    hutchinson,
    linearize,
    power,
    product,
    transposed_product,
)
from tests.variants import covering

SEED = (3, 5)


def normal(seed, shape, dtype=tf.float64):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape), dtype)


def with_gap(largest):
    """A matrix whose largest singular value is far above the others: few power iterations do."""
    left, right = (np.linalg.qr(normal(seed, (6, 6)).numpy())[0] for seed in (0, 10))
    return tf.constant(left @ np.diag([largest, 0.3, 0.25, 0.2, 0.2, 0.1]) @ right)


WEIGHTS = with_gap(1.2)


def tensor_map(z, weights=WEIGHTS):
    return tf.tanh(z @ weights + 0.1)


def list_map(z, weights=WEIGHTS):
    a, b = z
    joined = tf.tanh(tf.concat([a, tf.reshape(b, (-1, 4))], 1) @ weights)
    return [joined[:, :2], tf.reshape(joined[:, 2:], (-1, 2, 2, 1))]


def dict_map(z, weights=WEIGHTS):
    first, second = list_map([z["a"], z["b"]], weights)
    return {"b": second, "a": first}


Z = normal(1, (3, 6))
PARTS = [Z[:, :2], tf.reshape(Z[:, 2:], (3, 2, 2, 1))]
CASES = {
    "tensor": (tensor_map, Z),
    "list": (list_map, PARTS),
    "dict": (dict_map, {"a": PARTS[0], "b": PARTS[1]}),
}


def dense(f, z):
    """The Jacobian of each image, `(batch, outputs, inputs)`, entry by entry."""
    leaves = tf.nest.flatten(z)
    sizes = [int(np.prod(leaf.shape[1:])) for leaf in leaves]
    rows = tf.concat([tf.reshape(leaf, (leaf.shape[0], -1)) for leaf in leaves], 1)

    def flat(rows):
        parts = tf.split(rows, sizes, 1)
        parts = [tf.reshape(p, leaf.shape) for p, leaf in zip(parts, leaves, strict=True)]
        value = f(tf.nest.pack_sequence_as(z, parts))
        return tf.concat([tf.reshape(v, (v.shape[0], -1)) for v in tf.nest.flatten(value)], 1)

    with tf.GradientTape() as tape:
        tape.watch(rows)
        value = flat(rows)
    return tape.batch_jacobian(value, rows).numpy()


def flat(structure):
    return np.concatenate([np.reshape(a, (len(a), -1)) for a in tf.nest.flatten(structure)], 1)


def like(structure, seed):
    leaves = tf.nest.flatten(structure)
    return tf.nest.pack_sequence_as(
        structure, [normal(seed + i, leaf.shape) for i, leaf in enumerate(leaves)]
    )


@pytest.mark.parametrize("case", CASES)
def test_products_are_those_with_the_dense_jacobian(case):
    f, z = CASES[case]
    matrices = dense(f, z)
    value, transposed = linearize(f, z)
    np.testing.assert_array_equal(flat(value), flat(f(z)))
    w, v = like(value, 20), like(z, 30)
    tf.nest.assert_same_structure(transposed(w), z)
    expected = np.einsum("bij,bi->bj", matrices, flat(w))
    np.testing.assert_allclose(flat(transposed(w)), expected, rtol=1e-12)
    np.testing.assert_array_equal(flat(transposed_product(f, z)(w)), flat(transposed(w)))
    forward = tf.function(lambda v: product(f, z)(v), autograph=False)(v)
    tf.nest.assert_same_structure(forward, value)
    expected = np.einsum("bij,bj->bi", matrices, flat(v))
    np.testing.assert_allclose(flat(forward), expected, rtol=1e-12)


def test_products_with_what_does_not_depend_on_z_are_zero():
    """For one part of it, in either way, and where the map holds `z` itself as a constant."""
    a, b = PARTS
    f = lambda z: [2.0 * z[0], tf.ones_like(z[0])]  # noqa: E731
    back = transposed_product(f, PARTS)([a, a])
    np.testing.assert_array_equal(back[0], 2 * a)
    np.testing.assert_array_equal(back[1], tf.zeros_like(b))
    forward = product(f, PARTS)([a, b])
    np.testing.assert_array_equal(forward[0], 2 * a)
    np.testing.assert_array_equal(forward[1], tf.zeros_like(a))
    np.testing.assert_array_equal(transposed_product(lambda z: z * Z, Z)(Z), Z * Z)


@pytest.mark.parametrize("name", ["transposed_product", "product"])
def test_products_are_differentiable_in_all_that_they_depend_on(name):
    make = {"transposed_product": transposed_product, "product": product}[name]
    testing.gradient_test(
        lambda weights, z, w: make(lambda z: tensor_map(z, weights), z)(w),
        WEIGHTS,
        Z,
        normal(5, Z.shape),
    )
    with tf.GradientTape() as tape:
        tape.watch(Z)
        stopped = make(tensor_map, tf.stop_gradient(Z))(tf.ones_like(Z))
    assert tape.gradient(stopped, Z) is None


@pytest.mark.parametrize(
    ("case", "distribution"), covering(itertools.product(CASES, ["rademacher", "normal"]))
)
def test_hutchinson_has_the_mean_of_the_frobenius_norm(case, distribution):
    """Within five standard errors, which the entries themselves give."""
    f, z = CASES[case]
    matrices = dense(f, z)
    exact = (matrices**2).sum((1, 2)) / 6
    estimate = tf.function(
        lambda seed: hutchinson(f, z, seed, probes=10, distribution=distribution)
    )
    estimates = np.stack([estimate(tf.constant((1, i))) for i in range(40)])
    error = estimates.std(0) / np.sqrt(40)
    assert (estimates.std(0) > 0).all()
    assert (abs(estimates.mean(0) - exact) < 5 * error).all()
    assert (5 * error < 0.5 * exact).all()


@pytest.mark.parametrize("distribution", ["rademacher", "normal"])
def test_hutchinson_is_its_formula_for_one_output(distribution):
    """With one output `||J^T e||^2 = e^2 ||J||^2`: a Rademacher probe is exact."""
    weights = normal(2, (6, 1))
    estimate = hutchinson(lambda z: tf.tanh(z @ weights), Z, SEED, distribution=distribution)
    exact = (dense(lambda z: tf.tanh(z @ weights), Z) ** 2).sum((1, 2)) / 6
    agrees = np.allclose(estimate, exact, rtol=1e-12)
    assert agrees == (distribution == "rademacher")


@pytest.mark.parametrize("case", CASES)
def test_power_is_the_spectral_norm(case):
    f, z = CASES[case]
    exact = np.linalg.norm(dense(f, z), 2, (1, 2))
    np.testing.assert_allclose(power(f, z, SEED, steps=20), exact, rtol=1e-6)
    assert (power(f, z, SEED, steps=2) <= exact * (1 + 1e-12)).numpy().all()


def test_power_of_a_map_into_another_space():
    weights = WEIGHTS[:, :4]
    f = lambda z: tf.tanh(z @ weights)  # noqa: E731
    exact = np.linalg.norm(dense(f, Z), 2, (1, 2))
    np.testing.assert_allclose(power(f, Z, SEED, steps=20), exact, rtol=1e-6)


def test_power_is_the_norm_of_a_convolution():
    """Through the convolutions' own gradients."""
    filters = tf.abs(normal(3, (3, 3, 1, 2)))
    images = normal(4, (2, 4, 5, 1))
    f = lambda u: convolution.correlate(u, filters, "zero")  # noqa: E731
    exact = np.linalg.norm(dense(f, images), 2, (1, 2))
    np.testing.assert_allclose(power(f, images, SEED, steps=20), exact, rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_power_is_the_spectral_radius(case):
    """Of a matrix that is not symmetric and has a simple largest eigenvalue."""
    f, z = CASES[case]
    rotation = np.linalg.qr(normal(6, (6, 6)).numpy())[0]
    triangular = np.triu(normal(7, (6, 6)), 1) * 0.4 + np.diag([0.9, 0.3, -0.3, 0.2, 0.1, 0.0])
    weights = tf.constant(rotation @ triangular @ rotation.T)
    zeros = tf.nest.map_structure(tf.zeros_like, z)
    linear = lambda z: f(z, weights)  # noqa: E731
    eigenvalues = np.linalg.eigvals(dense(linear, zeros))
    exact = abs(eigenvalues).max(1)
    estimate = power(linear, zeros, SEED, steps=40, quantity="radius")
    np.testing.assert_allclose(estimate, exact, rtol=1e-5)
    assert (exact < 0.95 * np.linalg.norm(dense(linear, zeros), 2, (1, 2))).all()


ESTIMATES = {
    "hutchinson": lambda f, z: hutchinson(f, z, SEED, probes=2),
    "norm": lambda f, z: power(f, z, SEED, steps=20),
    "radius": lambda f, z: power(f, z, SEED, steps=1, quantity="radius"),
}


@pytest.mark.parametrize(
    ("case", "name"),
    # All of them of a tensor, and each of one nested structure or the other.
    [
        *(("tensor", name) for name in ESTIMATES),
        *(("dict", "hutchinson"), ("dict", "radius")),
        pytest.param("list", "norm", marks=pytest.mark.slow),
    ],
)
def test_gradients_of_the_estimates(case, name):
    """In weights that the map closes over and in z. One step of a power has no fixed vector."""
    f, z = CASES[case]
    names = tf.nest.flatten(z)

    def function(weights, *leaves):
        return ESTIMATES[name](lambda z: f(z, weights), tf.nest.pack_sequence_as(z, leaves))

    testing.gradient_test(function, WEIGHTS, *names, rtol=1e-5)


def test_estimates_of_an_image_do_not_depend_on_its_companions_when_probes_do_not():
    """The probe of an image depends on its place in the batch; the converged norm does not."""
    together = power(tensor_map, Z, SEED, steps=20)
    alone = tf.concat([power(tensor_map, Z[i : i + 1], SEED, steps=20) for i in range(3)], 0)
    np.testing.assert_allclose(together, alone, rtol=1e-6)


def test_same_seed_same_probes():
    weights = normal(2, (6, 6))
    f = lambda z: tf.sin(z @ weights)  # noqa: E731
    first, again = hutchinson(f, Z, SEED), hutchinson(f, Z, tf.constant(SEED))
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, hutchinson(f, Z, (3, 6)))
    traced = tf.function(
        lambda z, seed: (hutchinson(f, z, seed), power(f, z, seed, 3)),
        [tf.TensorSpec([None, 6], tf.float64), tf.TensorSpec([2], tf.int32)],
        autograph=False,  # as in a Keras layer
    )
    for eager, graph in zip(
        (first, power(f, Z, SEED, 3)), traced(Z, tf.constant(SEED)), strict=True
    ):
        np.testing.assert_allclose(eager, graph, rtol=1e-12)


def test_a_map_that_does_not_depend_on_z():
    constant = lambda z: tf.ones_like(z)  # noqa: E731
    assert np.all(hutchinson(constant, Z, SEED).numpy() == 0)
    for quantity in ("norm", "radius"):
        with tf.GradientTape() as tape:
            tape.watch(Z)
            estimate = power(constant, Z, SEED, quantity=quantity)
        assert np.all(estimate.numpy() == 0)
        gradient = tape.gradient(estimate, Z)
        assert gradient is None or np.all(gradient.numpy() == 0)


def test_half_precision_is_accumulated_in_single():
    z = tf.zeros((2, 4096), tf.float16)
    for estimate in (hutchinson(lambda z: 8 * z, z, SEED), power(lambda z: 8 * z, z, SEED) ** 2):
        assert estimate.dtype == tf.float32
        np.testing.assert_allclose(estimate, 64, rtol=1e-2)


def test_errors():
    with pytest.raises(ValueError, match="probes"):
        hutchinson(tensor_map, Z, SEED, probes=0)
    with pytest.raises(ValueError, match="rademacher"):
        hutchinson(tensor_map, Z, SEED, distribution="rademacker")
    with pytest.raises(ValueError, match="steps"):
        power(tensor_map, Z, SEED, steps=1.5)
    with pytest.raises(ValueError, match="Did you mean 'radius'"):
        power(tensor_map, Z, SEED, quantity="radios")
    with pytest.raises(ValueError, match="quantity='norm'"):
        power(lambda z: z[:, :3], Z, SEED, quantity="radius")

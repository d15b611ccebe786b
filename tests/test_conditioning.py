"""Estimates of the conditioning of maps whose eigenvalues and norms are known."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import conditioning, layers, operators, priors, solvers

SIZE, BATCH = 24, 3


def _matrices(skew, seed=0, low=0.02, size=SIZE):
    """Matrices `(batch, n, n)` with known extremes of the symmetric part, and of the skew norm."""
    rng = np.random.default_rng(seed)
    found = []
    for row in range(BATCH):
        q, _ = np.linalg.qr(rng.normal(size=(size, size)))
        part = rng.normal(size=(size, size))
        part -= part.T
        values = np.geomspace(low * (row + 1), row + 1, size)
        found.append(q @ np.diag(values) @ q.T + skew * part / np.linalg.norm(part, 2))
    return np.stack(found)


def _estimate(a, symmetric, steps, dtype="float64"):
    matrix = tf.constant(a, dtype)
    problem = solvers.Problem(lambda z: z - tf.linalg.matvec(matrix, z), symmetric=symmetric)
    return conditioning.estimate(problem, tf.zeros(a.shape[:2], dtype), steps)


@pytest.mark.parametrize(("skew", "symmetric"), [(0.0, True), (0.0, False), (2.0, False)])
@pytest.mark.parametrize(("dtype", "close"), [("float64", 1e-7), ("float32", 2e-3)])
def test_enough_steps_give_all_of_it(skew, symmetric, dtype, close):
    size = 12
    a = _matrices(skew, size=size)
    found = _estimate(a, symmetric, 2 * size, dtype)  # half of them for the norms
    values = np.linalg.eigvalsh(0.5 * (a + np.swapaxes(a, 1, 2)))
    norm = np.linalg.norm(a, 2, axis=(1, 2))
    np.testing.assert_allclose(found.smallest, values[:, 0], rtol=close)
    np.testing.assert_allclose(found.largest, values[:, -1], rtol=close)
    np.testing.assert_allclose(found.skew, np.full(BATCH, skew), rtol=close, atol=close)
    np.testing.assert_allclose(found.norm, norm, rtol=close)
    np.testing.assert_allclose(found.condition, norm / values[:, 0], rtol=2 * close)


@pytest.mark.parametrize("steps", [1, 2, 5, 16])
def test_few_steps_are_within_the_truth_and_16_are_near_it(steps):
    a = np.concatenate([_matrices(1.0, seed) for seed in range(5)])  # one batch
    found = _estimate(a, False, steps)
    values = np.linalg.eigvalsh(0.5 * (a + np.swapaxes(a, 1, 2)))
    norm = np.linalg.norm(a, 2, axis=(1, 2))
    assert (found.smallest >= values[:, 0] * (1 - 1e-9)).numpy().all()
    assert (found.largest <= values[:, -1] * (1 + 1e-9)).numpy().all()
    assert (found.skew <= 1 + 1e-9).numpy().all()
    assert (found.norm <= norm * (1 + 1e-9)).numpy().all()
    if steps == 16:
        np.testing.assert_allclose(found.smallest, values[:, 0], rtol=0.5)
        np.testing.assert_allclose(found.norm, norm, rtol=0.1)
        np.testing.assert_allclose(found.skew, 1.0, rtol=0.1)


def test_products_are_as_many_as_it_says():
    """A product with the transposed is one gradient, and one with the map itself another."""
    counts = {"forward": 0, "transposed": 0}

    @tf.custom_gradient
    def transposed(w):
        counts["transposed"] += 1

        def gradient(v):
            counts["forward"] += 1
            return 0.5 * v

        return 0.5 * w, gradient

    @tf.custom_gradient
    def f(z):
        return 0.5 * z, transposed

    for symmetric, expected in ((True, (0, 16)), (False, (32, 32))):
        counts.update(forward=0, transposed=0)
        problem = solvers.Problem(f, symmetric=symmetric)
        conditioning.estimate(problem, tf.ones((2, 40)), 16)
        recording = 0 if symmetric else 1  # the first of two reverse passes, which is kept
        assert counts == {"forward": expected[0], "transposed": expected[1] + recording}


def test_an_image_is_measured_alone():
    a = _matrices(1.0)
    together, alone = _estimate(a, False, 8), _estimate(a[1:2], False, 8)
    for whole, one in zip(together, alone, strict=True):
        np.testing.assert_allclose(whole[1:2], one, rtol=1e-9)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("count", [1, 5])
def test_a_space_that_ends_early(symmetric, count):
    """A multiple of the identity, and fewer pixels than steps: no value of nothing is found."""
    problem = solvers.Problem(lambda z: 0.25 * z, symmetric=symmetric)
    found = conditioning.estimate(problem, tf.zeros((2, count)), 8)
    for value in (found.smallest, found.largest, found.norm):
        np.testing.assert_allclose(value, 0.75, rtol=1e-5)
    np.testing.assert_allclose(found.skew, 0.0, atol=1e-6)


def test_the_condition_is_infinite_where_the_symmetric_part_is_not_positive():
    curvature = tf.constant([[-0.5, 1.0, 2.0], [0.0, 1.0, 2.0], [0.5, 1.0, 2.0]])
    problem = solvers.Problem(lambda z: z - curvature * z, symmetric=True)
    found = conditioning.estimate(problem, tf.zeros((3, 3)), 3)
    np.testing.assert_allclose(found.smallest, [-0.5, 0.0, 0.5], atol=1e-6)
    assert found.condition.numpy()[0] == np.inf
    assert found.condition.numpy()[2] == pytest.approx(4.0, rel=1e-5)


def test_states_of_several_tensors():
    def f(z):
        return {"a": z["a"] - 0.1 * z["a"] - z["b"], "b": z["b"] - 2.0 * z["b"] + z["a"]}

    found = conditioning.estimate(f, {"a": tf.zeros((2, 1)), "b": tf.zeros((2, 1))}, 4)
    np.testing.assert_allclose(found.smallest, 0.1, rtol=1e-4)
    np.testing.assert_allclose(found.largest, 2.0, rtol=1e-4)
    np.testing.assert_allclose(found.skew, 1.0, rtol=1e-4)


@pytest.mark.parametrize("tied", [True, False])
def test_a_layer_against_its_dense_jacobian(tied):
    rng = np.random.default_rng(0)
    name = "FieldsOfExperts" if tied else "UntiedFieldsOfExperts"
    prior = getattr(priors, name)(filters=3, kernel_size=3, sharpness=20.0, dtype="float64")
    cell = layers.GradientStep(operators.Identity(dtype="float64"), prior, 0.5, dtype="float64")
    y = tf.constant(rng.uniform(size=(2, 3, 4, 1)))
    layer = layers.Equilibrium(cell, dtype="float64")
    layer.build(y.shape)
    for variable in layer.trainable_variables:
        variable.assign_add(0.3 * rng.normal(size=variable.shape))
    problem = cell.bind(y)
    point = tf.constant(rng.uniform(size=y.shape))
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(point)
        value = problem.f(point)
    jacobian = tape.batch_jacobian(value, point, experimental_use_pfor=False)  # traces nothing
    a = np.eye(12) - jacobian.numpy().reshape(2, 12, 12)
    found = conditioning.estimate(problem, point, 24)
    values = np.linalg.eigvalsh(0.5 * (a + np.swapaxes(a, 1, 2)))
    np.testing.assert_allclose(found.smallest, values[:, 0], rtol=1e-5)
    np.testing.assert_allclose(found.largest, values[:, -1], rtol=1e-5)
    np.testing.assert_allclose(found.norm, np.linalg.norm(a, 2, axis=(1, 2)), rtol=1e-5)
    skew = np.linalg.norm(0.5 * (a - np.swapaxes(a, 1, 2)), 2, axis=(1, 2))
    np.testing.assert_allclose(found.skew, skew, rtol=1e-5, atol=1e-9)
    assert bool((skew > 1e-3).all()) is not tied


def test_steps_are_counted():
    with pytest.raises(ValueError, match="`steps` to be an integer >= 1"):
        conditioning.estimate(lambda z: z, tf.zeros((1, 2)), 0)

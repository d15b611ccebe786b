"""Bounds that are never violated and not useless, and estimates that say what they are."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import adjoints, certificates, layers, linear_solvers, operators, priors, solvers

DTYPE = "float64"
COUNT = 100  # problems that are solved at once


def _quadratics(seed, dtype, size=6):
    """Gradient steps on random strongly convex quadratics, their minimisers and moduli."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(COUNT, size, size)))
    values = 10.0 ** rng.uniform(-2, 1, size=(COUNT, size))
    matrix = (q * values[:, None, :]) @ np.swapaxes(q, 1, 2)
    exact = rng.normal(size=(COUNT, size)) * 10.0 ** rng.uniform(-3, 3, size=(COUNT, 1))
    b = np.einsum("kij,kj->ki", matrix, exact)
    step = 1.0 / values.max(1)
    matrix, b_, step_ = (tf.constant(x, dtype) for x in (matrix, b, step))

    def f(z):
        return z - step_[:, None] * (tf.linalg.matvec(matrix, z) - b_)

    problem = solvers.Problem(
        f,
        scale=step_ * tf.norm(b_, axis=1),
        strong_convexity=tf.constant(step * values.min(1), dtype),
    )
    return problem, exact


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_bound_of_a_solution_is_never_violated(dtype):
    """Thousands of problems, at points near and far from the solution in every direction."""
    ratios = []
    for seed in range(12):
        problem, exact = _quadratics(seed, dtype)
        rng = np.random.default_rng(seed)
        size = np.linalg.norm(exact, axis=1, keepdims=True)
        for distance in (1.0, 1e-2, 1e-4, 1e-7):
            value = tf.constant(exact + distance * size * rng.normal(size=exact.shape), dtype)
            bound = certificates.solution_error(problem, value)
            assert bound.certified.numpy().all()
            error = np.linalg.norm(value - exact, axis=1)
            assert (error < bound.value.numpy()).all(), np.max(error / bound.value)
            ratios.append(bound.value / error)
    assert np.median(ratios) < 100


def _compiled(solver, problem):
    """`(start, tolerance) -> solution`, traced once for all tolerances."""
    solve = lambda z, tolerance: solver.within(tolerance).solve(problem, z)  # noqa: E731
    compiled = tf.function(solve, autograph=False)
    return lambda z, tolerance: compiled(z, tf.constant(tolerance))


def test_the_bound_of_what_a_solver_returns():
    problem, exact = _quadratics(0, DTYPE)
    solve = _compiled(solvers.Anderson(max_steps=300), problem)
    for tolerance in (1e-1, 1e-3, 1e-6):
        value = solve(tf.zeros(exact.shape, DTYPE), tolerance).value
        error = np.linalg.norm(value - exact, axis=1)
        assert (error < certificates.solution_error(problem, value).value.numpy()).all()


def test_the_bound_of_a_nonlinear_problem():
    rng = np.random.default_rng(0)
    a, y = (tf.constant(rng.normal(size=s)) for s in ((8, 10), (COUNT, 10)))
    lipschitz = 1 + np.linalg.norm(a, 2) ** 2

    def f(u):
        return u - (u - y + tf.tanh(u @ tf.transpose(a)) @ a) / lipschitz

    problem = solvers.Problem(f, strong_convexity=tf.constant(1 / lipschitz, tf.float64))
    solve = _compiled(solvers.Picard(max_steps=20000), problem)
    exact = solve(y, 1e-14).value
    for tolerance in 10.0 ** -np.arange(1, 9):
        value = solve(y, tolerance).value
        bound = certificates.solution_error(problem, value).value
        error = np.linalg.norm(value - exact, axis=1)
        assert (error / bound < 1).numpy().all(), np.max(error / bound)
        assert np.median(bound / error) < 100


def test_an_estimate_says_that_it_is_one():
    problem, exact = _quadratics(0, DTYPE)
    unknown = problem._replace(strong_convexity=None)
    value = solvers.Anderson(tolerance=1e-4).solve(problem, tf.zeros(exact.shape, DTYPE)).value
    estimate = certificates.solution_error(unknown, value)
    assert not estimate.certified.numpy().any()
    error = np.linalg.norm(value - exact, axis=1)
    np.testing.assert_allclose(estimate.value, error, rtol=0.5, err_msg="Newton's step is exact")
    # Some images with a modulus, some without.
    modulus = tf.where(tf.range(COUNT) < 50, problem.strong_convexity, 0.0)
    mixed = problem._replace(strong_convexity=modulus)
    bound = certificates.solution_error(mixed, value)
    np.testing.assert_array_equal(bound.certified, np.arange(COUNT) < 50)
    np.testing.assert_allclose(bound.value[50:], estimate.value[50:], rtol=1e-6)
    np.testing.assert_allclose(
        bound.value[:50], certificates.solution_error(problem, value).value[:50]
    )


def test_the_estimate_of_a_map_that_is_not_symmetric():
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(5, 5))
    matrix *= 0.7 / np.linalg.norm(matrix, 2)
    f = lambda z: tf.linalg.matvec(tf.constant(matrix), z) + 1.0  # noqa: E731
    exact = np.linalg.solve(np.eye(5) - matrix, np.ones(5))
    z = tf.constant(exact + rng.normal(size=(4, 5)))
    estimate = certificates.solution_error(f, z).value
    np.testing.assert_allclose(estimate, np.linalg.norm(z - exact, axis=1), rtol=0.2)


def test_the_bound_in_training_is_that_of_the_solution():
    problem, exact = _quadratics(1, DTYPE)
    solution = _compiled(solvers.Picard(), problem)(tf.zeros(exact.shape, DTYPE), 1e-3)
    bound = certificates.root_mean_square_bound(problem, solution)
    whole = certificates.solution_error(problem, solution.value).value
    np.testing.assert_allclose(bound * np.sqrt(exact.shape[1]), whole, rtol=1e-6)
    unknown = problem._replace(strong_convexity=None)
    assert certificates.root_mean_square_bound(unknown, solution) is None


# Hypergradients.


def _layer(kind, tolerance, adjoint_tolerance):
    """The tolerances are variables, so that what is traced once is run with all of them."""
    if kind.startswith("affine"):
        normalize = kind == "affine"
        prior = priors.AffineExperts(5, "tanh", sharpness=2.0, normalize=normalize, dtype=DTYPE)
    else:
        prior = priors.FieldsOfExperts(
            3,
            3,
            "smoothed_l1" if kind == "valid" else "tanh",
            sharpness=2.0,
            padding=kind,
            use_bias=True,
            dtype=DTYPE,
        )
    solver = solvers.Nesterov(max_steps=20000).within(tolerance)
    linear_solver = linear_solvers.ConjugateGradient().within(adjoint_tolerance)
    layer = layers.Variational(
        operators.Identity(dtype=DTYPE),
        prior,
        weight=0.3,
        solver=solver,
        adjoint=adjoints.Implicit(linear_solver),
        dtype=DTYPE,
    )
    layer.build((None, 5, 6, 1))
    return layer


def _draw_weights(layer, seed):
    rng = np.random.default_rng(seed)
    for weight in layer.trainable_weights:
        weight.assign(0.3 * rng.normal(size=weight.shape))
    layer.prior.log_sharpness.assign(
        np.log(rng.uniform(1.0, 3.0, size=layer.prior.log_sharpness.shape))
    )


def _gradient_function(layer):
    """Derivatives for one image by the measurement, log lambda, and the prior's weights."""
    weights = {"log_weight": layer.cell.log_weight, "analysis": layer.prior.analysis}
    weights["log_sharpness"] = layer.prior.log_sharpness
    if layer.prior.bias is not None:
        weights["bias"] = layer.prior.bias

    @tf.function(autograph=False)
    def of_one(y, x):
        with tf.GradientTape() as tape:
            tape.watch(y)
            loss = tf.reduce_sum((layer(y) - x) ** 2) / 2
        return tape.gradient(loss, {"measurement": y, **{k: w.value for k, w in weights.items()}})

    def of_each(y, x):
        rows = [of_one(y[i : i + 1], x[i : i + 1]) for i in range(len(y))]
        return {name: np.stack([np.ravel(row[name]) for row in rows]) for name in rows[0]}

    return of_each


EXACT, LOOSE, TIGHT = (1e-14, 1e-13), (1e-1, 1e-2), (1e-4, 1e-4)


@pytest.mark.parametrize(
    ("kind", "tolerances"),
    [
        pytest.param("reflect", [LOOSE], marks=pytest.mark.slow),
        ("circular", [TIGHT]),
        pytest.param("valid", [TIGHT], marks=pytest.mark.slow),
        pytest.param("affine", [LOOSE, TIGHT], marks=pytest.mark.slow),
        pytest.param("affine, free", [TIGHT], marks=pytest.mark.slow),
    ],
)
def test_the_bound_of_a_hypergradient_is_never_violated(kind, tolerances):
    """Solves that are as wrong as their tolerances allow, against one that is not."""
    limits = [tf.Variable(tolerance, dtype=DTYPE) for tolerance in EXACT]
    layer, ratios = _layer(kind, *limits), {}
    gradients = _gradient_function(layer)
    bound_function = tf.function(layer.hypergradient_bound, autograph=False)

    def assign(pair):
        for limit, tolerance in zip(limits, pair, strict=True):
            limit.assign(tolerance)

    for seed in range(8):
        rng = np.random.default_rng(seed)
        x, y = (tf.constant(rng.uniform(size=(10, 5, 6, 1))) for _ in range(2))
        _draw_weights(layer, seed)
        assign(EXACT)
        expected = gradients(y, x)
        for pair in tolerances:
            assign(pair)
            found, bounds = gradients(y, x), bound_function(y, x)
            assert bounds.keys() == found.keys()
            errors, values = {}, {}
            for name, bound in bounds.items():
                assert bound.certified.numpy().all()
                error = np.linalg.norm(found[name] - expected[name], axis=1)
                assert (error / bound.value < 1).numpy().all(), (name, np.max(error / bound.value))
                errors[name], values[name] = error, bound.value.numpy()
            for group in (["measurement"], [name for name in bounds if name != "measurement"]):
                total = [np.sqrt(sum(x[n] ** 2 for n in group)) for x in (values, errors)]
                ratios.setdefault(group[0], []).append(total[0] / total[1])
    # A bound on the derivative by all weights together, or by the measurement, is of use; how much
    # depends on the norm of the weights, where it is free.
    for name, found in ratios.items() if kind != "affine, free" else ():
        assert np.median(found) < 100, (name, np.median(found))


def test_a_bound_that_nothing_is_known_for_is_not_certified():
    y = tf.constant(np.random.default_rng(0).uniform(size=(2, 6, 7, 1)))
    mask = operators.Mask(operators.random_mask((6, 7), 0.5), dtype=DTYPE)
    quick = {"solver": solvers.Picard(tolerance=0.1), "dtype": DTYPE}
    options = {"sharpness": 2.0, "padding": "circular", "dtype": DTYPE}
    layer = layers.Variational(mask, priors.FieldsOfExperts(3, 3, **options), **quick)
    for bound in layer.hypergradient_bound(y, y).values():
        assert not bound.certified.numpy().any()
    corner = priors.FieldsOfExperts(3, 3, "soft_shrinkage", **options)
    layer = layers.Variational(operators.Identity(dtype=DTYPE), corner, **quick)
    assert not layer.hypergradient_bound(y, y)["analysis"].certified.numpy().any()
    assert layer.error_bound(y, layer.solve(y).value).certified.numpy().all()

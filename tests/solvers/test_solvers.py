"""Every solver on every problem, and the contract of the shared loop."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import solvers
from tests.solvers.problems import CONTRACTIONS, nonlinear, symmetric_linear

SOLVERS = {
    "picard": solvers.Picard(tolerance=1e-9),
    "picard_damped": solvers.Picard(damping=0.7, tolerance=1e-9),
    "anderson": solvers.Anderson(tolerance=1e-9),
    "anderson_long": solvers.Anderson(memory=12, damping=0.8, tolerance=1e-9),
    "anderson_two": solvers.Anderson(memory=2, tolerance=1e-9),
    "anderson_one": solvers.Anderson(memory=1, tolerance=1e-9),
    "nesterov": solvers.Nesterov(tolerance=1e-9),
    "nesterov_no_restart": solvers.Nesterov(restart=False, tolerance=1e-9),
}


@pytest.mark.parametrize("problem_name", CONTRACTIONS)
@pytest.mark.parametrize("solver_name", SOLVERS)
def test_solver_finds_the_known_solution(solver_name, problem_name):
    problem, solver = CONTRACTIONS[problem_name](), SOLVERS[solver_name]
    if isinstance(solver, solvers.Nesterov) and not problem.gradient:
        pytest.skip("Nesterov's method is for gradient steps")
    solution = solver.solve(problem.f, problem.z0, problem.reference, problem.modulus)
    assert solution.converged.numpy().all()
    assert (solution.residual.numpy() <= 1e-9).all()
    size = np.maximum(np.linalg.norm(problem.solution, axis=1), 1e-300)
    error = np.linalg.norm(solution.value - problem.solution, axis=1)
    if problem_name == "zero_right_side":
        assert error.max() < 1e-6
    else:
        # An error is at most the residual over 1 - (contraction factor) = 1 / 20.
        assert (error / size).max() < 1e-6


@pytest.mark.parametrize("solver_name", SOLVERS)
def test_graph_equals_eager(solver_name):
    problem, solver = nonlinear(), SOLVERS[solver_name]
    eager = solver.solve(problem.f, problem.z0, problem.reference, problem.modulus)
    graph = tf.function(
        lambda z: solver.solve(problem.f, z, problem.reference, problem.modulus), autograph=False
    )(problem.z0)
    assert graph.converged.numpy().all()
    np.testing.assert_allclose(eager.value, graph.value, rtol=1e-7, atol=1e-7)
    if solver_name != "anderson_long":  # a longer history than dimensions amplifies rounding
        np.testing.assert_array_equal(eager.steps, graph.steps)


def _row_problem(indices):
    """Rows of different difficulty: contraction factors 0.1, 0.9, 0.99."""
    factors = tf.gather(tf.constant([[0.1], [0.9], [0.99]], tf.float64), indices)
    target = tf.gather(tf.constant(np.random.default_rng(3).normal(size=(3, 7))), indices)
    spread = tf.constant(np.linspace(0.2, 1.0, 7))
    return lambda z: target + factors * spread * (z - target)


@pytest.mark.parametrize("solver_name", SOLVERS)
def test_an_image_does_not_depend_on_its_companions(solver_name):
    solver = SOLVERS[solver_name]
    together = solver.solve(_row_problem([0, 1, 2]), tf.zeros((3, 7), tf.float64))
    for i in range(3):
        alone = solver.solve(_row_problem([i]), tf.zeros((1, 7), tf.float64))
        np.testing.assert_allclose(alone.value[0], together.value[i], rtol=1e-12, atol=1e-12)
        assert alone.steps[0] == together.steps[i]
        np.testing.assert_allclose(alone.residual[0], together.residual[i], rtol=1e-6)
    steps = together.steps.numpy()
    assert steps[0] < steps[2], "a hard image must not be stopped with an easy one, nor the reverse"


@pytest.mark.parametrize("solver_name", ["picard", "anderson", "nesterov"])
def test_what_cannot_converge_says_so(solver_name):
    solver = type(SOLVERS[solver_name])(max_steps=50)
    far = tf.constant([[1.0], [1.0]], tf.float64)
    growth = tf.constant([[3.0], [0.0]], tf.float64)
    # The first row has no fixed point (a translation), the second is solved at once.
    solution = solver.solve(lambda z: z * (growth > 1)[:, 0:1].numpy() + growth, far)
    np.testing.assert_array_equal(solution.converged, [False, True])
    assert np.isfinite(solution.value.numpy()).all()
    assert solution.steps[0] == 50


@pytest.mark.parametrize("solver_name", ["picard", "nesterov"])
def test_divergence_to_infinity_keeps_the_other_images(solver_name):
    solver = type(SOLVERS[solver_name])(max_steps=2000)
    factor = tf.constant([[-50.0], [0.5]], tf.float64)
    solution = solver.solve(lambda z: factor * z + 1.0, tf.ones((2, 3), tf.float64))
    np.testing.assert_array_equal(solution.converged, [False, True])
    assert np.isfinite(solution.value.numpy()).all()
    assert solution.steps[0] < 2000, "an image that overflowed must stop"
    np.testing.assert_allclose(solution.value[1], 2.0, rtol=1e-4)


def test_anderson_solves_what_picard_cannot():
    # Eigenvalues of the map far outside of the unit disc, but none at 1.
    matrix = tf.constant(np.diag([-3.0, 0.5, -1.5, 2.0]))
    b = tf.ones((1, 4), tf.float64)
    f = lambda z: tf.linalg.matvec(matrix, z) + b  # noqa: E731
    solution = solvers.Anderson(memory=5, growth=1e6, tolerance=1e-10).solve(f, tf.zeros_like(b))
    assert solution.converged.numpy().all()
    np.testing.assert_allclose(solution.value[0], 1 / (1 - np.diag(matrix)), rtol=1e-8)
    assert not solvers.Picard(max_steps=100).solve(f, tf.zeros_like(b)).converged.numpy().any()


def test_nan_start_is_reported():
    start = tf.constant([[np.nan], [0.0]], tf.float64)
    solution = solvers.Picard().solve(lambda z: 0.5 * z + 1, start)
    np.testing.assert_array_equal(solution.converged, [False, True])


@pytest.mark.parametrize("solver_name", ["anderson", "nesterov"])
def test_acceleration_accelerates(solver_name):
    problem = symmetric_linear(high=0.999)
    plain = solvers.Picard(tolerance=1e-8, max_steps=20000).solve(problem.f, problem.z0)
    fast = SOLVERS[solver_name].solve(problem.f, problem.z0, modulus=problem.modulus)
    assert fast.steps.numpy().max() < plain.steps.numpy().max() / 5


@pytest.mark.parametrize("scale", [1.0, 1e-8, 1e8])
def test_anderson_steps_do_not_depend_on_scale(scale):
    # NUMERICS: a ridge in absolute units turns the acceleration off for small right-hand sides.
    problem = symmetric_linear(high=0.99)
    solver = solvers.Anderson(tolerance=1e-8)
    steps = solver.solve(lambda z: problem.f(z / scale) * scale, problem.z0).steps.numpy()
    expected = solver.solve(problem.f, problem.z0).steps.numpy()
    assert np.abs(steps - expected).max() <= 3


def test_float32_stops_above_its_noise():
    # A tolerance below rounding must not run to the maximum.
    solution = solvers.Picard(tolerance=1e-14).solve(
        lambda z: 0.5 * z + tf.constant([[0.1, 0.7]]), tf.zeros((1, 2))
    )
    assert solution.converged.numpy().all()
    assert solution.steps.numpy().max() < 50


def test_nested_states_are_solved_together():
    f = lambda z: {"a": 0.5 * z["b"] + 1.0, "b": [0.5 * z["a"][:, :2] - 1.0]}  # noqa: E731
    wrap = lambda z: f({"a": z["a"], "b": tf.pad(z["b"][0], [[0, 0], [0, 1]])})  # noqa: E731
    z0 = {"a": tf.zeros((2, 3), tf.float64), "b": [tf.zeros((2, 2), tf.float64)]}
    solution = solvers.Anderson(tolerance=1e-12).solve(wrap, z0)
    again = wrap(solution.value)
    np.testing.assert_allclose(again["a"], solution.value["a"], atol=1e-10)
    np.testing.assert_allclose(again["b"][0], solution.value["b"][0], atol=1e-10)
    assert solution.value["b"][0].shape == (2, 2)


def test_history_and_max_steps():
    problem = symmetric_linear()
    solver = solvers.Picard(tolerance=1e-9)
    solution, history = solver.solve(problem.f, problem.z0, return_history=True)
    assert history.shape == (solution.steps.numpy().max(), 3)
    np.testing.assert_allclose(history[-1], solution.residual)
    assert (np.diff(history.numpy(), axis=0) <= 0).all()
    short = solver.solve(problem.f, problem.z0, max_steps=5)
    np.testing.assert_array_equal(short.steps, [5, 5, 5])
    assert not short.converged.numpy().any()


def test_unroll_takes_the_same_steps():
    problem = nonlinear()
    for solver in SOLVERS.values():
        stopped = type(solver)(tolerance=1e-300, max_steps=12)
        unrolled = solver.unroll(problem.f, problem.z0, 12, problem.reference, problem.modulus)
        last = stopped.solve(problem.f, problem.z0, problem.reference, problem.modulus)
        if isinstance(solver, solvers.Picard) and solver.damping == 1.0:
            np.testing.assert_allclose(unrolled.value, last.value, rtol=1e-12)
        np.testing.assert_array_equal(unrolled.steps, last.steps)


@pytest.mark.parametrize("solver_name", SOLVERS)
def test_config_round_trip(solver_name):
    solver = SOLVERS[solver_name]
    again = type(solver).from_config(solver.get_config())
    assert again.get_config() == solver.get_config()
    assert repr(again) == repr(solver)


def test_get_names_near_matches():
    assert isinstance(solvers.get("anderson"), solvers.Anderson)
    with pytest.raises(ValueError, match="Did you mean 'nesterov'"):
        solvers.get("nestorov")
    with pytest.raises(TypeError, match="Expected a solver"):
        solvers.get(3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: solvers.Picard(damping=0.0), "damping"),
        (lambda: solvers.Picard(damping=1.5), "damping"),
        (lambda: solvers.Picard(tolerance=-1), "tolerance"),
        (lambda: solvers.Picard(tolerance=float("nan")), "tolerance"),
        (lambda: solvers.Picard(max_steps=0), "max_steps"),
        (lambda: solvers.Anderson(memory=0), "memory"),
        (lambda: solvers.Anderson(memory=21), "memory"),
        (lambda: solvers.Anderson(ridge=-1e-3), "ridge"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""One residual for the whole batch, as published codes have it."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import solvers
from tests.solvers.methods import CONVEX, DEFAULTS, ENERGY, SOLVERS, with_arguments
from tests.solvers.problems import nonlinear, nonsymmetric_linear, solve
from tests.variants import marked

# An easy contraction and a hard one, the solution of which is smaller.
RATES, RIGHT = np.array([[0.3], [0.9]]), np.array([[100.0], [1.0]])


def _contractions(z):
    return tf.constant(RATES, z.dtype) * z + tf.constant(RIGHT, z.dtype)


def _frobenius(z):
    fz = RATES * z + RIGHT
    return np.linalg.norm(fz - z) / np.linalg.norm(fz)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("graph", [False, True])
def test_images_stop_together(dtype, graph):
    def run(solver):
        call = tf.function(
            lambda z: solver.solve(_contractions, z),
            autograph=False,
            input_signature=[tf.TensorSpec([None, None], dtype)],
        )
        start = tf.zeros((2, 3), dtype)
        return call(start) if graph else call.python_function(start)

    each = run(solvers.Picard(tolerance=1e-4))
    assert each.steps[0] < each.steps[1]
    together = run(solvers.Picard(tolerance=1e-4, stopping="batch"))

    z, steps = np.zeros((2, 3)), 1
    while _frobenius(z) > 1e-4:
        z, steps = RATES * z + RIGHT, steps + 1
    np.testing.assert_array_equal(together.steps, [steps] * 2)
    np.testing.assert_array_equal(together.converged, [True] * 2)
    rtol = 1e-10 if dtype == "float64" else 1e-3
    np.testing.assert_allclose(together.residual, [_frobenius(z)] * 2, rtol=rtol)
    np.testing.assert_allclose(together.value, z, rtol=1e-5)
    # The hard image hides behind the easy one.
    assert together.steps[1] < each.steps[1]


@pytest.mark.parametrize("solver_name", marked(SOLVERS, DEFAULTS))
def test_every_solver_can_stop_so(solver_name):
    known = solver_name in (*CONVEX, *ENERGY)
    problem = nonlinear() if known else nonsymmetric_linear()
    solution = solve(with_arguments(solver_name, tolerance=1e-6, stopping="batch"), problem)
    assert solution.converged.numpy().all()
    fz = problem.f(solution.value).numpy()
    residual = np.linalg.norm(fz - solution.value) / np.linalg.norm(fz)
    np.testing.assert_allclose(solution.residual, residual, rtol=1e-6)
    assert len(set(solution.steps.numpy())) == 1


def test_the_scale_of_the_problem_is_ignored():
    start = tf.zeros((2, 3), tf.float64)
    problem = solvers.Problem(_contractions, start, scale=tf.constant([1e9, 1e9], tf.float64))
    assert solvers.Picard().solve(problem).steps.numpy().max() == 1
    solver = solvers.Picard(stopping="batch")
    expected = solver.solve(_contractions, start)
    np.testing.assert_array_equal(solver.solve(problem).steps, expected.steps)


def test_all_stop_when_the_residual_of_the_batch_is_not_finite():
    start = tf.zeros((2, 1), tf.float64)
    infinite = tf.constant([[0.5], [float("inf")]], tf.float64)
    for max_z in (-1.0, 1.9):  # at once, or after some steps
        solution = solvers.Picard(stopping="batch").solve(
            lambda z, m=max_z: 0.5 * z + 1 + tf.where((z > m) & (infinite > 1), infinite, 0.0),
            start,
        )
        assert not solution.converged.numpy().any()
        assert np.isfinite(solution.value.numpy()).all()
        assert solution.steps[0] == solution.steps[1] < 10


def test_the_strictest_limit_holds():
    start = tf.zeros((2, 3), tf.float64)
    solver = solvers.Picard(stopping="batch")

    def steps(**limits):
        return solver.within(**limits).solve(_contractions, start).steps.numpy().tolist()

    expected = steps(tolerance=1e-7)
    assert steps(tolerance=tf.constant([1e-2, 1e-7])) == expected
    assert expected[0] == expected[1] > steps(tolerance=1e-2)[0]
    assert steps(max_steps=tf.constant([9, 5])) == [5, 5]


def test_unrolled_and_with_history():
    start = tf.zeros((2, 3), tf.float64)
    solver = solvers.Picard(tolerance=1e-300, max_steps=6, stopping="batch")
    solution = solver.solve(_contractions, start, return_history=True)
    unrolled = solver.unroll(_contractions, 6, start)
    np.testing.assert_array_equal(solution.residual, unrolled.residual)
    np.testing.assert_array_equal(solution.history[:, 0], solution.history[:, 1])
    np.testing.assert_array_equal(unrolled.converged, [False, False])


def test_an_empty_batch():
    for solver in (solvers.Picard(stopping="batch"), solvers.PlainAnderson(stopping="batch")):
        solution = solver.solve(tf.cos, tf.zeros((0, 3)))
        assert solution.value.shape == (0, 3)
        assert solution.residual.shape == (0,)

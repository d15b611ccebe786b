"""Anderson acceleration: what is particular to it."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import solvers
from deq_keras.solvers.anderson import solve_positive_definite
from tests.solvers.problems import log_cosh, nonlinear, solve, symmetric_linear


def test_solves_what_picard_cannot():
    # Eigenvalues of the map far outside of the unit disc, but none at 1.
    matrix = tf.constant(np.diag([-3.0, 0.5, -1.5, 2.0]))
    b = tf.ones((1, 4), tf.float64)
    f = lambda z: tf.linalg.matvec(matrix, z) + b  # noqa: E731
    solver = solvers.Anderson(memory=5, growth=1e6, tolerance=1e-10)
    solution = solver.solve(f, tf.zeros_like(b))
    assert solution.converged.numpy().all()
    np.testing.assert_allclose(solution.value[0], 1 / (1 - np.diag(matrix)), rtol=1e-8)
    assert not solvers.Picard(max_steps=100).solve(f, tf.zeros_like(b)).converged.numpy().any()


@pytest.mark.parametrize("memory", [1, 2, 20])
def test_any_memory(memory):
    solution = solve(solvers.Anderson(memory=memory, tolerance=1e-9), symmetric_linear())
    assert solution.converged.numpy().all()
    np.testing.assert_allclose(solution.value, symmetric_linear().solution, atol=1e-5)


def test_is_gmres_on_linear_problems():
    """With all differences kept, residuals follow those of GMRES: the n-th is zero."""
    problem = symmetric_linear(size=6)
    solver = solvers.Anderson(memory=7, ridge=1e-14, period=1, growth=1e6, tolerance=1e-9)
    assert solve(solver, problem).steps.numpy().max() <= 6 + 2


def test_plain_steps_in_between_pay_on_ill_conditioned_energies():
    condition = 1e4
    rng = np.random.default_rng(0)
    curvature = tf.constant(np.geomspace(1 / condition, 1.0, 100))
    b = tf.constant(rng.normal(size=(2, 100)))

    def steps(solver):
        run = tf.function(
            lambda: solver.solve(
                solvers.Problem(lambda z: z - curvature * z + b, tf.norm(b, axis=1)), 0 * b
            ),
            autograph=False,
        )
        return run().steps.numpy().max()

    assert steps(solvers.Anderson(max_steps=2000)) < 0.5 * steps(
        solvers.Anderson(period=1, max_steps=2000)
    )


def test_exact_gradients_are_used_near_rounding():
    """`f(z) - z` is all rounding where the solution is large; the gradient is not."""
    y = nonlinear().data[0] * 1e-3
    data = tf.cast(y, tf.float32)
    shift = 30.0  # of the coordinates: the map has no other digits to offer than those of z

    def problem(exact):
        known = log_cosh(data)
        gradient = lambda z: known.step.gradient(z - shift)  # noqa: E731
        step = known.step._replace(gradient=gradient) if exact else None
        return solvers.Problem(lambda z: known.f(z - shift) + shift, scale=known.scale, step=step)

    state = solvers.Anderson(memory=2).init(problem(True), data + shift)
    exact = -np.array(log_cosh(data).step.gradient(data + shift - shift))
    exact *= log_cosh(data).step.length
    np.testing.assert_allclose(state.residual, exact, rtol=1e-6)
    rounded = solvers.Anderson(memory=2).init(problem(False), data + shift)
    error = np.linalg.norm(rounded.residual - exact) / np.linalg.norm(exact)
    assert error > 1e-4


def test_small_systems():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(4, 5, 5))
    matrix = a @ np.swapaxes(a, 1, 2) + 0.1 * np.eye(5)
    right = rng.normal(size=(4, 5))
    expected = np.linalg.solve(matrix, right[..., None])[..., 0]
    got = solve_positive_definite(tf.constant(matrix), tf.constant(right), 5)
    np.testing.assert_allclose(got, expected, rtol=1e-8)
    singular = np.zeros((1, 5, 5))
    singular[0, 0, 0] = 2.0
    got = solve_positive_definite(tf.constant(singular), tf.constant(right[:1]), 5)
    np.testing.assert_allclose(got[0], [right[0, 0] / 2, 0, 0, 0, 0])


def test_litert_can_take_it():
    """Elementary operations alone: no solver of linear systems, no diagonals of matrices."""
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(12, 12)))
    matrix = tf.constant(q @ np.diag(np.linspace(0, 0.95, 12)) @ q.T, tf.float32)
    solver = solvers.Anderson(tolerance=1e-6, max_steps=200)

    @tf.function(input_signature=[tf.TensorSpec((3, 12))], autograph=False)
    def solve(b):
        solution = solver.solve(lambda z: tf.linalg.matmul(z, matrix) + b, tf.zeros((3, 12)))
        return solution.value

    b = rng.normal(size=(3, 12)).astype("float32")
    converter = tf.lite.TFLiteConverter.from_concrete_functions([solve.get_concrete_function()])
    interpreter = tf.lite.Interpreter(model_content=converter.convert())
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], b)
    interpreter.invoke()
    value = interpreter.get_tensor(interpreter.get_output_details()[0]["index"])
    exact = np.linalg.solve(np.eye(12) - matrix.numpy().T, b.T).T
    # A relative residual of 1e-6 is an error of at most 20 times that; twice for the rounding.
    for found in (value, solve(b).numpy()):
        assert np.linalg.norm(found - exact) <= 4e-5 * np.linalg.norm(exact)

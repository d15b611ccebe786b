"""Anderson acceleration as it is published: the same iterates, and the same faults."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import solvers
from tests.solvers.problems import symmetric_linear

TINY = 1e-300  # a tolerance that is never reached


def _map(size=6):
    """A contraction that is not linear, for two images: in NumPy and in TensorFlow."""
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(size, size))
    matrix *= 0.9 / np.linalg.norm(matrix, 2)
    b = rng.normal(size=(2, size))
    return (
        lambda z: np.tanh(z @ matrix.T) + b,
        lambda z: tf.tanh(tf.linalg.matmul(z, matrix.T)) + b,
        rng.normal(size=(2, size)),
    )


def _reference(f, x0, count, memory, damping, ridge):
    """The iterates of one image, by the optimality system of the constrained problem."""
    xs, fs = [x0, f(x0)], [f(x0), f(f(x0))]
    x, fx = np.zeros((memory, len(x0))), np.zeros((memory, len(x0)))
    for k in range(2):
        x[k % memory], fx[k % memory] = xs[k], fs[k]
    for k in range(2, count):
        n = min(k, memory)
        g = fx[:n] - x[:n]
        system = np.zeros((n + 1, n + 1))
        system[0, 1:] = system[1:, 0] = 1.0
        system[1:, 1:] = g @ g.T + ridge * np.eye(n)
        alpha = np.linalg.solve(system, np.eye(n + 1)[0])[1:]
        new = damping * alpha @ fx[:n] + (1 - damping) * alpha @ x[:n]
        x[k % memory], fx[k % memory] = new, f(new)
        xs.append(new)
    return np.stack(xs)


@pytest.mark.parametrize("damping", [1.0, 0.6])
@pytest.mark.parametrize(("memory", "ridge"), [(3, 1e-4), (5, 1e-2), (2, 1e-8)])
def test_iterates_are_those_of_the_constrained_problem(memory, damping, ridge):
    in_numpy, f, x0 = _map()
    options = {"memory": memory, "damping": damping, "ridge": ridge, "tolerance": TINY}
    run = tf.function(
        lambda steps: solvers.PlainAnderson(**options).solve(f, tf.constant(x0), steps),
        autograph=False,
    )
    expected = []
    for row in range(2):

        def alone(z, row=row):
            return in_numpy(np.tile(z, (2, 1)))[row]

        expected.append(_reference(alone, x0[row], 13, memory, damping, ridge))
    expected = np.stack(expected, axis=1)
    for k in range(13):
        solution = run(tf.constant(k + 1))
        np.testing.assert_allclose(solution.value, expected[k], rtol=1e-10, atol=1e-10)
        np.testing.assert_array_equal(solution.steps, k + 1)


def test_one_pair_is_the_plain_iteration():
    in_numpy, f, x0 = _map()
    solution = solvers.PlainAnderson(memory=1, tolerance=TINY).solve(f, tf.constant(x0), 5)
    for _ in range(4):
        x0 = in_numpy(x0)
    np.testing.assert_allclose(solution.value, x0, rtol=1e-12)


def test_the_last_iterate_is_returned():
    # The residual falls towards z = 2 and explodes once |z| < 2.5 is left behind.
    def f(z):
        return tf.where(z < 2.5, z + 0.5, z + 40.0)

    start = tf.zeros((1, 1), tf.float64)
    last = solvers.PlainAnderson(memory=1, max_steps=8).solve(f, start)
    np.testing.assert_allclose(last.value, 82.5)
    np.testing.assert_allclose(last.residual, 40.0 / 122.5)
    assert not last.converged.numpy().any()
    best = solvers.Picard(max_steps=8).solve(f, start)
    assert best.residual.numpy() < last.residual.numpy()


def test_the_last_finite_iterate_is_returned():
    def f(z):
        return tf.where(z < 3.0, z + 1.0, float("nan"))

    start = tf.zeros((1, 1), tf.float64)
    solution = solvers.PlainAnderson(memory=1, tolerance=TINY).solve(f, start)
    np.testing.assert_array_equal(solution.value, 2.0)
    np.testing.assert_array_equal(solution.steps, 4)
    assert not solution.converged.numpy().any()


def test_an_absolute_ridge_depends_on_the_scale():
    """NUMERICS: it turns the acceleration off for small right-hand sides, and ours does not."""
    problem = symmetric_linear(high=0.95)
    one = problem.scaled(1 / np.linalg.norm(problem.data[1], axis=1, keepdims=True))
    small = one.scaled(2.0**-17)  # about 1e-5; a power of two changes no digit

    def steps(cls, problem):
        solution = cls(tolerance=1e-2, max_steps=1000).solve(problem.f, problem.z0)
        assert solution.converged.numpy().all()
        return solution.steps.numpy()

    assert (steps(solvers.PlainAnderson, one) <= steps(solvers.Anderson, one) + 3).all()
    assert (steps(solvers.PlainAnderson, small) >= 5 * steps(solvers.PlainAnderson, one)).all()
    assert (steps(solvers.PlainAnderson, small) > steps(solvers.Picard, small)).all()
    np.testing.assert_array_equal(steps(solvers.Anderson, small), steps(solvers.Anderson, one))

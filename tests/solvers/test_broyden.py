"""Broyden's estimate of the inverse."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import solvers

SIZE = 5


def _problem(scale=0.8, seed=0):
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(2, SIZE, SIZE))
    matrix *= scale / np.linalg.norm(matrix, 2, axis=(1, 2), keepdims=True)
    b = tf.constant(rng.normal(size=(2, SIZE)))
    return matrix, lambda z: tf.linalg.matvec(tf.constant(matrix), z) + b


def _dense(solver, state, transpose=False):
    """The estimate of each image as a matrix, from the columns of the identity."""
    columns = [
        solver.apply_inverse(state, tf.constant(np.tile(e, (2, 1))), transpose).numpy()
        for e in np.eye(SIZE)
    ]
    return np.stack(columns, axis=-1)


def _walk(solver, f, steps):
    """The states of a solve, in rows."""
    problem = solvers.Problem(f)
    states = [solver.init(problem, tf.zeros((2, SIZE), tf.float64))]
    for _ in range(steps):
        states.append(solver.step(problem, states[-1]))
    return states


@pytest.mark.parametrize("memory", [2, 3, 8])
def test_secant_equation_and_transpose(memory):
    """The last one holds whatever was dropped from the memory."""
    _, f = _problem()
    solver = solvers.Broyden(memory=memory, growth=1e6)
    states = _walk(solver, f, 6)
    for before, after in zip(states[:-1], states[1:], strict=True):
        s = (after.z - before.z).numpy()
        y = s - (after.fz - before.fz).numpy()
        np.testing.assert_allclose(solver.apply_inverse(after, tf.constant(y)), s, atol=1e-10)
        dense = _dense(solver, after)
        np.testing.assert_allclose(np.einsum("bij,bj->bi", dense, y), s, atol=1e-10)
        transposed = _dense(solver, after, transpose=True)
        np.testing.assert_allclose(transposed, np.swapaxes(dense, 1, 2), atol=1e-12)


def test_estimate_against_the_dense_update():
    """All terms together are the rank-one updates of a matrix, carried out densely."""
    _, f = _problem()
    solver = solvers.Broyden(memory=8, growth=1e6)
    states = _walk(solver, f, 6)
    dense = np.tile(np.eye(SIZE), (2, 1, 1))
    for before, after in zip(states[:-1], states[1:], strict=True):
        s = (after.z - before.z).numpy()
        y = s - (after.fz - before.fz).numpy()
        for i in range(2):
            h = dense[i]
            dense[i] = h + np.outer(s[i] - h @ y[i], s[i] @ h) / (s[i] @ h @ y[i])
        np.testing.assert_allclose(_dense(solver, after), dense, atol=1e-9)
        step = -np.einsum("bij,bj->bi", dense, (after.z - after.fz).numpy())
        following = solver.step(solvers.Problem(f), after)
        np.testing.assert_allclose(following.z - after.z, step, atol=1e-9)


def test_the_inverse_is_found_where_the_solve_went():
    """On a linear problem the updates can only bring the estimate nearer to the inverse."""
    matrix, f = _problem()
    solver = solvers.Broyden(memory=20, growth=1e6, tolerance=1e-10)
    states = _walk(solver, f, 9)
    inverse = np.linalg.inv(np.eye(SIZE) - matrix)
    # Of the inverse estimate B = H^{-1} the distance ||B - (I - M)||_F does not increase.
    distances = [
        np.linalg.norm(np.linalg.inv(_dense(solver, state)) - (np.eye(SIZE) - matrix), axis=(1, 2))
        for state in states
    ]
    assert (np.diff(distances, axis=0) <= 1e-7).all()
    last = states[-1]
    s = (last.z - states[-2].z).numpy()
    y = s - (last.fz - states[-2].fz).numpy()
    along = np.einsum("bij,bj->bi", inverse, y)
    np.testing.assert_allclose(solver.apply_inverse(last, tf.constant(y)), along, rtol=1e-6)
    error = np.linalg.norm(_dense(solver, last) - inverse, axis=(1, 2))
    start = np.linalg.norm(np.eye(SIZE) - inverse, axis=(1, 2))
    assert (error < 0.7 * start).all()


def test_state_of_a_solve():
    _, f = _problem()
    solver = solvers.Broyden(memory=10, tolerance=1e-12)
    z0 = tf.zeros((2, SIZE), tf.float64)
    solution = solver.solve(f, z0, return_state=True)
    state = solution.state
    assert solution.converged.numpy().all()
    np.testing.assert_array_equal(state.z, solution.value)
    # Adjoint and plain products agree: <x, H w> = <H^T x, w>.
    x, w = (tf.random.normal((2, SIZE), dtype=tf.float64) for _ in range(2))
    left = tf.reduce_sum(x * solver.apply_inverse(state, w), axis=1)
    right = tf.reduce_sum(solver.apply_inverse(state, x, transpose=True) * w, axis=1)
    np.testing.assert_allclose(left, right, rtol=1e-10)


def test_an_image_whose_residual_explodes_starts_again_from_its_best_point():
    # An expansion outside of |z| < 2, a contraction inside.
    f = lambda z: tf.where(tf.abs(z) < 2.0, -0.5 * z, 30.0 * z)  # noqa: E731
    solver = solvers.Broyden(memory=3, growth=2.0)
    start = solver.init(solvers.Problem(f), tf.constant([[1.0], [1.0]], tf.float64))
    # The second image has left the region after its start.
    far = start._replace(
        z=tf.constant([[1.0], [9.0]], tf.float64),
        fz=tf.constant([[-0.5], [270.0]], tf.float64),
        g=tf.constant([[1.5], [-261.0]], tf.float64),
    )
    after = solver.step(solvers.Problem(f), far)
    np.testing.assert_allclose(after.z, [[-0.5], [-0.5]])  # f of the best point
    solution = solver.solve(f, tf.constant([[1.9], [0.3]], tf.float64))
    assert solution.converged.numpy().all()


def test_a_difference_that_is_rounding_is_not_used():
    # A translation: y = 0 up to rounding, and its "inverse" would be huge.
    solver = solvers.Broyden(damping=0.7, tolerance=1e-9)
    solution = solver.solve(
        lambda z: z + 1.0, tf.zeros((1, 3), tf.float64), max_steps=40, return_state=True
    )
    assert not solution.converged.numpy().any()
    np.testing.assert_allclose(solution.state.z, 0.7 * 39, rtol=1e-6)

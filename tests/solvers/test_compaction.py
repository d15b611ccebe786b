"""Images that stop may leave the batch: the answers are the same, whoever the companions are."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import solvers
from deq_keras.numerics import Partial
from tests.solvers.methods import DEFAULTS, PROXIMAL, SOLVERS, with_arguments
from tests.solvers.problems import rows_of_different_difficulty, solve, sparse
from tests.variants import marked


@functools.cache
def _few_steps(name):
    """Of a solve outside of graphs without compaction: the problem, the limit, the solution."""
    problem = rows_of_different_difficulty().take([1, 2, 4])
    return problem, 20, _pair(name)[0].solve(problem.known(), problem.z0, max_steps=20)


@functools.cache
def _pair(name):
    """The solver without and with compaction, with a short memory: quicker to trace."""
    memory = {"memory": 3} if "memory" in SOLVERS[name].get_config() else {}
    return [with_arguments(name, compact=flag, tolerance=1e-7, **memory) for flag in (False, True)]


def _assert_same(one, other, rtol=1e-12):
    np.testing.assert_allclose(one.value, other.value, rtol=rtol, atol=rtol)
    np.testing.assert_array_equal(one.steps, other.steps)
    np.testing.assert_array_equal(one.converged, other.converged)
    if one.products is not None and other.products is not None:
        np.testing.assert_array_equal(one.products, other.products)
    np.testing.assert_allclose(one.residual, other.residual, rtol=1e-6, atol=1e-14)


@pytest.mark.parametrize("rows", [[0, 1, 2, 3, 4, 5], [3], [1], [1, 1]])
@pytest.mark.parametrize("solver_name", DEFAULTS)
def test_compaction_changes_nothing(solver_name, rows):
    problem = rows_of_different_difficulty().take(rows)
    plain, compact = (solve(solver, problem) for solver in _pair(solver_name))
    _assert_same(plain, compact)
    np.testing.assert_allclose(plain.history, compact.history, rtol=1e-9, atol=1e-14)
    if len(rows) > 2:
        steps = plain.steps.numpy()
        # Products with the Jacobian care less how hard a row is.
        factor = 2 if plain.products is None else 1.3
        assert steps.max() > factor * np.median(steps), "some rows should be much harder"
        assert steps[1] == 1


@pytest.mark.parametrize("solver_name", DEFAULTS)
def test_compaction_of_images_that_do_not_converge(solver_name):
    problem = rows_of_different_difficulty()
    plain, compact = (solve(solver, problem, max_steps=12) for solver in _pair(solver_name))
    assert not plain.converged.numpy().all()
    assert plain.steps.numpy().max() == 12
    _assert_same(plain, compact)
    np.testing.assert_allclose(plain.history, compact.history, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("solver_name", DEFAULTS)
def test_compaction_eager(solver_name):
    problem, limit, plain = _few_steps(solver_name)
    compact = _pair(solver_name)[1].solve(problem.known(), problem.z0, max_steps=limit)
    _assert_same(compact, plain)


@pytest.mark.parametrize("solver_name", marked(PROXIMAL, ["anderson", "nonmonotone_apg"]))
def test_compaction_with_a_proximal_map(solver_name):
    # Matrix products may be rounded in another way in a smaller batch.
    plain, compact = (solve(solver, sparse()) for solver in _pair(solver_name))
    np.testing.assert_allclose(plain.value, compact.value, rtol=1e-5, atol=1e-5)
    assert compact.converged.numpy().all()
    assert np.abs(plain.steps.numpy() - compact.steps.numpy()).max() <= 2


@pytest.mark.parametrize("compact", [False, True])
def test_the_state_of_an_image_is_that_of_its_last_step(compact):
    solver = solvers.Broyden(memory=3, tolerance=1e-4, compact=compact)
    problem = rows_of_different_difficulty().take([0, 1, 4])
    solution = solver.solve(problem.known(), problem.z0, return_state=True)
    np.testing.assert_array_equal(solution.value, solution.state.z)
    for i in range(3):
        alone = problem.take([i])
        expected = solver.solve(alone.known(), alone.z0, return_state=True).state
        pairs = zip(tf.nest.flatten(expected), tf.nest.flatten(solution.state), strict=True)
        for part, whole in pairs:
            np.testing.assert_allclose(part[0], whole[i], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("solver_name", DEFAULTS)
def test_an_image_does_not_depend_on_its_companions(solver_name):
    problem = rows_of_different_difficulty()
    solver = _pair(solver_name)[0]
    together = solve(solver, problem)._replace(history=None)
    for i in (0, 3):
        alone = solve(solver, problem.take([i]))
        _assert_same(alone, solvers.Solution(*(t[i : i + 1] for t in together[:4])))
    order = [5, 3, 0, 1, 4, 2]
    permuted = solve(solver, problem.take(order))
    _assert_same(permuted, solvers.Solution(*(tf.gather(t, order) for t in together[:4])))
    steps = together.steps.numpy()
    assert steps[2] < steps[3], "a hard image must not be stopped with an easy one, nor the reverse"


def test_compaction_evaluates_fewer_rows():
    problem, counts = rows_of_different_difficulty(), []

    def count(known):
        def f(z, inner):
            counts.append(int(z.shape[0]))
            return inner(z)

        return known._replace(f=Partial(f, (known.f,)))

    for compact in (False, True):
        counts.clear()
        solver = solvers.Anderson(memory=2, tolerance=1e-3, compact=compact)
        solution = solver.solve(count(problem.known()), problem.z0)
        assert len(counts) == solution.steps.numpy().max()
        if compact:
            assert counts[-1] < 6
            # A batch is at most twice what its unconverged images need, after the first round.
            assert sum(counts) <= 2 * solution.steps.numpy().sum()
        else:
            assert set(counts) == {6}


def test_compaction_of_nested_states():
    target = {"a": tf.random.normal((4, 3)), "b": [tf.random.normal((4, 2, 2))]}
    factor = tf.constant([0.1, 0.9, 0.5, 0.2])

    def build(factor, target):
        def f(z, factor, target):
            def towards(z, t):
                shape = [-1] + [1] * (t.shape.rank - 1)
                return t + tf.reshape(factor, shape) * (z - t)

            return tf.nest.map_structure(towards, z, target)

        return solvers.Problem(Partial(f, (), (factor, target)))

    zero = tf.nest.map_structure(tf.zeros_like, target)
    for name in ("picard", "anderson", "broyden"):
        solution = with_arguments(name, tolerance=1e-6, compact=True).solve(
            build(factor, target), zero
        )
        assert solution.converged.numpy().all()
        tf.nest.map_structure(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), solution.value, target
        )


@pytest.mark.parametrize("solver_name", DEFAULTS)
def test_graph_equals_eager(solver_name):
    problem, limit, eager = _few_steps(solver_name)
    _assert_same(eager, solve(_pair(solver_name)[0], problem, max_steps=limit), rtol=1e-7)

"""Linear systems by solvers of fixed points: the right answer, and the published iteration."""

import functools
from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import adjoints, solvers
from deq_keras import linear_solvers as ls
from tests.linear_solvers.systems import KINDS, SIZE
from tests.variants import covering

INNER = {
    "picard": solvers.Picard(tolerance=1e-11, max_steps=3000),
    "picard_batch": solvers.Picard(tolerance=1e-12, max_steps=3000, stopping="batch"),
    "anderson": solvers.Anderson(tolerance=1e-11),
    "broyden": solvers.Broyden(tolerance=1e-11),
    "plain_anderson": solvers.PlainAnderson(tolerance=1e-11, max_steps=3000),
    "plain_anderson_batch": solvers.PlainAnderson(
        tolerance=1e-12, max_steps=3000, stopping="batch"
    ),
}


@functools.cache
def _compiled(inner):
    """A solve, shared by all systems: tracing is what takes the time."""

    def solve(matrices, b, initial_value=None):
        product = functools.partial(tf.linalg.matvec, matrices)
        return ls.FixedPoint(inner).solve(product, b, initial_value=initial_value)

    return tf.function(solve, autograph=False)


def _solve(inner, system, *initial_value):
    matrices, b, _ = system
    return _compiled(inner)(*map(tf.constant, (matrices, b, *initial_value)))


def _true_residual(matrices, b, w):
    size = np.linalg.norm(b, axis=1)
    residual = np.linalg.norm(b - np.einsum("bij,bj->bi", matrices, w), axis=1)
    return residual / np.where(size > 0, size, 1.0)


@pytest.mark.parametrize(
    ("name", "kind"), covering(product(INNER, ["contraction", "definite", "zero_right"]))
)
def test_solves(name, kind):
    matrices, b, _ = KINDS[kind]
    solution = _solve(INNER[name], KINDS[kind])
    assert solution.converged.numpy().all()
    exact = np.linalg.solve(matrices, b[..., None])[..., 0]
    np.testing.assert_allclose(solution.value, exact, rtol=1e-7, atol=1e-8)
    true = _true_residual(matrices, b, solution.value)
    np.testing.assert_allclose(solution.residual, true, rtol=1e-3, atol=1e-14)


def test_is_the_published_iteration():
    """`w <- J^T w + b` from `b`, until `||f(W) - W|| <= tolerance ||f(W)||` over the batch."""
    matrices, b, _ = KINDS["contraction"]
    jacobians = np.eye(SIZE) - matrices
    inner = solvers.Picard(tolerance=1e-3, max_steps=1000, stopping="batch")
    solution = _solve(inner, KINDS["contraction"])
    w, steps = b, 1
    while True:
        fw = np.einsum("bij,bj->bi", jacobians, w) + b
        if np.linalg.norm(fw - w) <= 1e-3 * np.linalg.norm(fw):
            break
        w, steps = fw, steps + 1
    np.testing.assert_allclose(solution.value, w, rtol=1e-12, atol=1e-13)
    np.testing.assert_array_equal(solution.steps, steps + 1)  # one for the true residual
    # What it says of itself, and what is true, are two things.
    assert solution.converged.numpy().all()
    np.testing.assert_allclose(solution.residual, _true_residual(matrices, b, w), rtol=1e-9)
    assert solution.residual.numpy().max() > 1e-3


def test_published_backward_passes_lose_small_cotangents():
    """NUMERICS: of a right-hand side of norm 1e-5 the published solver leaves 10 % and more."""
    matrices, b, _ = KINDS["definite"]
    one = b / np.linalg.norm(b)

    def worst(inner, right):
        solution = _solve(inner, (matrices, right, matrices))
        return solution.residual.numpy().max(), solution.steps.numpy().max()

    plain = solvers.PlainAnderson(stopping="batch")
    ours = solvers.Anderson(tolerance=1e-3, max_steps=50)
    small = one * 2.0**-17
    assert worst(plain, small)[0] > 5 * worst(plain, one)[0]
    assert worst(ours, small) == worst(ours, one)
    assert worst(ours, small)[0] < 0.02


def test_an_initial_value():
    matrices, b, _ = KINDS["contraction"]
    exact = np.linalg.solve(matrices, b[..., None])[..., 0]
    done = _solve(INNER["anderson"], KINDS["contraction"], exact)
    np.testing.assert_array_equal(done.steps, 2)
    np.testing.assert_allclose(done.value, exact, rtol=1e-12)


def test_failure_is_a_value():
    matrices, b, _ = (part.copy() for part in KINDS["contraction"])
    reference = _solve(INNER["anderson"], KINDS["contraction"])
    b[1], matrices[2] = np.nan, np.nan
    solution = _solve(INNER["anderson"], (matrices, b, matrices))
    np.testing.assert_array_equal(solution.converged, [True, False, False, True])
    np.testing.assert_array_equal(solution.value[1:3], 0.0)
    np.testing.assert_allclose(solution.value[3], reference.value[3], rtol=1e-12)
    np.testing.assert_array_equal(solution.residual[2], 1.0)
    few = _solve(solvers.Picard(tolerance=1e-14, max_steps=5), KINDS["contraction"])
    np.testing.assert_array_equal(few.steps, 6)
    assert not few.converged.numpy().any()


def test_the_residual_of_small_numbers_is_the_true_one():
    # Squares of such numbers are zero in float32, so the solver believes that it is done.
    b = 2.0**-100 * tf.ones((2, 3))
    solution = ls.FixedPoint(solvers.Picard()).solve(lambda w: 0.5 * w, b)
    np.testing.assert_allclose(solution.residual, 0.5)


def test_nested_structures():
    scale = {"x": tf.constant([0.8, 1.2, 0.7], tf.float64), "y": tf.constant(0.9, tf.float64)}
    b = {"x": tf.ones((2, 3), tf.float64), "y": tf.ones((2, 2, 2), tf.float64)}
    solution = ls.FixedPoint(INNER["picard"]).solve(
        lambda w: tf.nest.map_structure(tf.multiply, w, scale), b
    )
    np.testing.assert_allclose(solution.value["x"], np.tile(1 / scale["x"], (2, 1)), rtol=1e-9)
    np.testing.assert_allclose(solution.value["y"], np.full((2, 2, 2), 1 / 0.9), rtol=1e-9)


def test_its_arguments_are_those_of_the_solver():
    plain = solvers.PlainAnderson(memory=3, tolerance=1e-2, max_steps=7, stopping="batch")
    solver = ls.FixedPoint(plain)
    assert (solver.tolerance, solver.max_steps) == (1e-2, 7)
    nested = ls.get(keras.saving.serialize_keras_object(solver))
    assert nested.solver.get_config() == plain.get_config()
    assert type(nested.solver) is solvers.PlainAnderson
    assert repr(nested) == repr(solver)
    assert ls.FixedPoint.from_config(solver.get_config()).get_config() == solver.get_config()
    tighter = solver.within(1e-4)
    assert (tighter.tolerance, solver.tolerance) == (1e-4, 1e-2)
    assert tighter.solver.memory == 3
    assert adjoints.SHINE(0.2, fallback=solver).fallback is solver


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ls.FixedPoint(solvers.LBFGS()), "needs nothing but a map"),
        (lambda: ls.FixedPoint(solvers.Picard(compact=True)), "compact=False"),
        (lambda: ls.FixedPoint("picard"), "a `deq_keras.solvers.Solver`, such as"),
        (
            lambda: ls.FixedPoint(solvers.Picard()).solve(
                lambda w: w, tf.ones((1, 2)), lambda w: w
            ),
            "expected `preconditioner=None`",
        ),
    ],
)
def test_errors(make, message):
    with pytest.raises(ValueError, match=message):
        make()

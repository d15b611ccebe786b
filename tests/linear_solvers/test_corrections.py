"""What each solver promises of one correction: when it stops, what it counts, how it fails."""

import functools
from itertools import product

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import linear_solvers as ls
from tests.linear_solvers.systems import KINDS
from tests.variants import covering

KRYLOV = {
    "conjugate_gradient": (ls.ConjugateGradient(), "definite"),
    "minres": (ls.MINRES(), "indefinite"),
    "gmres": (ls.GMRES(), "contraction"),
    "bicgstab": (ls.BiCGStab(), "contraction"),
    "anderson": (ls.AndersonLinear(), "contraction"),
    "neumann": (ls.Neumann(), "contraction"),
}


@functools.cache
def _compiled(name, preconditioned, dtype):
    """One correction, shared by all systems: tracing is what takes the time."""

    def correct(matrix, b, rough, size, limit):
        def precondition(w):
            return tf.linalg.matvec(rough, w) if preconditioned else w

        matvec = lambda w: tf.linalg.matvec(matrix, w)  # noqa: E731
        active = tf.constant([[True]])
        return KRYLOV[name][0].correct(matvec, b, size, active, limit, precondition)

    return tf.function(correct, autograph=False)


def _correct(name, target, preconditioned, budget=200, scale=1.0, dtype="float64", kind=None):
    """One correction of the first system of a kind: its true residual and its steps."""
    matrix, b, rough = (tf.constant(a[:1], dtype) for a in KINDS[kind or KRYLOV[name][1]])
    b = scale * b / tf.norm(b)
    size, limit = tf.constant([[target * scale]], dtype), tf.constant([[budget]])
    e, steps = _compiled(name, preconditioned, dtype)(matrix, b, rough, size, limit)
    residual = b - tf.linalg.matvec(matrix, e)
    return float(tf.norm(residual)) / scale, int(tf.squeeze(steps))


@pytest.mark.parametrize(("name", "preconditioned"), covering(product(KRYLOV, [True, False])))
def test_stops_at_the_first_step_below_the_target(name, preconditioned):
    """The residual that the recurrences follow is the Euclidean one, with preconditioners too."""
    target = 1e-4
    residual, steps = _correct(name, target, preconditioned)
    assert residual <= target * (1 + 1e-6)
    products = 2 if name == "bicgstab" else 1
    before, fewer = _correct(name, target, preconditioned, budget=steps - products)
    assert before > target
    assert fewer <= steps - products


@pytest.mark.parametrize(("name", "preconditioned"), covering(product(KRYLOV, [True, False])))
def test_steps_do_not_depend_on_the_scale(name, preconditioned):
    """Cotangents have norms like 1e-6: a ridge in absolute units would turn Anderson off."""
    reference = _correct(name, 1e-3, preconditioned, dtype="float32")
    tiny = _correct(name, 1e-3, preconditioned, scale=2.0**-20, dtype="float32")
    assert tiny[1] == reference[1]
    np.testing.assert_allclose(tiny[0], reference[0], rtol=1e-3)


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("name", KRYLOV)
def test_steps_count_the_products(name, preconditioned):
    solver, kind = KRYLOV[name]
    matrix, b, rough = (tf.constant(a[:1]) for a in KINDS[kind])
    calls = []

    def count(w):
        calls.append(1)
        return tf.linalg.matvec(matrix, w)

    preconditioner = (lambda w: tf.linalg.matvec(rough, w)) if preconditioned else None
    start = 0.9 * tf.linalg.solve(matrix, b[..., None])[..., 0]
    steps = solver.solve(count, b, preconditioner, start).steps
    # BiCGStab's last product is not spent if half a step was enough.
    unspent = len(calls) - int(steps[0])
    assert unspent in ((0, 1) if name == "bicgstab" else (0,))


@pytest.mark.parametrize("name", KRYLOV)
def test_a_preconditioner_saves_steps(name):
    plain = _correct(name, 1e-6, False, budget=1000, kind="definite")
    better = _correct(name, 1e-6, True, budget=1000, kind="definite")
    assert better[0] <= 1e-6 * (1 + 1e-6)
    assert better[1] <= 0.75 * plain[1]


@pytest.mark.parametrize("name", KRYLOV)
def test_the_inverse_is_the_best_preconditioner(name):
    solver, _ = KRYLOV[name]
    matrix, b, _ = map(tf.constant, KINDS["definite"])
    inverse = tf.linalg.inv(matrix)
    times = lambda w: tf.linalg.matvec(matrix, w)  # noqa: E731
    solution = solver.solve(times, b, lambda w: tf.linalg.matvec(inverse, w))
    # One product to solve, one to see that it is solved.
    np.testing.assert_array_equal(solution.steps, 2)
    assert solution.converged.numpy().all()


def test_cg_needs_no_more_steps_than_distinct_eigenvalues():
    matrix = tf.linalg.diag(tf.repeat(tf.constant([1.0, 2.0, 5.0], tf.float64), 10))[None]
    solver = ls.ConjugateGradient(tolerance=1e-12)
    solution = solver.solve(lambda w: tf.linalg.matvec(matrix, w), tf.ones((1, 30), tf.float64))
    assert solution.steps.numpy().max() <= 3 + 1


@pytest.mark.parametrize("name", ["gmres", "bicgstab"])
def test_a_rotation(name):
    """By 90 degrees: the first residual is orthogonal to its image. GMRES takes two steps."""
    matrix = tf.constant([[[0.0, 1.0], [-1.0, 0.0]]], tf.float64)
    b = tf.constant([[1.0, 0.0]], tf.float64)
    solution = KRYLOV[name][0].solve(lambda w: tf.linalg.matvec(matrix, w), b)
    if name == "gmres":
        assert solution.converged.numpy().all()
        np.testing.assert_allclose(solution.value, [[0.0, 1.0]], atol=1e-12)
    else:  # breaks down, and says so
        assert not solution.converged.numpy().any()
        np.testing.assert_array_equal(solution.value, 0.0)
        np.testing.assert_array_equal(solution.residual, 1.0)


def test_bicgstab_goes_on_after_a_breakdown():
    """After one step the residual is orthogonal to the first one; the next round has a new one."""
    matrix = tf.constant([[[2.0, 2.0, -1.0], [1.0, 2.0, 1.0], [2.0, 1.0, 1.0]]], tf.float64)
    b = tf.constant([[1.0, 0.0, 0.0]], tf.float64)
    matvec = lambda w: tf.linalg.matvec(matrix, w)  # noqa: E731
    solver = ls.BiCGStab(tolerance=1e-10)
    target, active = tf.constant([[1e-10]], tf.float64), tf.constant([[True]])
    e, steps = solver.correct(matvec, b, target, active, tf.constant([[100]]), lambda w: w)
    assert int(tf.squeeze(steps)) == 2
    np.testing.assert_allclose(tf.norm(b - matvec(e)), 0.5)
    solution = solver.solve(matvec, b)
    assert solution.converged.numpy().all()
    np.testing.assert_allclose(matvec(solution.value), b, atol=1e-10)


@pytest.mark.parametrize("name", KRYLOV)
def test_failure_is_reported(name):
    solver = type(KRYLOV[name][0])(max_steps=20)
    b = tf.constant(KINDS["definite"][1], tf.float64)
    # Nothing can be done about a zero matrix.
    solution = solver.solve(tf.zeros_like, b)
    assert not solution.converged.numpy().any()
    np.testing.assert_array_equal(solution.residual, 1.0)
    assert np.isfinite(solution.value.numpy()).all()
    # An infinite product leaves the answer finite.
    solution = solver.solve(lambda w: w * np.inf, b)
    assert not solution.converged.numpy().any()
    np.testing.assert_array_equal(solution.value, 0.0)


@pytest.mark.parametrize("name", ["conjugate_gradient", "minres", "gmres", "bicgstab"])
def test_what_did_not_help_is_not_tried_again(name):
    solver, _ = KRYLOV[name]
    solution = solver.solve(tf.zeros_like, tf.ones((1, 5)))
    assert int(solution.steps[0]) <= 3


def test_cg_and_neumann_say_that_a_system_is_not_theirs():
    matrices, b, _ = map(tf.constant, KINDS["indefinite"])
    for name in ("conjugate_gradient", "neumann"):
        solver = type(KRYLOV[name][0])(tolerance=1e-10, max_steps=100)
        solution = solver.solve(lambda w: tf.linalg.matvec(matrices, w), b)
        assert not solution.converged.numpy().all()
        assert np.isfinite(solution.value.numpy()).all()
        assert (solution.residual.numpy() <= 1).all()


def test_float32_reports_the_true_residual():
    """Condition number 1e5: recurrences in float32 claim more than is true."""
    rng = np.random.default_rng(0)
    bases = np.linalg.qr(rng.normal(size=(3, 20, 20)))[0]
    matrices = (bases * np.linspace(1e-5, 1, 20) @ bases.transpose(0, 2, 1)).astype("float32")
    b = rng.normal(size=(3, 20)).astype("float32")
    solver = ls.ConjugateGradient(tolerance=1e-6, max_steps=300)
    solution = solver.solve(lambda w: tf.linalg.matvec(tf.constant(matrices), w), tf.constant(b))
    w = solution.value.numpy().astype("float64")
    true = np.linalg.norm(b - np.einsum("bij,bj->bi", matrices.astype("float64"), w), axis=1)
    true /= np.linalg.norm(b.astype("float64"), axis=1)
    np.testing.assert_allclose(solution.residual, true, rtol=0.5, atol=2e-6)


@pytest.mark.parametrize("memory", [0, 21, 2.5])
def test_anderson_memory_is_checked(memory):
    with pytest.raises(ValueError, match="memory"):
        ls.AndersonLinear(memory=memory)


def test_anderson_with_long_memory_is_as_good_as_gmres():
    """In exact arithmetic `w_{k+1} = x_k + r(x_k)` with the iterates `x_k` of GMRES."""
    matrix, b, _ = (tf.constant(a[:1]) for a in KINDS["contraction"])
    times = lambda w: tf.linalg.matvec(matrix, w)  # noqa: E731
    steps = [
        int(solver.solve(times, b).steps[0])
        for solver in (ls.AndersonLinear(20, ridge=0.0, tolerance=1e-4), ls.GMRES(tolerance=1e-4))
    ]
    assert steps[0] <= steps[1] + 2

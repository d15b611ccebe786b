"""L-BFGS and the nonmonotone accelerated proximal gradient method: what is particular to them."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import solvers
from deq_keras.solvers.rounding import Rounding
from tests.solvers.methods import SOLVERS, with_arguments
from tests.solvers.problems import (
    double_wells,
    nonlinear,
    rows_of_different_difficulty,
    solve,
    sparse,
    symmetric_linear,
)


def _walk(solver, problem, steps):
    """The states of a solve, each a `step` in a graph, of an energy not known to be convex."""
    known = problem.known()._replace(strong_convexity=None)
    step = tf.function(lambda state: solver.step(known, state), autograph=False)
    states = [solver.init(known, problem.z0)]
    for _ in range(steps):
        states.append(step(states[-1]))
    return states


def test_lbfgs_never_accepts_a_higher_energy():
    for problem in (double_wells(), nonlinear()):
        states = _walk(solvers.LBFGS(memory=5), problem, 40)
        energies = np.array([state.energy for state in states])
        assert (np.diff(energies, axis=0) <= 1e-14).all()
        assert (np.diff(energies, axis=0) < 0).any(axis=0).all()
        expected = problem.known().step.energy(states[-1].z)
        np.testing.assert_allclose(states[-1].energy, expected)


@pytest.mark.parametrize("modulus", [0.5, 0.0])
def test_lbfgs_evaluates_no_energy_where_a_modulus_certifies_convexity(modulus):
    """As of a weakly convex prior, by its present weights: in a graph it is a tensor."""

    @tf.function(autograph=False)
    def solved(modulus):
        curvature = tf.constant([1.0, 10.0])
        step = solvers.Step(energy=lambda u: tf.fill(tf.shape(u)[:1], np.nan), length=0.05)
        problem = solvers.Problem(
            lambda u: u - 0.05 * curvature * (u - 3.0),
            tf.zeros((1, 2)),
            strong_convexity=modulus,
            step=step,
        )
        return solvers.LBFGS(max_steps=50).solve(problem)

    solution = solved(tf.constant(modulus))
    assert bool(solution.converged[0]) == (modulus > 0)
    if modulus > 0:
        np.testing.assert_allclose(solution.value, [[3.0, 3.0]], rtol=1e-3)


def test_lbfgs_certificate_of_an_image_is_its_own():
    """Of two images in a batch one is certified: its steps are those that it takes alone."""
    curvature = tf.constant([1.0, 10.0])
    step = solvers.Step(energy=lambda u: tf.fill(tf.shape(u)[:1], np.nan), length=0.05)

    def solved(moduli):
        start = tf.zeros((len(moduli), 2))
        f = lambda u: u - 0.05 * curvature * (u - 3.0)  # noqa: E731
        problem = solvers.Problem(f, start, strong_convexity=tf.constant(moduli), step=step)
        return solvers.LBFGS(max_steps=50).solve(problem)

    alone, both = solved([0.5]), solved([0.5, 0.0])
    assert both.converged.numpy().tolist() == [True, False]
    assert int(both.steps[0]) == int(alone.steps[0])
    np.testing.assert_array_equal(both.value[0], alone.value[0])


def test_lbfgs_is_exact_on_quadratics_in_its_memory():
    """With exact curvature it needs about as many steps as there are eigenvalues."""
    problem = symmetric_linear(size=6)
    solution = solve(solvers.LBFGS(memory=20, tolerance=1e-8), problem)
    assert solution.converged.numpy().all()
    assert solution.steps.numpy().max() <= 20


def test_lbfgs_first_trial_is_the_map():
    problem = nonlinear()
    first = _walk(solvers.LBFGS(), problem, 1)[1]
    np.testing.assert_allclose(first.z, problem.f(problem.z0), rtol=1e-12)


def test_lbfgs_secant_equation_and_symmetry():
    """The two loops are a symmetric positive definite matrix that maps the last y to s."""
    from deq_keras.solvers.lbfgs import _two_loops

    problem = nonlinear()
    state = _walk(solvers.LBFGS(memory=4), problem, 12)[-1]

    def apply(rows):
        return -_two_loops(rows, state.s, state.y, state.rho, state.scale).numpy()

    used = state.rho.numpy()[:, 0] > 0
    assert used.any()
    np.testing.assert_allclose(apply(state.y[0])[used], state.s[0].numpy()[used], rtol=1e-6)
    columns = [apply(tf.constant(np.tile(e, (3, 1)))) for e in np.eye(10)]
    dense = np.stack(columns, axis=-1)
    np.testing.assert_allclose(dense, np.swapaxes(dense, 1, 2), atol=1e-9 * np.abs(dense).max())
    assert np.linalg.eigvalsh(dense).min() > 0


@pytest.mark.parametrize("solver_name", ["lbfgs", "nonmonotone_apg"])
def test_a_step_of_the_map_that_is_too_long_is_shortened(solver_name):
    """The map diverges; the line search does not need it to converge."""
    problem = rows_of_different_difficulty()
    known = problem.known()
    long = 40.0
    f = lambda z: z + long * (known.f(z) - z)  # noqa: E731
    stiff = known._replace(f=f, step=known.step._replace(length=long))
    assert not solvers.Picard(max_steps=50).solve(stiff, problem.z0).converged.numpy().all()
    solver = with_arguments(solver_name, tolerance=1e-6)
    solution = tf.function(lambda z: solver.solve(stiff, z), autograph=False)(problem.z0)
    assert solution.converged.numpy().all()
    np.testing.assert_allclose(solution.value, problem.solution, atol=1e-4)


@pytest.mark.parametrize("solver_name", ["lbfgs", "nonmonotone_apg"])
@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_energies_that_are_all_rounding(solver_name, offset):
    """An offset of an energy takes its digits away; gradients keep theirs."""
    problem = nonlinear().cast(tf.float32)
    known = problem.known()
    value = known.step.energy
    shifted = known._replace(step=known.step._replace(energy=lambda z: value(z) + offset))
    solver = with_arguments(solver_name, tolerance=1e-5, max_steps=300)
    solution = tf.function(lambda z: solver.solve(shifted, z), autograph=False)(problem.z0)
    assert solution.converged.numpy().all()
    np.testing.assert_allclose(solution.value, nonlinear().solution, atol=1e-3)


def test_estimate_of_rounding():
    rounding = Rounding.start(tf.constant([2.0, 3.0], tf.float64), 16.0)
    eps = np.finfo(np.float64).eps
    np.testing.assert_allclose(rounding.level(), [32 * eps, 48 * eps])
    rounding = rounding.update(tf.constant([-5.0, 1.0], tf.float64), tf.constant([False, True]))
    np.testing.assert_allclose(rounding.level(), [80 * eps, 768 * eps])
    for _ in range(40):
        rounding = rounding.update(rounding.size, tf.constant([True, True]))
    np.testing.assert_allclose(rounding.level(), eps**0.5 * np.array([5.0, 3.0]))


@pytest.mark.parametrize("averaging", [0.0, 0.8])
@pytest.mark.parametrize("make", [double_wells, nonlinear, sparse])
def test_apg_decreases_its_average_of_energies(make, averaging):
    problem = make()
    states = _walk(solvers.NonmonotoneAPG(averaging=averaging), problem, 40)
    value = problem.known().step.energy
    energies = np.array([value(state.x) for state in states])
    average = np.array([state.average for state in states])
    assert (np.diff(average, axis=0) <= 1e-13).all()
    assert (energies <= average + 1e-13).all()
    assert (energies[-1] < energies[0]).all()
    if averaging == 0.0:
        np.testing.assert_allclose(average, energies, rtol=1e-12, atol=1e-14)
        assert (np.diff(energies, axis=0) <= 1e-13).all(), "monotone"


def test_apg_state_holds_the_map_at_its_point():
    """Residuals do not depend on the length of the line search."""
    for problem in (sparse(), nonlinear()):
        for state in _walk(SOLVERS["nonmonotone_apg"], problem, 12):
            np.testing.assert_allclose(state.fz, problem.f(state.z), rtol=1e-10, atol=1e-12)


def test_apg_uses_longer_steps_than_the_map():
    """Curvature where it is is far below its bound; Barzilai and Borwein's length sees that."""
    states = _walk(SOLVERS["nonmonotone_apg"], nonlinear(), 30)
    step = nonlinear().known().step.length
    lengths = np.array([state.length for state in states])
    assert (lengths.max(axis=0) > 2 * step).all()
    fast = solve(SOLVERS["nonmonotone_apg"], nonlinear()).steps.numpy()
    bounded = solve(with_arguments("nonmonotone_apg", max_length=1.0), nonlinear()).steps.numpy()
    assert (fast < bounded).all()

"""Every solver on every problem that it is for."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import solvers
from tests.solvers.methods import (
    DEFAULTS,
    ENERGY,
    MAP,
    PAIRS,
    PROBLEMS,
    PUBLISHED,
    SOLVERS,
)
from tests.solvers.problems import (
    _Q,
    Problem,
    double_wells,
    linear,
    nonlinear,
    quadratic,
    solve,
    symmetric_linear,
)
from tests.variants import marked


def _modulus(problem):
    modulus = problem.known().strong_convexity
    # Of the problems that do not say: they are contractions by 0.9.
    return np.array(0.1 if modulus is None else modulus)


def _sensitivity(problem, solution):
    """`||z - z*|| <= residual * sensitivity`, for each image: the reference over the modulus."""
    known = problem.known()
    reference = known.scale
    if reference is None:
        reference = np.linalg.norm(known.f(solution.value), axis=1)
    return np.array(reference) / _modulus(problem)


# The same methods with other options meet the energies that are not quadratic in `make test-slow`.
OFTEN = [(s, p) for s, p in PAIRS if s in DEFAULTS or p != "strongly_convex"]


@pytest.mark.parametrize(("solver_name", "problem_name"), marked(PAIRS, OFTEN))
def test_solver_finds_the_known_solution(solver_name, problem_name):
    problem = PROBLEMS[problem_name]()
    solution = solve(SOLVERS[solver_name], problem)
    assert solution.converged.numpy().all()
    assert (solution.residual.numpy() <= 1e-9).all()
    error = np.linalg.norm(solution.value - problem.solution, axis=1)
    size = np.linalg.norm(problem.solution, axis=1)
    assert (error <= 1.01e-9 * _sensitivity(problem, solution) + 1e-12 * size).all()
    if problem_name == "already_solved":
        assert solution.steps.numpy().max() <= 2


# Those of one energy share their graphs with `test_float32_stops_above_its_noise`.
OFTEN_IN_SINGLE_PRECISION = [
    *((name, "strongly_convex") for name in DEFAULTS),
    *(("picard", name) for name in PROBLEMS if ("picard", name) in PAIRS),
    ("anderson", "badly_scaled"),
    ("nonmonotone_apg", "lasso"),
]


@pytest.mark.parametrize(
    ("solver_name", "problem_name"),
    marked([pair for pair in PAIRS if pair[0] in DEFAULTS], OFTEN_IN_SINGLE_PRECISION),
)
def test_solver_finds_it_in_single_precision(solver_name, problem_name):
    problem = PROBLEMS[problem_name]().cast(tf.float32)
    solution = solve(SOLVERS[solver_name], problem, tolerance=1e-5)
    assert solution.converged.numpy().all()
    error = np.linalg.norm(solution.value - problem.solution, axis=1)
    # Beyond the tolerance there are a few roundings of the map, amplified by as much.
    size = np.linalg.norm(problem.solution, axis=1)
    rounding = 4 * np.finfo(np.float32).eps * size / _modulus(problem)
    assert (error <= 1.01e-5 * _sensitivity(problem, solution) + rounding).all()


@pytest.mark.parametrize(
    ("solver_name", "dtype"),
    marked(
        [
            *((name, tf.float64) for name in (*MAP, *ENERGY)),
            *((name, tf.float32) for name in DEFAULTS if name in {**MAP, **ENERGY}),
        ],
        [
            *((name, tf.float64) for name in DEFAULTS if name in {**MAP, **ENERGY}),
            ("anderson", tf.float32),
        ],
    ),
)
def test_energies_that_are_not_convex(solver_name, dtype):
    problem = double_wells().cast(dtype)
    v = problem.z0.numpy() @ _Q.T
    assert (3 * v**2 - 1).min() < 0, "the start should have directions of negative curvature"
    double = dtype == tf.float64
    solution = solve(SOLVERS[solver_name], problem, tolerance=1e-9 if double else 1e-5)
    assert solution.converged.numpy().all()
    v = solution.value.numpy() @ _Q.T
    # The step is 1/4, and the curvature at a critical point -1 or 2.
    assert np.abs(v - np.round(v)).max() < (1e-8 if double else 1e-4)
    assert np.abs(v).max() < 1.5
    if solver_name in ENERGY:
        energy = problem.known().step.energy
        assert (energy(solution.value).numpy() < energy(problem.z0).numpy()).all()
        # Descent leaves maxima and saddle points.
        np.testing.assert_allclose(np.abs(v), 1.0, atol=1e-3)


def _hopeless(build):
    """A translation, which has no fixed point; an expansion; and a contraction."""
    eye = np.eye(12)  # the size of other problems, whose graphs are used
    matrix = tf.constant(np.stack([eye, 3 * eye, 0.5 * eye]))
    return _of_kind(build, matrix, tf.zeros((3, 12), tf.float64))


def _of_kind(build, matrix, z0):
    data = (matrix, tf.ones_like(z0), tf.zeros_like(z0[:, 0]), tf.ones_like(z0[:, 0]))
    return Problem(build, data if build is quadratic else data[:2], z0, None)


@pytest.mark.parametrize("solver_name", marked(SOLVERS, DEFAULTS))
def test_what_cannot_converge_says_so(solver_name):
    problem = _hopeless(linear if solver_name in MAP else quadratic)
    solution = solve(SOLVERS[solver_name], problem, max_steps=60)
    converged = solution.converged.numpy()
    assert not converged[0]
    assert converged[2]
    np.testing.assert_allclose(solution.value[2], 2.0, rtol=1e-7)
    assert np.isfinite(solution.value.numpy()).all()
    if converged[1]:  # acceleration can find the fixed point of an expansion
        np.testing.assert_allclose(solution.value[1], -0.5, rtol=1e-7)
    else:
        assert solution.steps[0] == 60
        assert solution.residual.numpy()[1] > 1e-9
    if solver_name in ENERGY:
        assert not converged[1], "that energy is not bounded below"


@pytest.mark.parametrize("solver_name", [*MAP, "nesterov"])
def test_divergence_to_infinity_keeps_the_other_images(solver_name):
    # Eigenvalues far outside of the unit disc, and one inside for the second row.
    matrix = np.stack([np.diag([-50.0, 1.5, 40.0] * 4), 0.5 * np.eye(12)])
    build = linear if solver_name in MAP else quadratic
    problem = _of_kind(build, tf.constant(matrix), tf.ones((2, 12), tf.float64))
    solution = solve(SOLVERS[solver_name], problem, max_steps=400)
    assert solution.converged.numpy()[1]
    assert np.isfinite(solution.value.numpy()).all()
    np.testing.assert_allclose(solution.value[1], 2.0, rtol=1e-7)
    if solver_name in ("picard", "picard_damped", "nesterov"):
        assert not solution.converged.numpy()[0]
        assert solution.steps[0] < 400, "an image that overflowed must stop"


def test_picard_gives_up_what_diverges():
    # By the ratio of residuals: 3^k > 1e4 for k = 9 steps after the first.
    problem = _hopeless(linear)
    steps = solve(SOLVERS["picard"], problem).steps.numpy()
    assert steps[1] == 10
    patient = solve(solvers.Picard(tolerance=1e-9, divergence=1e8, max_steps=500), problem)
    assert patient.steps.numpy()[1] == 18
    assert patient.steps.numpy()[0] == 500, "a translation does not diverge by this measure"
    assert not patient.converged.numpy()[1]


@functools.cache
def _plain_steps():
    plain = solve(SOLVERS["picard"], symmetric_linear(high=0.995), 1e-8, max_steps=20000)
    return plain.steps.numpy().max()


@pytest.mark.parametrize("solver_name", ["anderson", "nesterov", "lbfgs", "nonmonotone_apg"])
def test_acceleration_accelerates(solver_name):
    fast = solve(SOLVERS[solver_name], symmetric_linear(high=0.995))
    assert fast.converged.numpy().all()
    assert fast.steps.numpy().max() < _plain_steps() / 5


@pytest.mark.parametrize("solver_name", ["broyden", "anderson", "lbfgs", "nonmonotone_apg"])
@pytest.mark.parametrize("scale", [2.0**-27, 2.0**27])
def test_steps_do_not_depend_on_scale(solver_name, scale):
    # NUMERICS: a ridge in absolute units turns the acceleration off for small right-hand sides.
    problem = symmetric_linear()
    steps = solve(SOLVERS[solver_name], problem.scaled(scale)).steps.numpy()
    expected = solve(SOLVERS[solver_name], problem).steps.numpy()
    np.testing.assert_array_equal(steps, expected)  # a power of two changes no digit


@pytest.mark.parametrize("solver_name", [name for name in DEFAULTS if name not in PUBLISHED])
def test_float32_stops_above_its_noise(solver_name):
    # A tolerance below rounding must not run to the maximum.
    solution = solve(SOLVERS[solver_name], nonlinear().cast(tf.float32), tolerance=1e-14)
    assert solution.converged.numpy().all()
    assert solution.steps.numpy().max() < 900
    np.testing.assert_allclose(solution.value, nonlinear().solution, atol=1e-4)


def test_what_a_solver_needs():
    f = lambda z: 0.5 * z  # noqa: E731
    z = tf.ones((2, 3))
    for name in ENERGY:
        with pytest.raises(ValueError, match="expected a problem with one"):
            SOLVERS[name].solve(f, z)
    composite = PROBLEMS["lasso"]()
    with pytest.raises(ValueError, match="LBFGS expected a smooth energy"):
        SOLVERS["lbfgs"].solve(composite.known(), composite.z0)
    known = composite.known()
    incomplete = known._replace(step=known.step._replace(gradient=None))
    with pytest.raises(ValueError, match="expected the `gradient`"):
        SOLVERS["nonmonotone_apg"].solve(incomplete, composite.z0)
    with pytest.raises(ValueError, match="rows it can take"):
        solvers.Picard(compact=True).solve(f, z)

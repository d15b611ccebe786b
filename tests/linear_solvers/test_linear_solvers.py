"""Every linear solver on every kind of system that it is for, checked against dense solves."""

import functools
from itertools import product

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import linear_solvers as ls
from tests.linear_solvers.systems import BATCH, KINDS, SIZE
from tests.variants import covering, marked

DEFINITE = ("definite", "badly_scaled", "zero_right", "singular")
INDEFINITE = ("indefinite", "singular_indefinite")
SOLVERS = {
    "conjugate_gradient": (ls.ConjugateGradient, {}, DEFINITE),
    "minres": (ls.MINRES, {}, DEFINITE + INDEFINITE),
    "gmres": (ls.GMRES, {}, tuple(KINDS)),
    "gmres_restarted": (ls.GMRES, {"restart": 6}, (*DEFINITE, "contraction")),
    "bicgstab": (ls.BiCGStab, {}, (*DEFINITE, "contraction")),
    "neumann": (ls.Neumann, {}, ("definite", "zero_right", "singular", "contraction")),
    "anderson": (ls.AndersonLinear, {"memory": 8}, (*DEFINITE, "contraction")),
}
TOLERANCES = {"float64": 1e-10, "float32": 1e-4}
CASES = [(name, kind) for name, (_, _, kinds) in SOLVERS.items() for kind in kinds]


def _solver(name, tolerance=1e-10, max_steps=1000):
    cls, options, _ = SOLVERS[name]
    return cls(**options, tolerance=tolerance, max_steps=max_steps)


def _product(matrices):
    return lambda w: tf.linalg.matvec(matrices, w)


# How a solver is traced: its precision, and whether it has a preconditioner; and the two ways
# of every day.
WAYS = list(product(TOLERANCES, [False, True]))
OFTEN = [("float64", False), ("float32", True)]


@functools.cache
def _solve(name, dtype, preconditioned, started=False):
    """A compiled solve, shared by all systems: tracing is what takes the time."""
    solver = _solver(name, TOLERANCES[dtype])

    def solve(matrices, b, rough, initial_value):
        preconditioner = _product(rough) if preconditioned else None
        return solver.solve(
            _product(matrices), b, preconditioner, initial_value if started else None
        )

    specs = [tf.TensorSpec((BATCH, SIZE, SIZE), dtype), tf.TensorSpec((BATCH, SIZE), dtype)]
    compiled = tf.function(solve, autograph=False, input_signature=2 * specs)

    def call(matrices, b, rough=None, initial_value=None):
        rough = np.zeros_like(matrices) if rough is None else rough
        initial_value = np.zeros_like(b) if initial_value is None else initial_value
        solution = compiled(*(tf.constant(a, dtype) for a in (matrices, b, rough, initial_value)))
        return type(solution)(*(part.numpy() for part in solution[:4]))

    return call


def _true_residual(matrices, b, w):
    size = np.linalg.norm(b, axis=1)
    residual = np.linalg.norm(b - np.einsum("bij,bj->bi", matrices, w), axis=1)
    return residual / np.where(size > 0, size, 1.0)


@pytest.mark.parametrize(("dtype", "preconditioned"), marked(WAYS, OFTEN))
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_solves(name, kind, dtype, preconditioned):
    # What is solved is the system in this precision; the checks are in float64.
    given = [a.astype(dtype) for a in KINDS[kind]]
    matrices, b, rough = (a.astype("float64") for a in given)
    solution = _solve(name, dtype, preconditioned)(*given)
    w = solution.value.astype("float64")
    assert solution.converged.all()
    assert solution.value.dtype == dtype

    true = _true_residual(matrices, b, w)
    norms = np.linalg.norm(matrices, 2, axis=(1, 2))
    size = np.where(b.any(axis=1), np.linalg.norm(b, axis=1), 1.0)
    rounding = SIZE * np.finfo(dtype).eps * (1 + norms * np.linalg.norm(w, axis=1) / size)
    assert (solution.residual <= TOLERANCES[dtype]).all()
    assert (np.abs(true - solution.residual) <= rounding).all()

    if "singular" in kind:
        if not preconditioned and name in ("conjugate_gradient", "minres"):
            shortest = np.einsum("bij,bj->bi", np.linalg.pinv(matrices, rcond=1e-6), b)
            error = np.linalg.norm(w - shortest, axis=1) / np.linalg.norm(shortest, axis=1)
            assert (error <= 100 * TOLERANCES[dtype]).all()
    else:
        exact = np.linalg.solve(matrices, b[..., None])[..., 0]
        allowed = np.linalg.norm(np.linalg.inv(matrices), 2, axis=(1, 2)) * size
        allowed *= TOLERANCES[dtype] + rounding
        assert (np.linalg.norm(w - exact, axis=1) <= allowed).all()
    if kind == "zero_right":
        np.testing.assert_array_equal(w[1], 0.0)
        assert solution.steps[1] == 0


# Starts are compared by code that all share; the two left out are the slowest to trace.
OFTEN_STARTED = [name for name in SOLVERS if name not in ("gmres_restarted", "anderson")]


@pytest.mark.parametrize("name", marked(SOLVERS, OFTEN_STARTED))
def test_an_initial_value(name):
    matrices, b, _ = KINDS[SOLVERS[name][2][0]]
    zero = _solve(name, "float64", False)(matrices, b)
    solve = _solve(name, "float64", False, started=True)
    exact = np.linalg.solve(matrices, b[..., None])[..., 0]

    done = solve(matrices, b, initial_value=exact)
    np.testing.assert_array_equal(done.steps, 1)
    np.testing.assert_allclose(done.value, exact, rtol=1e-13)
    assert done.converged.all()

    near = solve(matrices, b, initial_value=exact * (1 + 1e-7))
    assert near.converged.all()
    assert (near.steps < zero.steps).all()

    far = np.array([[1e3], [1e30], [np.nan], [np.inf]]) * np.ones_like(b)
    worse = solve(matrices, b, initial_value=far)
    np.testing.assert_array_equal(worse.steps, zero.steps + 1)
    np.testing.assert_allclose(worse.value, zero.value, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize(("name", "preconditioned"), covering(product(SOLVERS, [False, True])))
def test_companions_do_not_matter(name, preconditioned):
    solve = _solve(name, "float64", preconditioned)
    matrices, b, rough = (a.copy() for a in KINDS[SOLVERS[name][2][0]])
    reference = solve(matrices, b, rough)
    b[0] *= 1e20
    b[1] = np.nan
    matrices[2] = np.nan
    solution = solve(matrices, b, rough)
    assert solution.steps[3] == reference.steps[3]
    np.testing.assert_allclose(solution.value[3], reference.value[3], rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(solution.converged, [True, False, False, True])
    # Failure is a value, and not NaN in the answer.
    np.testing.assert_array_equal(solution.value[1:3], 0.0)


@pytest.mark.parametrize(("name", "preconditioned"), covering(product(SOLVERS, [True, False])))
@pytest.mark.parametrize("power", [-100, 60])
def test_scale_does_not_matter(name, preconditioned, power):
    # Squares of such numbers are zero or infinite in float32.
    solve = _solve(name, "float32", preconditioned)
    matrices, b, rough = (a.astype("float32") for a in KINDS[SOLVERS[name][2][0]])
    reference, scale = solve(matrices, b, rough), np.float32(2.0**power)
    solution = solve(matrices, scale * b, rough)
    assert solution.converged.all()
    np.testing.assert_array_equal(solution.steps, reference.steps)
    np.testing.assert_array_equal(solution.value / scale, reference.value)


@pytest.mark.parametrize(("name", "preconditioned"), covering(product(SOLVERS, [True, False])))
def test_graph_equals_eager(name, preconditioned):
    system = KINDS[SOLVERS[name][2][0]]
    graph = _solve(name, "float32", preconditioned)(*system)
    matrices, b, rough = (tf.constant(a, tf.float32) for a in system)
    preconditioner = _product(rough) if preconditioned else None
    eager = _solver(name, TOLERANCES["float32"]).solve(_product(matrices), b, preconditioner)
    np.testing.assert_allclose(eager.value, graph.value, rtol=1e-3, atol=1e-3)
    np.testing.assert_array_equal(eager.converged, graph.converged)
    assert np.abs(eager.steps.numpy() - graph.steps).max() <= 1


@pytest.mark.parametrize("name", SOLVERS)
def test_nested_structures(name):
    scale = {"x": tf.constant([0.8, 1.2, 0.7], tf.float64), "y": tf.constant(0.9, tf.float64)}
    b = {"x": tf.ones((2, 3), tf.float64), "y": tf.ones((2, 2, 2), tf.float64)}

    def times(w):
        return tf.nest.map_structure(tf.multiply, w, scale)

    def halved(w):
        return tf.nest.map_structure(lambda t: 0.5 * t, w)

    solution = _solver(name).solve(times, b, halved, b)
    np.testing.assert_allclose(
        solution.value["x"], np.tile(1 / scale["x"].numpy(), (2, 1)), rtol=1e-8
    )
    np.testing.assert_allclose(solution.value["y"], 1 / 0.9, rtol=1e-8)
    assert solution.value["y"].shape == (2, 2, 2)


@pytest.mark.parametrize("name", SOLVERS)
def test_max_steps_is_a_limit(name):
    matrices, b, rough = map(tf.constant, KINDS[SOLVERS[name][2][0]])
    for preconditioner in (None, _product(rough)):
        solver = _solver(name, 1e-14, max_steps=5)
        solution = solver.solve(_product(matrices), b, preconditioner)
        assert solution.steps.numpy().max() <= 5
        assert not solution.converged.numpy().any()
        assert (solution.residual.numpy() <= 1).all()


@pytest.mark.parametrize("name", SOLVERS)
def test_config_round_trip(name):
    solver = _solver(name, 1e-3, 77)
    again = type(solver).from_config(solver.get_config())
    assert again.get_config() == solver.get_config()
    assert repr(again) == repr(solver)
    assert (again.tolerance, again.max_steps) == (1e-3, 77)
    for option in SOLVERS[name][1]:
        assert getattr(again, option) == SOLVERS[name][1][option]


@pytest.mark.parametrize("name", [n for n in SOLVERS if n != "gmres_restarted"])
def test_get(name):
    assert type(ls.get(name)) is SOLVERS[name][0]


def test_get_an_unknown_name():
    with pytest.raises(ValueError, match="Did you mean 'conjugate_gradient'"):
        ls.get("conjugate_gradients")

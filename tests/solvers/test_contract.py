"""What all solvers share: the best iterate, history, nesting, configuration and names."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import solvers
from tests.solvers.methods import DEFAULTS, MAP, PUBLISHED, SOLVERS, with_arguments
from tests.solvers.problems import nonlinear, solve, symmetric_linear


def test_nan_start_is_reported():
    start = tf.constant([[np.nan], [0.0]], tf.float64)
    for name in ("picard", "anderson", "broyden"):
        solver = with_arguments(name, tolerance=1e-5)
        solution = solver.solve(lambda z: 0.5 * z + 1, start)
        np.testing.assert_array_equal(solution.converged, [False, True])
        np.testing.assert_allclose(solution.value[1], 2.0, rtol=1e-4)


def test_the_best_iterate_is_returned():
    # The residual falls towards z = 2 and explodes once |z| < 2.5 is left behind.
    def f(z):
        return tf.where(z < 2.5, z + 0.5, z + 40.0)

    solution = solvers.Picard(max_steps=8).solve(
        f, tf.zeros((1, 1), tf.float64), return_history=True
    )
    assert not solution.converged.numpy().any()
    np.testing.assert_allclose(solution.value, 2.0)  # relative to f(z): 0.5 / 2.5
    np.testing.assert_allclose(solution.residual, 0.2)
    assert solution.history.numpy()[-1, 0] > 0.2


@pytest.mark.parametrize("solver_name", DEFAULTS)
def test_the_residual_is_that_of_the_value(solver_name):
    problem = symmetric_linear()
    for max_steps in (1, 4, 9):
        solution = solve(SOLVERS[solver_name], problem, max_steps=max_steps)
        known = problem.known()
        residual = tf.norm(known.f(solution.value) - solution.value, axis=1) / known.scale
        np.testing.assert_allclose(solution.residual, residual, rtol=1e-9)
        np.testing.assert_array_equal(solution.steps, [max_steps] * 3)


@pytest.mark.parametrize("solver_name", DEFAULTS)
def test_history(solver_name):
    problem = symmetric_linear()
    solution = solve(SOLVERS[solver_name], problem)
    history = solution.history
    evaluations = solution.steps - (0 if solution.products is None else solution.products)
    assert history.shape == (evaluations.numpy().max(), 3)
    np.testing.assert_allclose(history[-1], solution.residual)
    np.testing.assert_allclose(history.numpy().min(axis=0), solution.residual)
    if solver_name == "picard":
        assert (np.diff(history.numpy(), axis=0) <= 0).all()


@pytest.mark.parametrize("solver_name", ["picard", "anderson", "broyden", "newton_krylov"])
def test_nested_states_are_solved_together(solver_name):
    f = lambda z: {"a": 0.5 * z["b"] + 1.0, "b": [0.5 * z["a"][:, :2] - 1.0]}  # noqa: E731
    wrap = lambda z: f({"a": z["a"], "b": tf.pad(z["b"][0], [[0, 0], [0, 1]])})  # noqa: E731
    z0 = {"a": tf.zeros((2, 3), tf.float64), "b": [tf.zeros((2, 2), tf.float64)]}
    solution = SOLVERS[solver_name].solve(wrap, z0)
    np.testing.assert_allclose(solution.value["a"], [[2 / 3, 2 / 3, 1.0]] * 2, atol=1e-8)
    np.testing.assert_allclose(solution.value["b"][0], [[-2 / 3, -2 / 3]] * 2, atol=1e-8)
    assert solution.value["b"][0].shape == (2, 2)


@pytest.mark.parametrize("solver_name", ["lbfgs", "newton_krylov", "nonmonotone_apg"])
def test_nested_energies(solver_name):
    target = {"a": tf.constant([[1.0, 2.0]], tf.float64), "b": tf.ones((1, 2, 2), tf.float64)}
    weight = {"a": 1.0, "b": 0.1}

    def energy(z):
        parts = {k: tf.reshape((z[k] - target[k]) ** 2, (1, -1)) for k in z}
        return sum(0.5 * weight[k] * tf.reduce_sum(parts[k], axis=1) for k in z)

    problem = solvers.Problem(
        lambda z: {k: z[k] - weight[k] * (z[k] - target[k]) for k in z},
        step=solvers.Step(energy, 1.0),
    )
    zero = tf.nest.map_structure(tf.zeros_like, target)
    solution = SOLVERS[solver_name].solve(problem, zero)
    for k in target:
        np.testing.assert_allclose(solution.value[k], target[k], atol=1e-7)


@pytest.mark.parametrize("solver_name", [name for name in DEFAULTS if name != "newton_krylov"])
def test_unroll_takes_the_same_steps_and_has_a_gradient(solver_name):
    problem = nonlinear()
    solver = with_arguments(solver_name, tolerance=1e-300, max_steps=7)
    with tf.GradientTape() as tape:
        tape.watch(problem.data[0])
        unrolled = solver.unroll(problem.known(), 7, problem.z0)
        loss = tf.reduce_sum(unrolled.value)
    last = solver.solve(problem.known(), problem.z0, return_history=True)
    np.testing.assert_allclose(unrolled.residual, last.history[-1], rtol=1e-6)
    np.testing.assert_array_equal(unrolled.steps, last.steps)
    gradient = tape.gradient(loss, problem.data[0]).numpy()
    assert np.isfinite(gradient).all()
    assert (np.abs(gradient).max(axis=1) > 1e-3).all()


@pytest.mark.parametrize("solver_name", SOLVERS)
def test_config_round_trip(solver_name):
    solver = with_arguments(solver_name, compact=True, max_steps=77)
    again = type(solver).from_config(solver.get_config())
    assert again.get_config() == solver.get_config()
    assert repr(again) == repr(solver)
    nested = solvers.get(keras.saving.serialize_keras_object(solver))
    assert type(nested) is type(solver)
    assert nested.get_config() == solver.get_config()
    names = set(type(solver).__init__.__code__.co_varnames[1:])
    assert set(solver.get_config()) <= names
    assert {"tolerance", "max_steps", "compact", "stopping"} <= set(solver.get_config())
    assert with_arguments(solver_name, stopping="batch").get_config()["stopping"] == "batch"
    with pytest.raises(ValueError, match="Expected `compact=False` with `stopping='batch'`"):
        with_arguments(solver_name, stopping="batch", compact=True)


@pytest.mark.parametrize("name", DEFAULTS)
def test_get_by_name(name):
    solver = solvers.get(name)
    assert type(solver) is type(SOLVERS[name])
    assert type(solver).__name__ in solvers.__all__
    with pytest.raises(TypeError, match="unexpected keyword"):
        type(solver)(tolerence=1e-3)


def test_get_names_near_matches():
    with pytest.raises(ValueError, match="Did you mean 'nesterov'"):
        solvers.get("nestorov")
    with pytest.raises(TypeError, match="Expected a solver"):
        solvers.get(3)
    with pytest.raises(TypeError, match="Expected a map"):
        solvers.Picard().solve(3, tf.zeros((1, 1)))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: solvers.Picard(damping=0.0), "damping"),
        (lambda: solvers.Picard(damping=1.5), "damping"),
        (lambda: solvers.Picard(divergence=1.0), "divergence"),
        (lambda: solvers.Picard(tolerance=-1), "tolerance"),
        (lambda: solvers.Picard(tolerance=float("nan")), "tolerance"),
        (lambda: solvers.Picard(max_steps=0), "max_steps"),
        (lambda: solvers.Anderson(memory=0), "memory"),
        (lambda: solvers.Anderson(memory=21), "memory"),
        (lambda: solvers.Anderson(ridge=-1e-3), "ridge"),
        (lambda: solvers.Anderson(period=0), "period"),
        (lambda: solvers.Broyden(memory=51), "memory"),
        (lambda: solvers.Broyden(growth=0.5), "growth"),
        (lambda: solvers.Broyden(guard=2.0), "guard"),
        (lambda: solvers.LBFGS(memory=21), "memory"),
        (lambda: solvers.LBFGS(caution=-1.0), "caution"),
        (lambda: solvers.LBFGS(noise=0.0), "noise"),
        (lambda: solvers.NewtonKrylov(forcing=0.99), "forcing"),
        (lambda: solvers.NewtonKrylov(shift=2.0), "shift"),
        (lambda: solvers.NewtonKrylov(inner_steps=0), "inner_steps"),
        (lambda: solvers.NewtonKrylov("gmress"), "Did you mean 'gmres'"),
        (lambda: solvers.NonmonotoneAPG(averaging=1.0), "averaging"),
        (lambda: solvers.NonmonotoneAPG(max_length=0.5), "max_length"),
        (lambda: solvers.PlainAnderson(memory=21), "memory"),
        (lambda: solvers.PlainAnderson(damping=0.0), "damping"),
        (lambda: solvers.PlainAnderson(ridge=0.0), "ridge"),
        (lambda: solvers.Picard(stopping="Batch"), "Did you mean 'batch'"),
    ],
)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("solver_name", [*MAP, *PUBLISHED])
def test_image_whose_iterate_maps_to_exactly_zero_goes_on(solver_name, dtype):
    # relu(y - 0.9 z) is a contraction; at the first start it is zero, and no residual is relative
    # to that. The second start is the image without this.
    y = tf.constant([[1.0, 0.5, 0.2]] * 2, dtype)
    start = tf.constant([[2.0, 2.0, 2.0], [0.5, 0.3, 0.1]], dtype)
    solver = with_arguments(solver_name, tolerance=1e-6)
    solution = solver.solve(lambda z: tf.nn.relu(y - 0.9 * z), start, return_history=True)
    assert solution.converged.numpy().all()
    np.testing.assert_allclose(solution.value, y / 1.9, rtol=1e-5)
    assert np.isfinite(solution.history[0].numpy()).all()

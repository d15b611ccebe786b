"""Inexact Newton-Krylov methods: what is particular to them."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import adjoints, layers, linear_solvers, operators, priors, solvers
from deq_keras.numerics import Partial
from deq_keras.problems import as_problem
from deq_keras.solvers import newton_control
from tests.solvers.methods import SOLVERS
from tests.solvers.problems import double_wells, nonlinear, solve


def _counted(matrix, b, counts):
    """`f(z) = M z + b` that counts its evaluations, and products with `M` and its transposed."""
    matrix, b = tf.constant(matrix), tf.constant(b)

    @tf.custom_gradient
    def transposed(w):
        counts["transposed"] += 1

        def grad(v):
            counts["product"] += 1
            return v @ tf.transpose(matrix)

        return w @ matrix, grad

    @tf.custom_gradient
    def f(z):
        counts["map"] += 1
        return z @ tf.transpose(matrix) + b, transposed

    return f


def _matrix(size=12, seed=1):
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    return 0.9 * matrix / np.linalg.norm(matrix, 2)


@pytest.mark.parametrize("max_steps", [1, 2, 3, 4, 7, 12, 1000])
@pytest.mark.parametrize("kind", ["general", "symmetric", "energy"])
def test_steps_are_what_was_executed(kind, max_steps):
    """Out of graphs, where Python can count; one image, so that none waits for another."""
    matrix = _matrix() if kind == "general" else 0.5 * (_matrix() + _matrix().T)
    counts = dict.fromkeys(("map", "product", "transposed"), 0)
    f = _counted(matrix, np.ones((1, 12)), counts)
    problem = solvers.Problem(f, tf.zeros((1, 12), tf.float64), symmetric=kind != "general")
    if kind == "energy":
        energy = lambda z: tf.reduce_sum(0.5 * z * (z - z @ matrix) - z, axis=1)  # noqa: E731
        problem = problem._replace(step=solvers.Step(energy, 1.0))
    solution = solvers.NewtonKrylov(tolerance=1e-8).solve(problem, max_steps=max_steps)
    steps, products = int(solution.steps[0]), int(solution.products[0])
    assert steps - products == counts["map"]
    if kind == "general":  # the first reverse pass is recorded once for a linearisation
        assert products == counts["product"]
        assert counts["transposed"] == counts["map"] - 1
    else:
        assert products == counts["transposed"]
        assert counts["product"] == 0
    assert steps <= max_steps
    assert bool(solution.converged[0]) == (max_steps == 1000)
    if max_steps < 1000:
        assert steps == max_steps


def test_a_linear_map_takes_one_direction():
    f = _counted(_matrix(), np.ones((1, 12)), dict.fromkeys(("map", "product", "transposed"), 0))
    solver = solvers.NewtonKrylov(forcing=1e-12, shift=0.0, tolerance=1e-9)
    solution = solver.solve(f, tf.zeros((1, 12), tf.float64))
    assert solution.converged.numpy().all()
    assert int(solution.steps[0] - solution.products[0]) == 3  # at z, for its derivatives, the end


def _stiff(b):
    """A map with `I - J` far from symmetric and of condition 1e6; its modes do not mix."""
    rng = np.random.default_rng(9)
    size = b.shape[1]
    modes = np.linalg.qr(rng.normal(size=(size, size)))[0] + 0.1 * rng.normal(size=(size, size))
    rates = tf.constant(np.repeat(np.logspace(-6, 0, 7), size // 7), b.dtype)
    forward, back = tf.constant(modes, b.dtype), tf.constant(np.linalg.inv(modes), b.dtype)

    def f(z, b):
        w = tf.linalg.matvec(back, z)
        return z - tf.linalg.matvec(forward, rates * (w + 0.3 * tf.sin(w))) + b

    return solvers.Problem(Partial(f, (), (b,)))


def test_a_stiff_map_that_others_do_not_solve():
    z = tf.constant(np.random.default_rng(3).normal(size=(4, 21)))
    b = z - _stiff(tf.zeros_like(z)).f(z)  # so that z is the solution
    problem, start = _stiff(b), tf.zeros_like(z)

    def solved(solver):
        run = tf.function(lambda: solver.within(1e-9, 300).solve(problem, start), autograph=False)
        return run()

    newton = solved(solvers.NewtonKrylov())
    assert newton.converged.numpy().all()
    error = np.linalg.norm(newton.value - z, axis=1) / np.linalg.norm(z, axis=1)
    assert error.max() < 1e-2, "the residual is 1e-9, the condition 1e6"
    for other in (solvers.Picard(), solvers.Anderson()):
        assert not solved(other).converged.numpy().any()


def _chain(scale):
    """Coupled double wells: `sum (u_i^2 - 1)^2 / 4 + sum (u_{i+1} - u_i)^2 / 10`."""

    def energy(u):
        wells = 0.25 * tf.reduce_sum((u**2 - 1.0) ** 2, axis=1)
        return wells + 0.1 * tf.reduce_sum((u[:, 1:] - u[:, :-1]) ** 2, axis=1)

    def gradient(u):
        jumps = tf.pad(0.2 * (u[:, 1:] - u[:, :-1]), [[0, 0], [1, 1]])
        return u**3 - u + jumps[:, :-1] - jumps[:, 1:]

    step = solvers.Step(energy, 0.1, gradient)
    return solvers.Problem(lambda u: u - 0.1 * gradient(u), scale=scale, step=step)


@pytest.mark.parametrize("solver", ["auto", "minres"])
@pytest.mark.parametrize("spread", [0.01, 1.0])
def test_energies_fall_where_curvature_is_negative(spread, solver):
    problem = _chain(tf.ones((3,), tf.float64))
    rows = tf.constant(spread * np.random.default_rng(2).normal(size=(3, 30)))
    newton = solvers.NewtonKrylov(solver, tolerance=1e-9)
    hessian = tf.linalg.diag(3 * rows**2 - 1)
    assert np.linalg.eigvalsh(hessian)[:, 0].max() < 0
    step = tf.function(lambda state: newton.step(problem, state), autograph=False)
    states = [newton.init(problem, rows)]
    for _ in range(60):
        states.append(step(states[-1]))
    energies = np.array([state.energy for state in states])
    assert (np.diff(energies, axis=0) <= 1e-13).all()
    np.testing.assert_allclose(energies[-1], problem.step.energy(states[-1].z))
    assert (energies[-1] < energies[0]).all()
    assert np.abs(problem.step.gradient(states[-1].z)).max() < 1e-8
    if solver == "auto":  # truncated at negative curvature, it leaves saddle points
        with tf.GradientTape() as tape:
            tape.watch(states[-1].z)
            gradient = problem.step.gradient(states[-1].z)
        curvature = tape.batch_jacobian(gradient, states[-1].z)
        assert np.linalg.eigvalsh(curvature).min() > -1e-8


def test_energy_of_double_wells_and_of_a_convex_function():
    """Fewer directions than digits: the convergence is faster than linear."""
    for problem in (double_wells(), nonlinear()):
        solution = solve(SOLVERS["newton_krylov"], problem, tolerance=1e-12)
        assert solution.converged.numpy().all()
        assert (solution.steps - solution.products).numpy().max() < 20
        assert solution.history.shape[0] == (solution.steps - solution.products).numpy().max()


def test_forcing_terms():
    ratio, last = tf.constant([0.9, 0.1, 0.1, 3.0]), tf.constant([0.9, 0.9, 0.1, 0.1])
    found = newton_control.forcing_term(ratio, last, 0.95).numpy()
    # Choice 2; no faster than its safeguard; where that is below a tenth, choice 2 again; the cap.
    np.testing.assert_allclose(found, [0.9 * 0.81, 0.9 * 0.81, 0.009, 0.95], rtol=1e-6)


def test_shifts():
    """After a full step that helped, one that did not, and one a tenth as long as its direction."""
    length, after = tf.constant([1.0, 1.0, 0.1]), tf.constant([0.5, 2.0, 0.9])
    found = newton_control.next_shift(0.1 * tf.ones(3), length, tf.ones(3), after, 10 * tf.ones(3))
    np.testing.assert_allclose(found, [0.025, 0.4, 0.9], rtol=1e-6)
    curvature = newton_control.next_curvature(tf.constant([0.1, 0.1, 0.5]), length)
    np.testing.assert_allclose(curvature, [0.025, 0.025, 1.0], rtol=1e-6)


@functools.cache
def _sharp(dtype="float32", size=32):
    """An untied map with sharp experts, and four measurements of an edge."""
    prior = priors.UntiedFieldsOfExperts(8, 3, sharpness=1000.0, dtype=dtype)
    cell = layers.GradientStep(operators.Mask(dtype=dtype), prior, weight=0.16, dtype=dtype)
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:size, :size] / size
    y = np.where(rows + 0.5 * columns > 0.7, 0.8, 0.2)[None, ..., None]
    y = tf.constant(y + 0.1 * rng.normal(size=(4, size, size, 1)), dtype)
    mask = tf.constant(rng.uniform(size=y.shape) < 0.8, y.dtype)
    cell.build(y.shape, [y.shape, y.shape])
    weights = prior.analysis.numpy()
    prior.synthesis.assign(weights + 0.3 * weights.std() * rng.normal(size=weights.shape))
    return cell, mask * y, mask


@pytest.mark.slow
def test_sharp_experts():
    cell, y, mask = _sharp()

    @functools.partial(tf.function, autograph=False)
    def run(solver, y, mask):
        return solver.within(1e-4, 300).solve(cell.bind((y, mask)))

    plain, compact = (run(solvers.NewtonKrylov(compact=c), y, mask) for c in (False, True))
    f, scale = cell.bind((y, mask)).f, cell.bind((y, mask)).scale
    for solution in (plain, compact):
        assert solution.converged.numpy().all()
        residual = tf.norm(tf.reshape(f(solution.value) - solution.value, (4, -1)), axis=1)
        assert (residual.numpy() <= 1.1e-4 * scale.numpy()).all()
    # Images of a batch, each with a mask of its own, also in the preconditioner.
    np.testing.assert_allclose(plain.value, compact.value, atol=1e-2)
    np.testing.assert_allclose(plain.steps, compact.steps, rtol=0.3)
    one = run(solvers.NewtonKrylov(), y[2:3], mask[2:3])
    np.testing.assert_allclose(one.value[0], plain.value[2], atol=1e-2)
    np.testing.assert_allclose(one.steps[0], plain.steps[2], rtol=0.3)
    assert not run(solvers.Picard(), y, mask).converged.numpy().any()


def test_gradients_of_an_equilibrium():
    prior = priors.UntiedFieldsOfExperts(3, 3, sharpness=4.0, dtype="float64")
    cell = layers.GradientStep(operators.Identity(dtype="float64"), prior, 0.04, dtype="float64")
    y = tf.constant(np.random.default_rng(0).uniform(size=(2, 8, 9, 1)))
    cell.build(y.shape)
    prior.synthesis.assign(tf.sin(40.0 * (prior.synthesis + 0.05)))
    exact = adjoints.Implicit(linear_solvers.GMRES(tolerance=1e-13))
    options = {
        "implicit": (solvers.NewtonKrylov(tolerance=1e-13), exact),
        "unrolled": (solvers.Picard(), adjoints.Unrolled(40)),
    }
    found = {}
    for name, (solver, adjoint) in options.items():
        layer = layers.Equilibrium(cell, solver, adjoint, dtype="float64")
        with tf.GradientTape() as tape:
            tape.watch(y)
            loss = tf.reduce_sum(layer(y, training=True) ** 3)
        found[name] = [loss, *tape.gradient(loss, [y, *layer.trainable_variables])]
    for one, other in zip(found["implicit"], found["unrolled"], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-10)


def test_shapes_that_are_not_known_and_an_empty_batch():
    solver = solvers.NewtonKrylov()
    call = tf.function(
        lambda z: solver.solve(lambda z: 3.0 * tf.cos(z) + z, z),
        autograph=False,
        input_signature=[tf.TensorSpec([None, None])],
    )
    np.testing.assert_allclose(call(tf.ones((2, 3))).value, np.pi / 2, rtol=1e-5)
    assert call(tf.ones((0, 3))).products.shape == (0,)
    assert solver.solve(tf.cos, tf.ones((0, 3))).value.shape == (0, 3)


def test_errors():
    with pytest.raises(ValueError, match="linear solver that defines `correct`"):
        solvers.NewtonKrylov(linear_solvers.FixedPoint(solvers.Picard()))
    with pytest.raises(ValueError, match="cannot be unrolled"):
        solvers.NewtonKrylov().unroll(tf.cos, 3, tf.zeros((1, 1)))
    cell = layers.GradientStep(operators.Identity(), priors.TotalVariation())
    with pytest.raises(ValueError, match="cannot be unrolled"):
        layers.Equilibrium(cell, "newton_krylov", adjoint="unrolled")(tf.ones((1, 4, 4, 1)))
    problem = solvers.Problem(Partial(tf.cos), preconditioner=lambda z: lambda w: w)
    with pytest.raises(ValueError, match="a preconditioner whose rows it can take"):
        solvers.NewtonKrylov(compact=True).solve(problem, tf.zeros((1, 1)))
    assert solvers.NewtonKrylov().solve(problem, tf.zeros((1, 1))).converged.numpy().all()
    hidden = solvers.NewtonKrylov(compact=True, precondition=False)
    assert hidden.solve(problem, tf.zeros((1, 1))).converged.numpy().all()


def test_others_take_no_products():
    assert solvers.Picard().solve(tf.cos, tf.zeros((1, 1))).products is None


def test_a_linear_solver_of_ones_own_is_kept():
    gmres = linear_solvers.GMRES(restart=7)
    solver = solvers.NewtonKrylov(gmres)
    again = solvers.NewtonKrylov.from_config(solver.get_config())
    assert again.get_config() == solver.get_config()
    assert again.choose(as_problem(tf.cos)).restart == 7

"""Energies with other fidelities and constraints: minimisers, gradients, defaults and files."""

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from deq_keras import (
    adjoints,
    constraints,
    fidelities,
    layers,
    linear_solvers,
    operators,
    priors,
    solvers,
    testing,
)

DTYPE = "float64"
SHAPE = (2, 8, 7, 1)
Y = tf.constant(np.random.default_rng(0).uniform(-0.2, 1.0, size=SHAPE))
FIDELITIES = {
    "least_squares": "least_squares",
    "weighted": fidelities.WeightedLeastSquares(
        np.random.default_rng(1).uniform(0.3, 2.0, size=SHAPE[1:])
    ),
    "huber": fidelities.Huber(0.2),
    "poisson": fidelities.Poisson(0.5),
}
CONSTRAINTS = {
    "none": None,
    "non_negative": "non_negative",
    "box": constraints.Box(0.1, 0.6),
    "l1": constraints.L1(0.15),
}
# Each fidelity and each constraint once; that of no constraint is quadratic.
PAIRS = [
    ("weighted", "none"),
    ("poisson", "non_negative"),
    ("least_squares", "box"),
    ("huber", "l1"),
]
register = keras.saving.register_keras_serializable(package="test_fidelities_and_constraints")


def _layer(fidelity="least_squares", constraint="none", prior=None, operator=None, **kwargs):
    prior = priors.TotalVariation(0.1, dtype=DTYPE) if prior is None else prior
    operator = operators.GaussianBlur(3, 0.5, dtype=DTYPE) if operator is None else operator
    return layers.Variational(
        operator,
        prior,
        weight=0.05,
        fidelity=FIDELITIES.get(fidelity, fidelity),
        constraint=CONSTRAINTS[constraint],
        dtype=DTYPE,
        **kwargs,
    )


def _solve(layer, y=Y):
    layer.build(y.shape)  # in a graph it would be traced twice
    return tf.function(layer.solve, autograph=False)(y)


def _optimality(layer, u, y=Y):
    """`u - prox(u - grad F(u))`, zero at the minimiser, relative to the gradient at zero."""
    gradient = layer.energy_gradient(u, y)
    moved = u - gradient
    if layer.cell.constraint is not None:
        moved = layer.cell.constraint.proximal(moved, tf.ones(len(u), u.dtype))
    return float(tf.norm(u - moved) / tf.norm(layer.energy_gradient(0 * u, y)))


@pytest.mark.parametrize(("fidelity", "constraint"), PAIRS)
def test_the_defaults_find_the_minimiser(fidelity, constraint):
    layer = _layer(fidelity, constraint)
    layer.build(SHAPE)
    chosen = layer.choose_solver(layer.cell.bind(Y))
    expected = solvers.LBFGS if constraint == "none" else solvers.NonmonotoneAPG
    assert type(chosen) is expected

    @tf.function(autograph=False)
    def solve(tolerance, max_steps):  # traced once for both
        return chosen.within(tolerance, max_steps).solve(layer.cell.bind(Y))

    solution = solve(tf.constant(chosen.tolerance, DTYPE), tf.constant(chosen.max_steps))
    assert solution.converged.numpy().all()
    assert _optimality(layer, solution.value) < 1e-3
    exact = solve(tf.constant(1e-11, DTYPE), tf.constant(20000))
    assert _optimality(layer, exact.value) < 1e-8


def test_the_minimiser_in_a_box_is_that_of_scipy():
    layer = _layer("huber", "box", solver=solvers.NonmonotoneAPG(tolerance=1e-11, max_steps=20000))
    found = _solve(layer).value.numpy()

    @tf.function(autograph=False)
    def derivatives(u):
        return layer.energy(u, Y[:1])[0], layer.energy_gradient(u, Y[:1])

    def at(x):
        value, gradient = derivatives(tf.reshape(x, (1, *SHAPE[1:])))
        return float(value), np.ravel(gradient)

    start = np.clip(np.ravel(Y[:1]), 0.1, 0.6)
    options = {"maxiter": 5000, "ftol": 1e-15, "gtol": 1e-10}
    bounds = [(0.1, 0.6)] * start.size
    best = scipy.optimize.minimize(
        at, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options
    )
    np.testing.assert_allclose(np.ravel(found[0]), best.x, atol=1e-5)
    assert ((found[0] == 0.1) | (found[0] == 0.6)).any(), "some bound must hold"


class Bowl(priors.Prior):
    """`s sum (u^2 / 2 + sqrt(1 + u^2))`, strongly convex."""

    is_convex = True

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), initializer=keras.initializers.Constant(40.0))
        self.built = True

    def energy(self, u):
        return self.scale * tf.reduce_sum(0.5 * u**2 + tf.sqrt(1.0 + u**2), axis=(1, 2, 3))

    def gradient_lipschitz(self, size=None):
        return 2.0 * tf.convert_to_tensor(self.scale)


@pytest.mark.parametrize(("fidelity", "constraint"), PAIRS)
def test_the_gradient_is_that_of_unrolled_steps(fidelity, constraint):
    """With a steep prior: few steps, which are quicker without a graph."""
    layer = _layer(fidelity, constraint, Bowl(dtype=DTYPE), solver=solvers.Picard(tolerance=1e-14))
    layer.build(SHAPE)
    weights, found = [w.value for w in layer.trainable_weights], []
    exact = adjoints.Implicit(linear_solvers.GMRES(tolerance=1e-13))
    for adjoint in (exact, adjoints.Unrolled(40)):
        layer.adjoint = adjoint
        with tf.GradientTape() as tape:
            tape.watch(Y)
            loss = tf.reduce_sum(tf.sin(3.0 * layer(Y)))
        found.append(tape.gradient(loss, [Y, *weights]))
    for implicit, unrolled in zip(*found, strict=True):
        assert np.linalg.norm(unrolled) > 1e-8
        assert np.linalg.norm(implicit - unrolled) <= 1e-7 * np.linalg.norm(unrolled)


@pytest.mark.parametrize(("fidelity", "constraint"), PAIRS)
def test_the_contract_of_the_cell(fidelity, constraint):
    cell = _layer(fidelity, constraint).cell
    testing.cell_test(cell, Y)
    assert cell.symmetric is (constraint == "none")
    assert cell.is_convex


def test_the_error_of_a_constrained_solution_is_certified():
    identity = operators.Identity(dtype=DTYPE)
    layer = _layer("weighted", "non_negative", operator=identity)
    exact = _layer("weighted", "non_negative", operator=identity,
                   solver=solvers.NonmonotoneAPG(tolerance=1e-12, max_steps=20000))  # fmt: skip
    truth, rough = _solve(exact).value, layer.solve(Y, max_steps=6).value
    bound = layer.error_bound(Y, rough)
    assert bound.certified.numpy().all()
    error = np.sqrt(((rough - truth).numpy() ** 2).sum((1, 2, 3)))
    assert (error <= bound.value.numpy()).all()
    assert (error > 1e-6).all()


class Unknown(priors.TotalVariation):
    """A prior of whose Hessian no Lipschitz constant is known."""

    hessian_variation = priors.Prior.hessian_variation


def test_hypergradients_are_bounded_or_refused_in_words():
    identity = operators.Identity(dtype=DTYPE)
    weighted = _layer("weighted", operator=identity).hypergradient_bound(Y, Y)
    assert weighted["log_weight"].certified.numpy().all()
    unknown = Unknown(0.1, dtype=DTYPE)
    weighted = _layer("weighted", prior=unknown, operator=identity).hypergradient_bound(Y, Y)
    assert not weighted["log_weight"].certified.numpy().any()
    with pytest.raises(ValueError, match="NonNegative.*no bound is known"):
        _layer(constraint="non_negative").hypergradient_bound(Y, Y)
    for adjoint in ("jacobian_free", "phantom", "unrolled", "truncated_neumann"):
        with pytest.raises(ValueError, match="expected adjoint='implicit'"):
            _layer(adjoint=adjoint).hypergradient_bound(Y, Y)


@pytest.mark.parametrize(("fidelity", "constraint"), PAIRS[1:])
def test_files_and_configuration(fidelity, constraint, tmp_path):
    layer = _layer(fidelity, constraint, solver=solvers.NonmonotoneAPG(max_steps=3))
    again = layers.Variational.from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    inputs = keras.Input((None, None, 1), dtype=DTYPE)
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(Y), model(Y))


# Parts of one's own, of which nothing is certified.


@register
class Smooth(priors.Prior):
    """An energy and no more: its gradient is differentiated, its step searched for."""

    is_convex = True

    def energy(self, u):
        difference = u[:, 1:] - u[:, :-1]
        return 100.0 * tf.reduce_sum(tf.sqrt(difference**2 + 1e-2), axis=(1, 2, 3))


@register
class Wells(priors.Prior):
    """Pixels near 0 or 1: not convex."""

    def energy(self, u):
        return 20.0 * tf.reduce_sum((u * (u - 1.0)) ** 2, axis=(1, 2, 3))


@register
class Cauchy(fidelities.Fidelity):
    """A value and no more; not convex."""

    def value(self, v, y):
        return 0.02 * tf.reduce_sum(tf.math.log1p((v - y) ** 2 / 0.04), axis=(1, 2, 3))


@pytest.mark.parametrize(
    ("part", "constraint"),
    [
        ("smooth", "none"),
        # Its search is that of the last, its linear solver depends on the constraint alone.
        pytest.param("smooth", "non_negative", marks=pytest.mark.slow),
        pytest.param("wells", "none", marks=pytest.mark.slow),
        pytest.param("wells", "non_negative", marks=pytest.mark.slow),
        pytest.param("cauchy", "none", marks=pytest.mark.slow),
        ("cauchy", "non_negative"),
    ],
)
def test_nothing_certified_is_no_error(part, constraint):
    """L-BFGS, or the nonmonotone proximal gradient method, search for the step."""
    prior = {"smooth": Smooth(dtype=DTYPE), "wells": Wells(dtype=DTYPE)}.get(part)
    fidelity = Cauchy() if part == "cauchy" else "least_squares"
    layer = _layer(fidelity, constraint, prior, operators.Identity(dtype=DTYPE))
    layer.build(SHAPE)
    assert not layer.cell.certified
    assert layer.cell.is_convex is (part == "smooth")
    testing.cell_test(layer.cell, Y)
    with tf.GradientTape() as tape:
        tape.watch(Y)
        output = layer(Y, training=True)
        loss = tf.reduce_sum(output**2)
    gradient = tape.gradient(loss, Y)
    assert np.isfinite(gradient).all()
    converged = [m.result() for m in layer.metrics if m.name.endswith("converged")]
    assert converged == [1.0, 1.0], "forward and backward"
    assert _optimality(layer, output) < 1e-2
    energy = layer.energy(output, Y).numpy()
    assert (energy < layer.energy(layer.cell.initial_value(Y), Y).numpy()).all()
    chosen = layer.adjoint.choose(layer.cell.bind(Y))
    if constraint == "none":
        names = {"smooth": linear_solvers.ConjugateGradient}
        assert type(chosen) is names.get(part, linear_solvers.MINRES)
    else:
        assert type(chosen) is linear_solvers.GMRES

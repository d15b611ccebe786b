"""The derivative of a fixed point: equal to back-propagation through a solve that has converged."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import adjoints, layers, linear_solvers, operators, priors, solvers, testing
from deq_keras.numerics import Partial

DTYPE = "float64"
BATCH, HEIGHT, WIDTH = 2, 6, 5
EXACT = {
    name: adjoints.Implicit(cls(tolerance=1e-13))
    for name, cls in {
        "conjugate_gradient": linear_solvers.ConjugateGradient,
        "gmres": linear_solvers.GMRES,
        "minres": linear_solvers.MINRES,
        "neumann": linear_solvers.Neumann,
    }.items()
}


def _uniform(seed, *shape):
    return tf.constant(np.random.default_rng(seed).uniform(size=shape))


IMAGES = _uniform(0, BATCH, HEIGHT, WIDTH, 1)
# Far from zero, like the spectrum of the blur below, so that few steps are converged.
MASKS = 0.8 + 0.2 * _uniform(1, BATCH, HEIGHT, WIDTH, 1)
CLOSED_OVER = 0.3 * _uniform(2, BATCH, HEIGHT, WIDTH, 1)
COTANGENT = tf.constant(np.random.default_rng(3).normal(size=IMAGES.shape))


class TanhCell(keras.layers.Layer):
    """A contraction that is no gradient step, and reads tensors it was not given."""

    def __init__(self, closed_over=None, variable=None):
        super().__init__(dtype=DTYPE)
        small = keras.initializers.RandomNormal(stddev=0.1, seed=1)
        options = {"padding": "same", "kernel_initializer": small, "dtype": DTYPE}
        self.inner = keras.layers.Conv2D(2, 3, activation="tanh", **options)
        self.outer = keras.layers.Conv2D(1, (2, 3), **options)
        self.closed_over = closed_over
        self.variable = variable

    def build(self, z_shape, y_shape=None):
        self.inner.build(z_shape)
        self.outer.build((*z_shape[:-1], 2))

    def call(self, z, y):
        result = y + self.outer(self.inner(z))
        if self.closed_over is not None:
            result += self.closed_over * tf.sin(z)
        if self.variable is not None:
            result += 0.2 * self.variable * tf.cos(z)
        return result


def _foe(cls=priors.FieldsOfExperts, **kwargs):
    options = {"sharpness": 2.0, "use_bias": True, "dtype": DTYPE}
    prior = cls(3, 3, **options, **kwargs)
    prior.build((None, None, None, 1))
    rng = np.random.default_rng(5)
    for weight in prior.trainable_weights:
        weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    return prior


def _blur():
    return operators.GaussianBlur(3, 0.35, trainable=True, dtype=DTYPE)


def _mask():
    return operators.Mask(MASKS[0].numpy(), trainable=True, dtype=DTYPE)


def _variational(operator, prior=None):
    prior = _foe() if prior is None else prior
    return lambda **kw: layers.Variational(operator(), prior, weight=0.3, dtype=DTYPE, **kw)


def _equilibrium(cell):
    return lambda **kw: layers.Equilibrium(cell(), dtype=DTYPE, **kw)


def _untied():
    prior = _foe(priors.UntiedFieldsOfExperts, padding="zero")
    return layers.GradientStep(_blur(), prior, weight=0.2, dtype=DTYPE)


def _identity():
    return operators.Identity(dtype=DTYPE)


def _data_mask():
    return operators.Mask(dtype=DTYPE)


# What to build, what to put in, and how many more tensors to differentiate by.
PROBLEMS = {
    "denoising": (_variational(_identity), IMAGES),
    "blur": (_variational(_blur, _foe(padding="zero")), IMAGES),
    "mask": (_variational(_mask, _foe(padding="circular")), IMAGES),
    "mask_as_data": (_variational(_data_mask, _foe(padding="zero")), (IMAGES, MASKS)),
    "untied": (_equilibrium(_untied), IMAGES),
    "cell": (_equilibrium(lambda: TanhCell(CLOSED_OVER)), IMAGES),
}
PROBLEMS["affine"] = (
    _variational(_identity, priors.AffineExperts(7, "soft_shrinkage", sharpness=2.0, dtype=DTYPE)),
    IMAGES,
)


PICARD = solvers.Picard(tolerance=1e-14)


def _solver(adjoint):
    """Plain iterations to go through, the default to go around."""
    if isinstance(adjoint, adjoints.Unrolled):
        return PICARD
    return solvers.Anderson(memory=2, tolerance=1e-14)


def _gradients(problem, adjoint, graph=True, **kwargs):
    """The layer, its output, and derivatives along COTANGENT by everything there is."""
    make, inputs = PROBLEMS[problem] if isinstance(problem, str) else problem
    keras.utils.set_random_seed(0)
    layer = make(**{"adjoint": adjoint, "solver": _solver(adjoint), **kwargs})
    layer.build(tf.nest.map_structure(lambda x: x.shape, inputs))
    weights = [w.value for w in layer.trainable_weights]

    def differentiate(inputs):
        with tf.GradientTape() as tape:
            tape.watch((inputs, CLOSED_OVER))
            output = layer(inputs)
            loss = tf.reduce_sum(COTANGENT * output)
        sources = [*tf.nest.flatten(inputs), *weights]
        if isinstance(getattr(layer.cell, "layer", None), TanhCell):
            sources.append(CLOSED_OVER)
        return output, tape.gradient(loss, sources)

    if graph:
        differentiate = tf.function(differentiate, autograph=False)
    output, gradients = differentiate(inputs)
    assert all(g is not None for g in gradients)
    return layer, output, gradients


def _assert_close(actual, expected, rtol):
    assert len(actual) == len(expected)
    for a, e in zip(actual, expected, strict=True):
        scale = float(tf.norm(e))
        assert scale > 1e-8, "nothing is tested by a derivative that vanishes"
        assert float(tf.norm(a - e)) <= rtol * scale


@functools.cache
def _jacobian_free(problem):
    return _gradients(problem, "jacobian_free", graph=False)


@pytest.fixture(scope="module")
def implicit():
    """The implicit gradients of each problem, made when first asked for."""
    cache = {}

    def of(problem, linear_solver="gmres"):
        key = problem, linear_solver
        if key not in cache:
            cache[key] = _gradients(problem, EXACT[linear_solver], graph=False)
        return cache[key]

    return of


@pytest.mark.parametrize(
    "problem",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name in ("mask_as_data", "blur") else [])
        for name in PROBLEMS
    ],
)
def test_implicit_equals_unrolled(problem, implicit):
    _, output, gradients = implicit(problem)
    _, unrolled_output, unrolled = _gradients(problem, adjoints.Unrolled(45), graph=False)
    np.testing.assert_allclose(output, unrolled_output, atol=1e-10)
    _assert_close(gradients, unrolled, 1e-8)


@pytest.mark.parametrize("problem", [pytest.param("untied", marks=pytest.mark.slow), "cell"])
def test_implicit_equals_finite_differences(problem):
    make, inputs = PROBLEMS[problem]
    layer = make(adjoint=EXACT["neumann"], solver=PICARD)  # the quickest to trace
    layer.build(tf.nest.map_structure(lambda x: x.shape, inputs))
    function = tf.function(lambda y: layer(y), autograph=False)
    variables = [w for w in layer.trainable_weights if w.shape.rank == 4]  # all filters
    testing.gradient_test(function, inputs, variables=variables, directions=1, rtol=1e-5)


def test_graph_equals_eager(implicit):
    """With data beside the measurement; for cells see test_structures.py."""
    _, output, gradients = implicit("mask_as_data")
    _, graph_output, graph = _gradients("mask_as_data", EXACT["neumann"], solver=PICARD)
    np.testing.assert_allclose(output, graph_output, atol=1e-13)
    _assert_close(graph, gradients, 1e-10)


@pytest.mark.parametrize("linear_solver", ["conjugate_gradient", "minres", "neumann"])
def test_the_linear_solver_does_not_matter_where_it_is_allowed(linear_solver, implicit):
    _assert_close(implicit("mask", linear_solver)[2], implicit("mask")[2], 1e-10)


@pytest.mark.parametrize("problem", ["denoising", "cell"])
def test_the_forward_solver_does_not_matter(problem, implicit):
    _, output, gradients = _gradients(problem, EXACT["neumann"], graph=False, solver=PICARD)
    np.testing.assert_allclose(output, implicit(problem)[1], atol=1e-11)
    _assert_close(gradients, implicit(problem)[2], 1e-9)


@pytest.mark.parametrize("problem", ["denoising", "untied"])
def test_the_defaults_are_as_accurate_as_their_tolerance(problem, implicit):
    _, _, gradients = _gradients(problem, "implicit", graph=False, solver="auto")
    _assert_close(gradients, implicit(problem)[2], 1e-3)


@pytest.mark.parametrize("problem", ["untied", "cell"])
def test_jacobian_free_is_one_call_at_the_solution(problem):
    layer, output, gradients = _jacobian_free(problem)
    z = layer.solve(IMAGES, initial_value=output).value
    with tf.GradientTape() as tape:
        tape.watch((IMAGES, CLOSED_OVER))
        once = layer.cell(z, IMAGES)
        loss = tf.reduce_sum(COTANGENT * once)
    sources = [IMAGES, *(w.value for w in layer.trainable_weights)]
    if problem == "cell":
        sources.append(CLOSED_OVER)
    np.testing.assert_allclose(output, once, atol=1e-12)
    _assert_close(gradients, tape.gradient(loss, sources), 1e-10)


def test_jacobian_free_is_not_the_gradient(implicit):
    gradient = _jacobian_free("untied")[2][0]
    exact = implicit("untied")[2][0]
    assert float(tf.norm(gradient - exact) / tf.norm(exact)) > 0.05


@pytest.mark.parametrize("problem", ["untied", "mask_as_data"])
def test_the_gradient_of_an_image_does_not_depend_on_its_companions(problem, implicit):
    _, inputs = PROBLEMS[problem]
    layer, _, together = implicit(problem)
    count = len(tf.nest.flatten(inputs))
    sums = [tf.zeros_like(g) for g in together[count:]]
    for i in range(BATCH):
        alone_inputs = tf.nest.map_structure(lambda t, i=i: t[i : i + 1], inputs)
        with tf.GradientTape() as tape:
            tape.watch(alone_inputs)
            loss = tf.reduce_sum(COTANGENT[i] * layer(alone_inputs)[0])
        sources = [*tf.nest.flatten(alone_inputs), *(w.value for w in layer.trainable_weights)]
        alone = tape.gradient(loss, sources)
        _assert_close(alone[:count], [g[i : i + 1] for g in together[:count]], 1e-9)
        sums = [s + g for s, g in zip(sums, alone[count:], strict=True)]
    _assert_close(sums, together[count:], 1e-9)


def test_an_untracked_variable_gets_its_gradient():
    variable = tf.Variable(0.5, dtype=tf.float64)  # of TensorFlow, hidden in a list
    cell = TanhCell()
    cell.variable = [variable]
    cell.call = lambda z, y: y + 0.3 * cell.variable[0] * tf.sin(z)
    layer = layers.Equilibrium(cell, solver=_solver(None), adjoint=EXACT["gmres"], dtype=DTYPE)

    def value():
        return tf.reduce_sum(COTANGENT * layer(IMAGES))

    layer.build(IMAGES.shape)
    with tf.GradientTape() as tape:
        loss = value()
    gradient = float(tape.gradient(loss, variable))
    difference = 0.0
    for sign in (1.0, -1.0):
        variable.assign(0.5 + sign * 1e-4)
        difference += sign * float(value()) / 2e-4
    assert gradient == pytest.approx(difference, rel=1e-7)


# Unrolled.


@pytest.mark.parametrize("solver", [solvers.Picard(), solvers.Anderson(memory=3)])
def test_unrolled_is_the_gradient_of_what_is_computed(solver):
    """Four steps are far from converged; their derivative is that of these four steps."""
    layer = _equilibrium(TanhCell)(adjoint=adjoints.Unrolled(4), solver=solver)
    layer.build(IMAGES.shape)
    variables = layer.trainable_weights[:2]
    testing.gradient_test(lambda y: layer(y), IMAGES, variables=variables, directions=1)


def test_unrolled_takes_its_steps_and_reports_them():
    cell = TanhCell()
    layer = layers.Equilibrium(cell, solver="picard", adjoint=adjoints.Unrolled(5), dtype=DTYPE)
    output = layer(IMAGES)
    z = tf.zeros_like(IMAGES)
    for _ in range(4):  # the fifth evaluation is for the residual that is reported
        z = cell(z, IMAGES)
    np.testing.assert_allclose(output, z, atol=1e-14)
    _, solution = layer.adjoint.solve(layer.cell.bind(IMAGES), layer.solver)
    assert not solution.converged.numpy().any()
    assert (solution.residual.numpy() > 1e-5).all()


# The pieces.


def test_a_cotangent_solves_the_adjoint_equation():
    rng = np.random.default_rng(8)
    matrix = rng.normal(size=(4, 4)) / 5
    b, d = tf.constant(rng.normal(size=(2, 4))), rng.normal(size=(2, 4))
    fixed_point = np.linalg.solve(np.eye(4) - matrix, b.numpy().T).T
    reports = []
    with tf.GradientTape() as tape:
        tape.watch(b)
        f = Partial(lambda z, b: tf.linalg.matvec(tf.constant(matrix), z) + b, (), (b,))
        problem = solvers.Problem(f, tf.constant(fixed_point))
        adjoint = adjoints.Implicit(linear_solvers.GMRES())
        output, _ = adjoint.solve(problem, solvers.Picard(), reports.append)
        loss = tf.reduce_sum(d * output)
    expected = np.linalg.solve((np.eye(4) - matrix).T, d.T).T
    np.testing.assert_allclose(output, fixed_point, atol=1e-12)
    np.testing.assert_allclose(tape.gradient(loss, b), expected, rtol=1e-4)
    assert len(reports) == 1
    assert reports[0].converged.numpy().all()


def test_a_loss_that_ignores_an_image_costs_it_no_steps():
    reports = []
    layer = _equilibrium(_untied)(adjoint="implicit")
    layer.build(IMAGES.shape)
    with tf.GradientTape() as tape:
        tape.watch(IMAGES)
        problem = layer.cell.bind(IMAGES)
        output, _ = layer.adjoint.solve(problem, layer.choose_solver(problem), reports.append)
        loss = tf.reduce_sum(output[1] ** 2)
    gradient = tape.gradient(loss, IMAGES)
    np.testing.assert_array_equal(gradient[0], 0)
    assert np.abs(gradient[1]).max() > 0
    steps = reports[0].steps.numpy()
    assert steps[0] == 0
    assert steps[1] > 0


def test_an_adjoint_equation_that_fails_says_so():
    """No gradient of a NaN, and no silence: a map with an eigenvalue of its Jacobian near one."""
    reports = []
    f = Partial(lambda z, y: 0.999999 * z + 1e-6 * y, (), (IMAGES,))
    problem = solvers.Problem(f, IMAGES)
    adjoint = adjoints.Implicit(linear_solvers.Neumann(max_steps=20))
    with tf.GradientTape() as tape:
        tape.watch(IMAGES)
        output, _ = adjoint.solve(problem, solvers.Picard(), reports.append)
        loss = tf.reduce_sum(output)
    assert np.isfinite(tape.gradient(loss, IMAGES)).all()
    assert not reports[0].converged.numpy().any()
    assert (reports[0].residual.numpy() > 0.9).all()


@pytest.mark.parametrize(("linear_solver", "expected"), [("neumann", 0), ("minres", 1)])
def test_a_preconditioner_is_for_those_that_cannot_diverge_with_it(linear_solver, expected):
    asked = []
    f = Partial(lambda z, y: 0.5 * z + 0.5 * y, (), (IMAGES,))

    def preconditioner(z):
        asked.append(z)
        return lambda w: 2.0 * w

    problem = solvers.Problem(f, IMAGES, preconditioner=preconditioner)
    with tf.GradientTape() as tape:
        tape.watch(IMAGES)
        output, _ = adjoints.Implicit(linear_solver).solve(problem, solvers.Picard())
        loss = tf.reduce_sum(output)
    np.testing.assert_allclose(tape.gradient(loss, IMAGES), tf.ones_like(IMAGES), rtol=1e-4)
    assert len(asked) == expected


def test_the_choice_of_a_linear_solver():
    problem = solvers.Problem(lambda z: z)
    automatic = adjoints.Implicit()
    assert isinstance(automatic.choose(problem), linear_solvers.GMRES)
    symmetric = problem._replace(symmetric=True)
    assert isinstance(automatic.choose(symmetric), linear_solvers.MINRES)
    convex = symmetric._replace(convex=True)
    assert isinstance(automatic.choose(convex), linear_solvers.ConjugateGradient)
    for unknown in (problem._replace(symmetric=None), problem._replace(convex=True)):
        assert isinstance(automatic.choose(unknown), linear_solvers.GMRES)
    mine = linear_solvers.Neumann(tolerance=1e-3)
    assert adjoints.Implicit(mine).choose(convex) is mine
    assert isinstance(adjoints.Implicit("neumann").choose(convex), linear_solvers.Neumann)


@pytest.mark.parametrize(
    "adjoint",
    [
        adjoints.Implicit(),
        adjoints.Implicit(linear_solvers.GMRES(restart=7, tolerance=1e-7)),
        adjoints.JacobianFree(),
        adjoints.Unrolled(7),
    ],
)
def test_config_round_trip(adjoint):
    again = adjoints.get(keras.saving.serialize_keras_object(adjoint))
    assert type(again) is type(adjoint)
    assert again.get_config() == adjoint.get_config()
    assert repr(again) == repr(adjoint)


def test_get():
    assert isinstance(adjoints.get("implicit"), adjoints.Implicit)
    assert isinstance(adjoints.get("jacobian_free"), adjoints.JacobianFree)
    assert adjoints.get("unrolled").steps == 20
    adjoint = adjoints.Implicit()
    assert adjoints.get(adjoint) is adjoint


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: adjoints.get("implict"), "Unknown adjoint: 'implict'. Did you mean 'implicit'"),
        (lambda: adjoints.Implicit("gmress"), "linear solver: 'gmress'. Did you mean 'gmres'"),
        (lambda: adjoints.Unrolled(1), "`steps` >= 2"),
        (lambda: adjoints.Unrolled(2.5), "`steps`.*integer"),
    ],
)
def test_wrong_arguments(make, match):
    with pytest.raises(ValueError, match=match):
        make()
    with pytest.raises(TypeError, match="Expected a"):
        adjoints.get(3)

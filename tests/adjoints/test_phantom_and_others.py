"""Adjoints that are approximations, against their definitions; and derivatives of derivatives."""

import functools
from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import adjoints, layers, linear_solvers, operators, priors, solvers, testing
from deq_keras.numerics import Partial
from tests.adjoints.cells import DTYPE, IMAGES, PICARD, Cell, OfDictionaries
from tests.variants import covering

GMRES = linear_solvers.GMRES(tolerance=1e-13)
ANDERSON = solvers.Anderson(memory=2, tolerance=1e-14)  # quick to trace
COTANGENT = tf.constant(np.random.default_rng(3).normal(size=IMAGES.shape))


def _gradients(output, tape, sources, cotangent=COTANGENT):
    return tape.gradient(output, sources, output_gradients=cotangent)


def _assert_close(actual, expected, rtol):
    for a, e in zip(actual, expected, strict=True):
        assert np.linalg.norm(e) > 1e-8, "nothing is tested by a derivative that vanishes"
        assert np.linalg.norm(a - e) <= rtol * np.linalg.norm(e)


def _differentiate(layer, initial_value=None):
    """Output and derivatives along COTANGENT by the measurement and the weights."""
    with tf.GradientTape() as tape:
        tape.watch(IMAGES)
        output = layer(IMAGES, initial_value=initial_value)
    return output, _gradients(output, tape, [IMAGES, *(w.value for w in layer.trainable_weights)])


@functools.cache
def _cell():
    """That of all layers here: what is found out when it is built, is found out once."""
    return layers.LayerCell(Cell(), symmetric=False, couples_batch=False, dtype=DTYPE)


def _layer(adjoint, solver=PICARD):
    layer = layers.Equilibrium(_cell(), solver, adjoint, dtype=DTYPE)
    layer.build(IMAGES.shape)
    return layer


@functools.cache
def _fixed_point():
    return _layer("jacobian_free").solve(IMAGES).value


@functools.cache
def _exact():
    """Output and implicit derivatives, as of `_differentiate`."""
    return _differentiate(_layer(adjoints.Implicit(GMRES)))


# Phantom gradients.


@pytest.mark.parametrize(("steps", "damping"), [(1, 0.5), (3, 0.7), (5, 1.0)])
def test_phantom_is_some_damped_steps_from_the_solution(steps, damping):
    layer = _layer(adjoints.Phantom(steps, damping))
    output, gradients = _differentiate(layer)
    z = _fixed_point()
    with tf.GradientTape() as tape:
        tape.watch(IMAGES)
        for _ in range(steps):
            z = (1 - damping) * z + damping * layer.cell(z, IMAGES)
    sources = [IMAGES, *(w.value for w in layer.trainable_weights)]
    np.testing.assert_allclose(output, z, atol=1e-13)
    _assert_close(gradients, _gradients(z, tape, sources), 1e-11)


def test_one_whole_step_is_jacobian_free():
    output, gradients = _differentiate(_layer(adjoints.Phantom(1, 1.0)), _fixed_point())
    other, expected = _differentiate(_layer("jacobian_free"), _fixed_point())
    np.testing.assert_allclose(output, other, atol=1e-14)
    _assert_close(gradients, expected, 1e-13)


def test_many_phantom_steps_are_implicit():
    errors = []
    _, exact = _exact()
    for steps in (2, 6, 25):
        _, gradients = _differentiate(_layer(adjoints.Phantom(steps, 1.0)), _fixed_point())
        errors.append(np.linalg.norm(gradients[0] - exact[0]) / np.linalg.norm(exact[0]))
    assert errors[0] > 3 * errors[1]
    assert errors[2] < 1e-10


# The first terms of Neumann's series, and SHINE, on linear problems that are solved densely.


def _linear(seed=0, size=6, factor=0.5):
    """`z = M z + b` with `||M|| = factor`: the matrix, `b`, a cotangent and the problem."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(size, size))
    matrix *= factor / np.linalg.norm(matrix, 2)
    b, d = tf.Variable(rng.normal(size=(3, size))), rng.normal(size=(3, size))

    def problem():
        f = Partial(lambda z, b: tf.linalg.matvec(tf.constant(matrix), z) + b, (), (b.value(),))
        return solvers.Problem(f, tf.zeros_like(b))

    return matrix, b, d, problem


def _pulled_back(adjoint, solver, b, d, problem, reports=None):
    with tf.GradientTape() as tape:
        report = None if reports is None else reports.append
        output, _ = adjoint.solve(problem(), solver, report)
    return tape.gradient(output, b, output_gradients=tf.constant(d)).numpy()


@pytest.mark.parametrize("steps", [1, 3, 8])
def test_truncated_neumann_is_a_partial_sum(steps):
    matrix, b, d, problem = _linear()
    w = _pulled_back(adjoints.TruncatedNeumann(steps), ANDERSON, b, d, problem)
    powers = [np.linalg.matrix_power(matrix.T, i) for i in range(steps + 1)]
    np.testing.assert_allclose(w.T, sum(powers) @ d.T, rtol=1e-12)
    exact = np.linalg.solve(np.eye(len(matrix)) - matrix.T, d.T).T
    error = np.linalg.norm(w - exact, axis=1) / np.linalg.norm(exact, axis=1)
    assert (error <= 0.5 ** (steps + 1) * (1 + 1e-9)).all()


def _residual(matrix, w, d):
    rest = d - w + w @ matrix  # the transposed product, in rows
    return np.linalg.norm(rest, axis=1) / np.linalg.norm(d, axis=1)


@pytest.mark.parametrize("fallback", ["gmres", "jacobian_free"])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-10])
def test_shine_reports_the_true_residual_and_keeps_its_word(tolerance, fallback):
    matrix, b, d, problem = _linear(factor=0.9)
    reports, solver = [], solvers.Broyden(tolerance=1e-12)
    adjoint = adjoints.SHINE(tolerance, fallback)
    w = _pulled_back(adjoint, solver, b, d, problem, reports)
    (found,) = reports
    residual = _residual(matrix, w, d)
    np.testing.assert_allclose(found.residual, residual, rtol=1e-6, atol=1e-13)
    np.testing.assert_array_equal(found.converged, residual <= tolerance)
    if fallback == "gmres":
        assert found.converged.numpy().all()
        exact = np.linalg.solve(np.eye(len(matrix)) - matrix.T, d.T).T
        np.testing.assert_allclose(w, exact, rtol=0, atol=10 * tolerance * np.abs(exact).max())
    else:
        np.testing.assert_array_equal(found.steps, 2)
        assert (residual <= _residual(matrix, d, d) * (1 + 1e-12)).all()
        assert (residual < 0.9 * _residual(matrix, d, d)).any(), "the estimate must be of use"


def test_a_good_estimate_costs_one_product():
    """Fewer than a solve without it; which goes from zero to the same tolerance."""
    matrix, b, d, problem = _linear(size=3, factor=0.8)
    reports = {"shine": [], "gmres": []}
    w = _pulled_back(
        adjoints.SHINE(0.3), solvers.Broyden(tolerance=1e-13), b, d, problem, reports["shine"]
    )
    assert (_residual(matrix, w, d) <= 0.3).all()
    exact = adjoints.Implicit(linear_solvers.GMRES(tolerance=0.3))
    _pulled_back(exact, ANDERSON, b, d, problem, reports["gmres"])
    ours, theirs = (reports[name][0].steps.numpy() for name in ("shine", "gmres"))
    assert (ours == 1).any()
    assert ours.sum() < theirs.sum()


def test_shine_in_a_layer():
    broyden = solvers.Broyden(tolerance=1e-13)
    shine = adjoints.SHINE(tolerance=1e-12, fallback="gmres")
    output, gradients = _differentiate(_layer(shine, broyden))
    expected_output, expected = _exact()
    np.testing.assert_allclose(output, expected_output, atol=1e-11)
    _assert_close(gradients, expected, 1e-9)
    with pytest.raises(ValueError, match=r"expected solver='broyden'. Received Picard\("):
        _layer("shine")(IMAGES)


# Derivatives of derivatives.

REFUSING = {
    "implicit": (adjoints.Implicit(GMRES), PICARD),
    "jacobian_free": (adjoints.JacobianFree(), PICARD),
    "neumann": (adjoints.TruncatedNeumann(2), PICARD),
    "shine": (adjoints.SHINE(), solvers.Broyden()),
}
RIGHT = {
    "phantom": adjoints.Phantom(2, 0.8),
    "unrolled": adjoints.Unrolled(4),
    "higher_order": adjoints.Implicit(GMRES, higher_order=True),
}


def _penalty(layer, start=None, part=lambda z: z):
    """The squared gradient of a loss by the measurement, for each image."""

    def penalty(y):
        with tf.GradientTape() as tape:
            tape.watch(y)
            loss = tf.reduce_sum(tf.exp(part(layer(y, initial_value=start))))
        return tf.reduce_sum(tape.gradient(loss, y) ** 2, axis=(1, 2, 3))

    return penalty


def _compiled(function):
    return tf.function(function, autograph=False)


@pytest.mark.parametrize(("name", "graph"), covering(product(REFUSING, [False, True])))
def test_second_derivatives_are_refused_where_they_would_be_wrong(name, graph):
    """By the measurement in a graph, by a weight outside of one."""
    adjoint, solver = REFUSING[name]
    layer = _layer(adjoint, solver)
    penalty = _penalty(layer)
    source = IMAGES if graph else layer.trainable_weights[0].value

    def second():
        with tf.GradientTape() as tape:
            tape.watch(source)
            value = penalty(IMAGES)
        return tape.gradient(value, source)

    assert np.isfinite(penalty(IMAGES)).all(), "the first derivatives are there"
    with pytest.raises(LookupError, match="Use adjoint=.*higher_order=True.*'unrolled'"):
        (_compiled(second) if graph else second)()


def test_second_derivatives_of_a_compiled_penalty_are_refused():
    """The first derivatives are in a graph of their own."""
    penalty = _compiled(_penalty(_layer(*REFUSING["jacobian_free"])))
    assert np.isfinite(penalty(IMAGES)).all()

    def second():
        with tf.GradientTape() as tape:
            tape.watch(IMAGES)
            value = penalty(IMAGES)
        return tape.gradient(value, IMAGES)

    with pytest.raises(LookupError, match="higher_order=True"):
        second()


@pytest.mark.slow  # every day to the third one, of a root, below
@pytest.mark.parametrize("name", ["unrolled", "higher_order"])
def test_second_derivatives_equal_finite_differences(name):
    layer = _layer(RIGHT[name])
    kernel = layer.trainable_weights[:1]
    penalty = _compiled(_penalty(layer))
    testing.gradient_test(penalty, IMAGES, variables=kernel, directions=1, rtol=1e-6)


@pytest.mark.parametrize("name", ["phantom", pytest.param("higher_order", marks=pytest.mark.slow)])
def test_second_derivatives_in_eager_and_in_a_graph(name):
    layer = _layer(RIGHT[name])
    penalty, sources = _penalty(layer), [IMAGES, layer.trainable_weights[0].value]

    def second():
        with tf.GradientTape() as tape:
            tape.watch(IMAGES)
            value = penalty(IMAGES)
        return tape.gradient(value, sources, output_gradients=tf.constant([1.0, -2.0, 3.0], DTYPE))

    eager, graph = second(), _compiled(second)()
    _assert_close(graph, eager, 1e-9)


def test_second_derivatives_of_phantom_are_those_of_its_steps():
    """From a fixed point that does not move, as the definition has it."""
    layer, z0 = _layer(RIGHT["phantom"]), _fixed_point()

    def by_hand(y):
        with tf.GradientTape() as tape:
            tape.watch(y)
            z = z0
            for _ in range(2):
                z = z + 0.8 * (layer.cell(z, y) - z)
            loss = tf.reduce_sum(tf.exp(z))
        return tf.reduce_sum(tape.gradient(loss, y) ** 2, axis=(1, 2, 3))

    found = []
    for penalty in (_penalty(layer), by_hand):
        with tf.GradientTape() as tape:
            tape.watch(IMAGES)
            value = penalty(IMAGES)
        found.append(tape.gradient(value, [IMAGES, layer.trainable_weights[0].value]))
    _assert_close(*found, 1e-10)
    testing.gradient_test(by_hand, IMAGES, directions=1)  # and the loop is right


def _blurred():
    prior = priors.FieldsOfExperts(3, 3, sharpness=2.0, dtype=DTYPE)
    blur = operators.GaussianBlur(3, 0.5, dtype=DTYPE)
    exact = linear_solvers.ConjugateGradient(tolerance=1e-13)
    adjoint = adjoints.Implicit(exact, higher_order=True)
    solver = solvers.Nesterov(tolerance=1e-14)
    layer = layers.Variational(blur, prior, weight=0.3, solver=solver, adjoint=adjoint, dtype=DTYPE)
    return layer, lambda z: z


def _of_dictionaries():
    layer = layers.Equilibrium(OfDictionaries(), ANDERSON, RIGHT["higher_order"], dtype=DTYPE)
    return layer, lambda z: tf.concat([z["image"], *z["edges"]], -1)


@pytest.mark.slow
@pytest.mark.parametrize("made", [_blurred, _of_dictionaries])
def test_second_derivatives_of_other_structures(made):
    layer, part = made()
    layer.build(IMAGES.shape)
    variables = [w for w in layer.trainable_weights if len(w.shape) == 4]
    penalty = _compiled(_penalty(layer, part=part))
    testing.gradient_test(penalty, IMAGES[:1], variables=variables, directions=1, rtol=1e-6)


class Root(keras.layers.Layer):
    """`z = y - w z^2 / 4`, so that `z* = 2 (sqrt(1 + w y) - 1) / w`."""

    def __init__(self):
        super().__init__(dtype=DTYPE)
        self.weight = self.add_weight(shape=(), initializer="ones")

    def call(self, z, y):
        return y - self.weight * z**2 / 4


@pytest.mark.parametrize("by", [pytest.param("measurement", marks=pytest.mark.slow), "weight"])
def test_third_derivatives_of_a_root(by):
    layer = layers.Equilibrium(Root(), ANDERSON, RIGHT["higher_order"], dtype=DTYPE)
    y = tf.constant([[0.2], [0.6], [1.1]], DTYPE)
    layer.build(y.shape)
    if by == "measurement":
        source = y
        s = 1 + y  # of z* = 2 (s^(1/2) - 1) at w = 1, in y
        expected = [s**-0.5, -0.5 * s**-1.5, 0.75 * s**-2.5]
    else:
        source, y = layer.cell.layer.weight.value, y[1:2]
        # The series of 2 (sqrt(1 + w y) - 1) / w about w = 1, from its polynomial in w.
        exact = lambda w: 2 * (np.sqrt(1 + w * 0.6) - 1) / w  # noqa: E731
        nodes = 1 + 0.3 * np.cos(np.pi * (np.arange(14) + 0.5) / 14)
        fit = np.polynomial.Chebyshev.fit(nodes, exact(nodes), 13)
        expected = [np.array(fit.deriv(k)(1.0)) for k in (1, 2, 3)]

    def derivatives():
        with tf.GradientTape() as third:
            third.watch(source)
            with tf.GradientTape() as second:
                second.watch(source)
                with tf.GradientTape() as first:
                    first.watch(source)
                    z = layer(y)
                dz = first.gradient(z, source)
            ddz = second.gradient(dz, source)
        return dz, ddz, third.gradient(ddz, source)

    modes = [derivatives, _compiled(derivatives)] if by == "measurement" else [derivatives]
    for found in (mode() for mode in modes):
        for order, (ours, exactly) in enumerate(zip(found, expected, strict=True)):
            np.testing.assert_allclose(ours, exactly, rtol=[1e-10, 1e-9, 1e-8][order])


@pytest.mark.parametrize(
    "adjoint",
    [
        adjoints.Phantom(3, 0.25),
        adjoints.TruncatedNeumann(7),
        adjoints.SHINE(0.01, "jacobian_free"),
        adjoints.SHINE(0.01, linear_solvers.BiCGStab(tolerance=0.02)),
        adjoints.Implicit("minres", precondition=True, higher_order=True),
        adjoints.Unrolled(9, recompute=True),
    ],
)
def test_config_round_trip(adjoint):
    again = adjoints.get(keras.saving.serialize_keras_object(adjoint))
    assert type(again) is type(adjoint)
    assert repr(again) == repr(adjoint)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        (lambda: adjoints.Phantom(0), "`steps`"),
        (lambda: adjoints.Phantom(2, 1.5), "`damping`.*<= 1.0"),
        (lambda: adjoints.TruncatedNeumann(-1), "`steps`"),
        (lambda: adjoints.SHINE(0.0), "`tolerance`"),
        (lambda: adjoints.SHINE(fallback="gmress"), "Did you mean 'gmres'"),
        (lambda: adjoints.get("phanton"), "Did you mean 'phantom'"),
    ],
)
def test_wrong_arguments(wrong, match):
    with pytest.raises(ValueError, match=match):
        wrong()

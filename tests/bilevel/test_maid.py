"""Certified descent: intervals hold the exact loss, steps go down, the optimum is the known one."""

import functools

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from deq_keras import bilevel, layers, operators, priors

DTYPE = "float64"


def _images():
    rows, columns = np.linspace(0, 1, 10)[:, None], np.linspace(0, 1, 9)[None]
    truth = np.stack([0.5 * (columns > 0.3 + 0.3 * k) + 0.3 * rows for k in range(2)])[..., None]
    noise = 0.1 * np.random.default_rng(0).normal(size=truth.shape)
    return tf.constant(truth + noise), tf.constant(truth)


NOISY, TRUTH = _images()


def _layer(prior=None, **options):
    prior = prior or priors.TotalVariation(0.1, train_smoothing=True, dtype=DTYPE)
    options = {"weight": 0.02, **options}
    return layers.Variational(operators.Identity(dtype=DTYPE), prior, dtype=DTYPE, **options)


def _experts():
    return priors.FieldsOfExperts(2, 3, sharpness=10.0, padding="circular", dtype=DTYPE)


def _level(layer):
    return bilevel.LowerLevel(layer, NOISY, TRUTH)


def distance(found, exact):
    """Between two hypergradients, over all variables."""
    return tf.linalg.global_norm([a - b for a, b in zip(found.value, exact.value, strict=True)])


@pytest.fixture(scope="module")
def learned():
    """A descent on weight and smoothing of total variation."""
    level = _level(_layer())
    return level, bilevel.MAID(first_step=0.3).minimize(level, 60, gradient_tolerance=2e-5)


@pytest.fixture(scope="module")
def exact(learned):
    """The loss and its derivative to the last digits, as a function of the weights."""
    level = learned[0]

    @functools.cache
    def at(weights):
        for variable, value in zip(level.variables, weights, strict=True):
            variable.assign(value)
        solved = level.solve(1e-13)
        slope = level.hypergradient(solved, 1e-13)
        assert slope.error < 1e-6 * max(float(slope.norm), 1e-3)
        return float(solved.loss), np.array([float(g) for g in slope.value])

    return lambda weights: at(tuple(map(float, weights)))


def test_a_hypergradient_is_the_derivative_of_the_loss(exact):
    start = np.array([np.log(0.03), np.log(0.2)])
    _, slope = exact(start)
    for axis in range(2):
        step = 1e-5 * np.eye(2)[axis]
        difference = (exact(start + step)[0] - exact(start - step)[0]) / 2e-5
        assert slope[axis] == pytest.approx(difference, rel=1e-5)


@pytest.mark.parametrize(
    "prior", ["total variation", pytest.param("experts", marks=pytest.mark.slow)]
)
def test_bounds_hold_however_loose_the_solves_are(prior, learned):
    level = learned[0] if prior == "total variation" else _level(_layer(_experts()))
    for variable in level.variables:
        variable.assign_add(0.3 * tf.random.stateless_normal(variable.shape, (1, 2), dtype=DTYPE))
    best = level.solve(1e-13)
    assert best.upper - best.lower < 1e-9 * best.loss
    exact = level.hypergradient(best, 1e-13)
    for tolerance in (1e-1, 1e-2, 1e-3, 1e-5):
        solved = level.solve(tolerance)
        assert solved.lower <= best.lower <= best.upper <= solved.upper
        for adjoint_tolerance in (1e-1, 1e-4):
            found = level.hypergradient(solved, adjoint_tolerance)
            assert distance(found, exact) <= found.error
            assert found.of_solution <= found.error
    close = level.hypergradient(best, 1e-5)
    assert distance(close, exact) <= close.error < 1e-3 * exact.norm


def test_every_step_goes_down_as_an_accurate_evaluation_says(learned, exact):
    records = learned[1].history
    assert len(records) > 5
    losses = [exact(record.weights)[0] for record in records]
    slack = 1e-12
    for record, loss in zip(records, losses, strict=True):
        assert record.lower - slack <= loss <= record.upper + slack
    for record, after in zip(records, records[1:], strict=False):
        move = np.array(after.weights) - np.array(record.weights)
        loss, slope = exact(record.weights)
        assert exact(after.weights)[0] <= loss - 0.01 * move @ move / record.step_size
        direction = -move / record.step_size  # the hypergradient that was computed
        assert slope @ direction >= 0.5 * direction @ direction
        assert record.gradient_norm == pytest.approx(np.linalg.norm(direction), rel=1e-6)
        assert np.linalg.norm(slope - direction) <= record.gradient_error
    assert records[-1].step_size == 0.0


def test_the_accuracy_is_loosened_and_tightened(learned):
    tolerances = np.array([record.tolerance for record in learned[1].history])
    assert (np.diff(tolerances) > 0).any()
    assert (np.diff(tolerances) < 0).any()
    assert tolerances[0] > 10 * tolerances[-1]


def test_it_ends_where_the_exact_derivative_is_small(learned, exact):
    found = learned[1]
    assert found.reason == "stationary"
    assert np.linalg.norm(exact(found.history[-1].weights)[1]) <= 2e-5


def test_the_optimum_is_that_of_an_exact_search():
    level = _level(_layer(priors.TotalVariation(0.1, dtype=DTYPE)))
    found = bilevel.MAID().minimize(level, steps=60, gradient_tolerance=1e-8)
    assert found.reason == "stationary"
    (reached,) = found.history[-1].weights

    def loss(logarithm):
        level.variables[0].assign(logarithm)
        return float(level.solve(1e-13).loss)

    near = (reached - 0.5, reached + 0.5)
    best = scipy.optimize.minimize_scalar(loss, bounds=near, options={"xatol": 1e-9})
    assert reached == pytest.approx(best.x, abs=3e-5)  # of a curvature of about 1e-3


@pytest.mark.slow
def test_many_parameters_and_where_it_ends():
    layer = _layer(_experts())
    method = bilevel.MAID.from_config(bilevel.MAID().get_config())
    found = method.minimize(_level(layer), steps=4)
    assert found.reason == "steps"
    uppers = [record.upper for record in found.history]
    lowers = [record.lower for record in found.history]
    assert all(a < b for a, b in zip(uppers[1:], lowers, strict=False))
    assert np.isnan(found.history[-1].gradient_norm)
    rough = bilevel.MAID(tolerance=1e-2, adjoint_tolerance=1e-2, least=1e-2)
    assert rough.minimize(_level(_layer()), steps=4).reason == "accuracy"


def test_what_is_not_certified_is_refused_in_words():
    blur = operators.GaussianBlur(3, 1.0, dtype=DTYPE)
    layer = layers.Variational(blur, priors.TotalVariation(dtype=DTYPE), dtype=DTYPE)
    with pytest.raises(ValueError, match="certified to be strongly convex"):
        _level(layer)
    sharp = priors.FieldsOfExperts(2, 3, "soft_shrinkage", padding="circular", dtype=DTYPE)
    with pytest.raises(ValueError, match="Nothing is certified of '.*'"):
        _level(_layer(sharp))
    with pytest.raises(ValueError, match="deq_keras.layers.Variational"):
        _level(sharp)
    wrong = ({"descent": 1.0}, {"decrease": 0.5}, {"growth": 1.0}, {"shrink": 1.0}, {"least": 1.0})
    for arguments in wrong:
        with pytest.raises(ValueError, match=f"`{next(iter(arguments))}`"):
            bilevel.MAID(**arguments)

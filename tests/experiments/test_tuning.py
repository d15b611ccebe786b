"""The tuned weight is the minimiser, where that is known in closed form or by exhaustion."""

import math
from itertools import product

import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk
from experiments.tuning import Scalar, tune, tune_weight
from tests.variants import covering

TRUTH = np.random.default_rng(0).uniform(size=(2, 12, 12, 1))
NOISE = np.random.default_rng(1).normal(size=TRUTH.shape)


def ridge(cls=dk.layers.Variational):
    """`R(u) = ||u||^2 / 2`, an expert of one pixel: the minimiser is `u = y / (1 + lambda)`."""
    prior = dk.priors.FieldsOfExperts(
        filters=1,
        kernel_size=1,
        activation="identity",
        sharpness=1.0,
        zero_mean=False,
        filters_initializer="ones",
        dtype="float64",
    )
    operator = dk.operators.Identity(dtype="float64")
    solver = dk.solvers.Nesterov(tolerance=1e-12)
    if cls is dk.layers.Variational:
        layer = cls(operator, prior, solver=solver, dtype="float64")
    else:
        cell = dk.layers.GradientStep(operator, prior, dtype="float64")
        layer = cls(cell, solver=solver, dtype="float64")
    layer.build(TRUTH.shape)
    return layer


def best_weight(y):
    """`||y / (1 + lambda) - truth||^2` is least at `1 / (1 + lambda) = <y, truth> / <y, y>`."""
    return np.sum(y * y) / np.sum(y * TRUTH) - 1.0


def weight_of(layer):
    return math.exp(float(layer.cell.log_weight))


@pytest.mark.parametrize("cls", [dk.layers.Variational, dk.layers.Equilibrium])
def test_the_reference_problem_is_the_one_of_the_formula(cls):
    layer = ridge(cls)
    layer.cell.log_weight.assign(math.log(0.7))
    value = layer.solve(TRUTH).value
    # The norm of a filter is a bound with a little slack for rounding.
    np.testing.assert_allclose(value, TRUTH / 1.7, rtol=1e-5)


@pytest.mark.parametrize(
    ("cls", "scale"),
    covering(product([dk.layers.Variational, dk.layers.Equilibrium], [1.1, 1.5, 4.0])),
)
def test_finds_the_known_minimiser(cls, scale):
    """Each refinement halves the spacing, in decades, of which the first grid has 5/12."""
    y = scale * TRUTH + 0.05 * NOISE
    layer, expected = ridge(cls), best_weight(y)
    record = tune_weight(layer, y, TRUTH, refinements=8)
    assert abs(math.log10(record["weight"] / expected)) <= 5 / 12 / 2**8
    least = np.mean((y / (1 + expected) - TRUTH) ** 2)
    assert record["loss"] == pytest.approx(least, rel=1e-4)


@pytest.mark.slow
def test_is_as_good_as_a_finer_grid():
    """Total variation has no closed form; 400 weights have."""
    prior = dk.priors.TotalVariation(smoothing=0.1, dtype="float64")
    truth = np.zeros((1, 12, 12, 1))
    truth[:, 3:9, 4:10] = 1.0
    noise = np.random.default_rng(2).normal(size=truth.shape)
    y = truth + 0.2 * noise
    operator = dk.operators.Identity(dtype="float64")
    layer = dk.layers.Variational(operator, prior, dtype="float64")
    layer.build(truth.shape)
    record = tune_weight(layer, y, truth)
    grid = np.geomspace(1e-4, 10.0, 400)
    losses, solve = [], tf.function(layer.solve, autograph=False)
    for weight in grid:
        layer.cell.log_weight.assign(math.log(weight))
        losses.append(float(tf.reduce_mean((solve(tf.constant(y)).value - truth) ** 2)))
    best = int(np.argmin(losses))
    assert 0 < best < len(grid) - 1  # it is a problem with a minimum inside
    # A refinement halves the spacing, in decades, of which the first grid has 5/12.
    assert abs(math.log10(record["weight"] / grid[best])) <= 5 / 12 / 4
    assert record["loss"] >= losses[best] * (1 - 1e-6)


def test_leaves_the_layer_at_the_best_weight_and_reports_all():
    y = 1.5 * TRUTH
    layer = ridge()
    record = tune_weight(layer, y, TRUTH)
    assert weight_of(layer) == pytest.approx(record["weight"], rel=1e-12)
    loss = float(tf.reduce_mean((layer.solve(y).value - TRUTH) ** 2))
    assert loss == pytest.approx(record["loss"], rel=1e-9)
    weights, losses = np.array(record["tried"]).T
    assert list(weights) == sorted(set(weights))
    assert len(weights) == 13 + 2 * 2  # of five points of a refinement three are known
    assert (record["weight"], record["loss"]) == (weights[np.argmin(losses)], min(losses))
    for weight, loss in zip(weights, losses, strict=True):
        assert loss == pytest.approx(np.mean((y / (1 + weight) - TRUTH) ** 2), rel=1e-4)


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 0.1), (100.0, 2.0)])
def test_minimiser_outside_of_the_interval_gives_its_end(scale, expected):
    """No noise wants the smallest weight, a hundredfold image the largest."""
    record = tune_weight(ridge(), scale * TRUTH, TRUTH, low=0.1, high=2.0)
    assert record["weight"] == pytest.approx(expected, rel=1e-12)


def test_takes_a_measurement_with_operator_data():
    mask = (np.random.default_rng(3).uniform(size=TRUTH.shape) < 0.5).astype(np.float64)
    prior = dk.priors.TotalVariation(smoothing=0.1, dtype="float64")
    layer = dk.layers.Variational(dk.operators.Mask(dtype="float64"), prior, dtype="float64")
    layer.build([TRUTH.shape, TRUTH.shape])
    record = tune_weight(layer, (mask * TRUTH, mask), TRUTH, points=3, refinements=0)
    assert [weight for weight, _ in record["tried"]] == pytest.approx([1e-4, 10**-1.5, 10.0])


@pytest.mark.parametrize(
    "arguments",
    [
        {"low": 0.0},
        {"low": -1.0},
        {"low": 10.0},
        {"low": 2.0, "high": 1.0},
        {"high": math.inf},
        {"high": math.nan},
        {"low": math.nan},
        {"points": 2},
        {"refinements": -1},
    ],
    ids=str,
)
def test_wrong_arguments(arguments):
    layer = ridge()
    before = weight_of(layer)
    ((name, value),) = list(arguments.items())[-1:]
    with pytest.raises(ValueError, match=f"Expected 0 < `low` < `high`.*{name}={value!r}"):
        tune_weight(layer, TRUTH, TRUTH, **arguments)
    assert weight_of(layer) == before


def test_two_numbers_that_belong_together():
    """`s` and lambda of `u = y / (1 + lambda s)`: the least error is where it must be."""
    layer = ridge()
    prior = dk.priors.Rescaled(layer.prior, dtype="float64")
    both = dk.layers.Variational(
        layer.operator, prior, solver=dk.solvers.Nesterov(tolerance=1e-12), dtype="float64"
    )
    both.build(TRUTH.shape)
    y = 1.5 * TRUTH + 0.05 * NOISE
    scalars = {
        "weight": Scalar(both.cell.log_weight, 1e-2, 10.0, 5),
        "scale": Scalar(prior.log_scale, 0.5, 2.0, 3),
    }
    batches = [(y[:1], TRUTH[:1]), (y[1:], TRUTH[1:])]
    record = tune(both, scalars, batches, refinements=4)
    assert record["weight"] * record["scale"] == pytest.approx(best_weight(y), rel=0.1)
    least = np.mean((y / (1 + best_weight(y)) - TRUTH) ** 2)
    assert record["loss"] == pytest.approx(least, rel=1e-2)
    assert weight_of(both) == pytest.approx(record["weight"], rel=1e-12)
    pairs = [numbers for *numbers, _ in record["tried"]]
    assert pairs == sorted(pairs)
    assert len({tuple(np.round(np.log(pair), 9)) for pair in pairs}) == len(pairs)  # none twice
    assert len(pairs) <= 15 + 4 * 25

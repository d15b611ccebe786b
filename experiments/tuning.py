"""Tuning of a few numbers by search: the regularisation parameter before anything else."""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from trainers.callbacks.model_solver import LayerSolver

_REFINED = 5  # points of a refined grid, of which those of the coarser one are known


class Scalar(NamedTuple):
    """A positive number of a layer, and the logarithmic grid on which it is looked for.

    Attributes:
        variable: The Keras variable that holds its logarithm.
        low: Smallest number tried.
        high: Largest number tried.
        points: Number of points on the first grid.
    """

    variable: Any
    low: float = 1e-4
    high: float = 10.0
    points: int = 13


def tune(layer, scalars, batches, refinements=2):
    """Choose some numbers of a layer with the least error on given images.

    The mean squared error is evaluated on a logarithmic grid, which is then refined around its best
    point. Of one or two numbers a search is safer than a descent. The layer keeps the best ones.
    Each solve starts at the solution of the nearest numbers that were tried.

    Args:
        layer: A built layer with a method `solve`.
        scalars: Dictionary from names to `Scalar`.
        batches: List of `(measurement, truth)`.
        refinements: How often the grid is refined, each time to the neighbours of the best point.

    Returns:
        Dictionary with each of the chosen numbers by its name, their `loss`, and all `tried`
        tuples (numbers, loss).

    Raises:
        ValueError: If there is no interval, no grid, or a negative number of refinements.
    """
    for scalar in scalars.values():
        low, high, points = scalar[1:]
        if not 0 < low < high < math.inf or points < 3 or refinements < 0:
            raise ValueError(
                "Expected 0 < `low` < `high`, `points` >= 3 and `refinements` >= 0. Received "
                f"low={low!r}, high={high!r}, points={points!r}, refinements={refinements!r}."
            )
    tried, found, solver = {}, {}, LayerSolver(layer)

    def assign(numbers):
        for scalar, number in zip(scalars.values(), numbers, strict=True):
            scalar.variable.assign(math.log(number))

    def starts(numbers):
        if not found:
            return [None] * len(batches)
        return found[min(found, key=lambda others: math.dist(np.log(others), np.log(numbers)))]

    def loss(numbers):
        assign(numbers)
        pairs = zip(batches, starts(numbers), strict=True)
        values = [solver.solve(measurement, start).value for (measurement, _), start in pairs]
        pairs = zip(values, batches, strict=True)
        squares = [(value - truth) ** 2 for value, (_, truth) in pairs]
        means = tf.concat([tf.reduce_mean(x, axis=(1, 2, 3)) for x in squares], 0)
        if all(np.isfinite(image).all() for image in values):
            found[numbers] = values
        value = float(tf.reduce_mean(means))
        return value if math.isfinite(value) else math.inf

    grids = [np.geomspace(*scalar[1:]).tolist() for scalar in scalars.values()]
    for _ in range(refinements + 1):
        for numbers in itertools.product(*grids):
            if numbers not in tried:
                tried[numbers] = loss(numbers)
        best = min(sorted(tried), key=tried.get)
        columns = zip(*tried, strict=True)
        grids = [_around(number, column) for number, column in zip(best, columns, strict=True)]
    assign(best)
    return {
        **dict(zip(scalars, best, strict=True)),
        "loss": tried[best],
        "tried": [(*numbers, tried[numbers]) for numbers in sorted(tried)],
    }


def _around(number, column):
    """A grid between the neighbours of a number among those tried, some of which are on it."""
    ordered = sorted(set(column))
    place = ordered.index(number)
    low, high = ordered[max(place - 1, 0)], ordered[min(place + 1, len(ordered) - 1)]

    def as_tried(new):
        return next((old for old in ordered if math.isclose(new, old, rel_tol=1e-9)), new)

    return [as_tried(new) for new in np.geomspace(low, high, _REFINED).tolist()]


def tune_weight(layer, measurement, truth, low=1e-4, high=10.0, points=13, refinements=2):
    """Choose the regularisation parameter of a layer with the least error on given images.

    Args:
        layer: A built `Variational` layer, or an `Equilibrium` of a `GradientStep`.
        measurement: Input of the layer.
        truth: The images that belong to it, `(batch, height, width, channels)`.
        low: Smallest weight tried.
        high: Largest weight tried.
        points: Number of weights on a grid.
        refinements: As for `tune`.

    Returns:
        Dictionary with the chosen `weight`, its `loss`, and all `tried` pairs (weight, loss).

    Raises:
        ValueError: As `tune`.
    """
    weight = Scalar(layer.cell.log_weight, low, high, points)
    return tune(layer, {"weight": weight}, [(measurement, truth)], refinements)

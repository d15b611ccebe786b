"""Tuning of the one number that matters before anything else: the regularisation parameter."""

import math

import numpy as np
import tensorflow as tf

from trainers.callbacks.model_solver import LayerSolver


def tune_weight(layer, measurement, truth, low=1e-4, high=10.0, points=13, refinements=2):
    """Choose the regularisation parameter of a layer with the least error on given images.

    The mean squared error is evaluated on a logarithmic grid, which is then refined around its best
    point. One-dimensional, so a search is safer than a descent. The layer keeps the best weight.

    Args:
        layer: A built `Variational` layer, or an `Equilibrium` of a `GradientStep`.
        measurement: Input of the layer.
        truth: The images that belong to it, `(batch, height, width, channels)`.
        low: Smallest weight tried.
        high: Largest weight tried.
        points: Number of weights on a grid.
        refinements: How often the grid is refined, each time to the neighbours of the best point.

    Returns:
        Dictionary with the chosen `weight`, its `loss`, and all `tried` pairs (weight, loss).

    Raises:
        ValueError: If there is no interval, no grid, or a negative number of refinements.
    """
    if not 0 < low < high < math.inf or points < 3 or refinements < 0:
        raise ValueError(
            "Expected 0 < `low` < `high`, `points` >= 3 and `refinements` >= 0. Received "
            f"low={low!r}, high={high!r}, points={points!r}, refinements={refinements!r}."
        )
    tried, solver = {}, LayerSolver(layer)

    def loss(weight):
        layer.cell.log_weight.assign(math.log(weight))
        value = solver.solve(measurement).value
        return float(tf.reduce_mean((value - truth) ** 2))

    for _ in range(refinements + 1):
        for weight in np.geomspace(low, high, points):
            if not any(math.isclose(weight, old, rel_tol=1e-9) for old in tried):
                tried[float(weight)] = loss(weight)
        ordered = sorted(tried)
        best = min(ordered, key=lambda weight: tried[weight])
        place = ordered.index(best)
        low, high = ordered[max(place - 1, 0)], ordered[min(place + 1, len(ordered) - 1)]
        points = 5
    layer.cell.log_weight.assign(math.log(best))
    return {"weight": best, "loss": tried[best], "tried": sorted(tried.items())}

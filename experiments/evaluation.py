"""What a trained layer does on each image of a split: quality, solver diagnostics, time."""

import math
import time

import numpy as np
import tensorflow as tf

import deq_keras as dk

LEAST_SIDE = 11  # pixels: the window of SSIM


def evaluate(layer, batches, names, bounds=False):
    """Reconstruct every image and say how well and how fast.

    Args:
        layer: A layer with `solve`, a `ModelSolver`, or `None` for the measurement itself.
        batches: Dataset of `(measurement, truth)` with one image a batch.
        names: Name of each image, in order.
        bounds: Whether rows have an `error_bound`: the certified bound on the distance to the
            exact solution (root mean square over the pixels), `None` where none is certified.

    Returns:
        `(summary, images, estimates)`: means over the images; a row for each image; the
        reconstructions as arrays. `solve_seconds` is the time of a second solve of the same image,
        so no tracing is in it.
    """
    rows, estimates = [], []
    bounds = bounds and hasattr(layer, "error_bound")
    for name, (measurement, truth) in zip(names, batches, strict=True):
        row = {"name": name}
        if layer is None:
            estimate = tf.nest.flatten(measurement)[0]
        else:
            solution = layer.solve(measurement)
            estimate = solution.value
            row["seconds"] = _seconds(layer, measurement)
            if solution.steps is not None:
                row["steps"] = int(solution.steps[0])
                row["residual"] = float(solution.residual[0])
                row["converged"] = bool(solution.converged[0])
            if bounds:
                row["error_bound"] = _error_bound(layer, measurement, estimate)
                bounds = row["error_bound"] is not None  # an estimate would cost a linear solve
        row["psnr"] = float(dk.metrics.psnr(truth, estimate)[0])
        row["ssim"] = float(dk.metrics.ssim(truth, estimate)[0])
        row["loss"] = float(tf.reduce_mean((estimate - truth) ** 2))
        rows.append(row)
        estimates.append(estimate.numpy()[0])
    summary = {key: mean(rows, key) for key in ("psnr", "ssim")}
    summary["test_loss"] = mean(rows, "loss")
    summary["solve_seconds"] = mean(rows, "seconds")
    summary["forward_steps"] = mean(rows, "steps")
    summary["converged"] = mean(rows, "converged")
    return summary, rows, estimates


def _seconds(layer, measurement):
    """How long a reconstruction takes, not for the first time."""
    begin = time.perf_counter()
    if hasattr(layer, "reconstruct"):
        layer.reconstruct(measurement).numpy()
    else:
        layer.solve(measurement).value.numpy()
    return time.perf_counter() - begin


def _error_bound(layer, measurement, estimate):
    """The certified bound for one image, as root mean square over its pixels, or `None`."""
    value, certified = layer.error_bound(measurement, estimate)
    if not bool(certified[0]):
        return None
    return float(value[0]) / math.sqrt(math.prod(estimate.shape[1:]))


def loss_on(layer, batches):
    """Mean squared error over the images of some batches; of the measurement if `layer` is None."""
    total = count = 0.0
    for measurement, truth in batches:
        if layer is None:
            estimate = tf.nest.flatten(measurement)[0]
        else:
            estimate = layer.solve(measurement).value
        total += float(tf.reduce_sum(tf.reduce_mean((estimate - truth) ** 2, axis=(1, 2, 3))))
        count += truth.shape[0]
    return total / count


def residual_curve(layer, measurement):
    """Relative residual of one image at every evaluation of the map."""
    solution, history = layer.solve(measurement, return_history=True)
    return history.numpy()[: int(solution.steps[0]), 0].tolist()


def quality_against_time(layer, measurement, truth, most=1000):
    """PSNR of one image after 1, 2, 4, ... evaluations, and the seconds these take.

    Returns:
        Dictionary of the lists `steps`, `seconds` and `psnr`, until the solver stops by itself.
    """
    curve = {"steps": [], "seconds": [], "psnr": []}
    limit = 1
    layer.solve(measurement, max_steps=limit)
    while limit <= most:
        begin = time.perf_counter()
        solution = layer.solve(measurement, max_steps=limit)
        solution.value.numpy()
        seconds, steps = time.perf_counter() - begin, int(solution.steps[0])
        if steps in curve["steps"]:
            break  # it diverged
        curve["seconds"].append(seconds)
        curve["steps"].append(steps)
        curve["psnr"].append(float(dk.metrics.psnr(truth, solution.value)[0]))
        if bool(solution.converged[0]):
            break
        limit *= 2
    return curve


def mean(rows, key):
    """Mean of a column over the rows that have it, `None` if none has."""
    values = [row[key] for row in rows if row.get(key) is not None]
    return float(np.mean(values)) if values else None

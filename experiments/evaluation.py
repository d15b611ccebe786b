"""Quality, work and time of a trained model on each image of a split."""

import math
import time

import numpy as np
import tensorflow as tf

import deq_keras as dk
from experiments.tasks.task import measurement_itself

LEAST_SIDE = 11  # pixels: the window of SSIM


def evaluate(solver, batches, names, bounds=False, picture=measurement_itself):
    """Reconstruct every image and say how well and how fast.

    Args:
        solver: A `LayerSolver` or `ModelSolver` of `trainers.callbacks.model_solver`; `None` for
            what is shown of the measurement.
        batches: Dataset of `(measurement, truth)` with one image a batch.
        names: Name of each image, in order.
        bounds: Whether rows have an `error_bound`: the certified bound on the distance to the
            exact solution (root mean square over the pixels), `None` where none is certified.
        picture: From measurements to the images shown of them, see `experiments.tasks.Task`.

    Returns:
        `(summary, images, estimates)`: means over the images; a row for each image; the
        reconstructions as arrays. `solve_seconds` is the time of a second solve of the same image,
        so no tracing is in it.
    """
    rows, estimates = [], []
    bounds = bounds and hasattr(solver, "error_bound")
    for name, (measurement, truth) in zip(names, batches, strict=True):
        row = {"name": name}
        if solver is None:
            estimate = picture(measurement)
        else:
            solution = solver.solve(measurement)
            estimate = solution.value
            row["seconds"] = _seconds(solver, measurement)
            if solution.steps is not None:
                row["steps"] = int(solution.steps[0])
                row["residual"] = float(solution.residual[0])
                row["converged"] = bool(solution.converged[0])
            if bounds:
                row["error_bound"] = _error_bound(solver, measurement, estimate)
                bounds = row["error_bound"] is not None  # an estimate would cost a linear solve
        row["psnr"] = float(dk.metrics.psnr(truth, estimate)[0])
        row["ssim"] = float(dk.metrics.ssim(truth, estimate)[0])
        # Of half precision in mixed policies; the differences are taken in that of the images.
        estimate = tf.cast(estimate, truth.dtype)
        row["loss"] = float(tf.reduce_mean((estimate - truth) ** 2))
        rows.append(row)
        estimates.append(estimate.numpy()[0])
    summary = {key: mean(rows, key) for key in ("psnr", "ssim")}
    summary["test_loss"] = mean(rows, "loss")
    summary["solve_seconds"] = mean(rows, "seconds")
    summary["forward_steps"] = mean(rows, "steps")
    summary["converged"] = mean(rows, "converged")
    return summary, rows, estimates


def _seconds(solver, measurement):
    """How long a reconstruction takes, not for the first time."""
    begin = time.perf_counter()
    solver.solve(measurement).value.numpy()
    return time.perf_counter() - begin


def _error_bound(solver, measurement, estimate):
    """The certified bound for one image, as root mean square over its pixels, or `None`."""
    value, certified = solver.error_bound(measurement, estimate)
    if not bool(certified[0]):
        return None
    return float(value[0]) / math.sqrt(math.prod(estimate.shape[1:]))


def loss_on(solver, batches, picture=measurement_itself):
    """Mean squared error over the images of some batches; the arguments are those of `evaluate`."""
    total = count = 0.0
    for measurement, truth in batches:
        estimate = picture(measurement) if solver is None else solver.solve(measurement).value
        estimate = tf.cast(estimate, truth.dtype)
        total += float(tf.reduce_sum(tf.reduce_mean((estimate - truth) ** 2, axis=(1, 2, 3))))
        count += truth.shape[0]
    return total / count


def residual_curve(solver, measurement):
    """Relative residual of one image at every evaluation of the map, by a `LayerSolver`."""
    return solver.residuals(measurement).numpy()[:, 0].tolist()


def quality_against_time(solver, measurement, truth, most=1000):
    """PSNR of one image after 1, 2, 4, ... evaluations, and the seconds these take.

    Args:
        solver: A `trainers.callbacks.model_solver.LayerSolver`.
        measurement: A batch of one measurement.
        truth: The image that belongs to it.
        most: Largest number of evaluations.

    Returns:
        Dictionary of the lists `steps`, `seconds` and `psnr`, until the solver stops by itself.
    """
    curve = {"steps": [], "seconds": [], "psnr": []}
    limit = 1
    solver.solve_within(measurement, limit)
    while limit <= most:
        begin = time.perf_counter()
        solution = solver.solve_within(measurement, limit)
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

"""Diagnosis of a gradient that is not finite: which image made it, and what its solver says."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from deq_keras.layers.diagnostics import Diagnostic
from trainers.training.feed import size


def diagnose(model: keras.Model, images: Iterator[tuple[str, tuple]]) -> str:
    """Says which images have a loss or a gradient that is not finite.

    Each is computed alone, in a scope that keeps the state of the model as it is, so this costs a
    step an image; it is done only when a step has failed.

    Args:
        model: A compiled Keras model.
        images: Names, and `(x, y)` or `(x, y, sample_weight)` with a batch of one image.

    Returns:
        A sentence for people.
    """
    guilty = []

    def alone(data):
        return _alone(model, data)

    if not model.run_eagerly:
        alone = tf.function(alone, reduce_retracing=True, autograph=False)
    for name, data in images:
        loss, norm, diagnostics = tf.nest.map_structure(float, alone(data))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            details = [f"loss {loss:.3g}", f"gradient norm {norm:.3g}"]
            details += [f"{key} {value:.3g}" for key, value in diagnostics.items()]
            guilty.append(f"{name} ({', '.join(details)})")
    if not guilty:
        return "None of this worker's images has one alone: see the other workers' logs."
    more = f" and {len(guilty) - 4} more" if len(guilty) > 4 else ""
    return f"Not finite alone: {'; '.join(guilty[:4])}{more}."


def _alone(model, data):
    """Loss, norm of the gradient, and what the layers report of their solves."""
    x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
    variables = [variable for metric in model.metrics for variable in metric.variables]
    clean = [(variable, tf.zeros(variable.shape, variable.dtype)) for variable in variables]
    reported = [m for m in model.metrics if isinstance(m, Diagnostic)]
    with keras.StatelessScope(clean) as scope, tf.GradientTape() as tape:
        prediction = model(x, training=True)
        loss = model.compute_loss(x=x, y=y, y_pred=prediction, sample_weight=weight)
        gradients = tape.gradient(loss, model.trainable_variables)
        diagnostics = {}
        for metric in reported:
            total, count = (scope.get_current_value(v) for v in (metric.total, metric.count))
            diagnostics[metric.name] = total / count
    known = [gradient for gradient in gradients if gradient is not None]
    return loss, tf.linalg.global_norm(known), diagnostics


def one_by_one(
    groups: list, step: int, position: int, describe: Callable[[int, int], str] | None
) -> Iterator[tuple[str, tuple]]:
    """The images of a step, each alone, with a name.

    Args:
        groups: The batches of this worker's replicas, in their order.
        step: The number of the step, from 0.
        position: The place of this worker's first image in the global batch.
        describe: `(step, position)` to a name for people, if the data know one.
    """
    for batch in groups:
        for row in range(size(batch)):
            name = f"image {position} of the global batch"
            if describe is not None:
                name = f"{describe(step, position)}, {name}"
            yield name, tf.nest.map_structure(lambda x, row=row: x[row : row + 1], batch)
            position += 1

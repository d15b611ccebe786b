"""How well conditioned the problems of a model's layers are, measured on fixed images."""

from __future__ import annotations

import keras
import tensorflow as tf

import deq_keras as dk


class ConditioningMeasure:
    """What `Trainer.fit(measure=...)` is given to follow `I - J` over a training.

    For each layer that is solved, at the solutions of fixed measurements, with the Jacobian `J` of
    its map: `<layer>_smallest` and `<layer>_largest`, the extreme eigenvalues of the symmetric part
    of `I - J`; `<layer>_skew` and `<layer>_norm`, the norms of its skew part and of the whole; and
    `<layer>_condition`, the norm over the smallest eigenvalue, infinite where that is not positive.
    Of several images they are those of the batch as one problem: the extremes over the images. All
    are **estimates** (`deq_keras.conditioning`), from a few dozen products with `J`. Beside them
    what the layers' cells say of their weights: lambda and the largest sharpness, say.

    It is no part of a training step and takes part in no reduction: each process measures the
    weights as it has them, so all workers find the same.

    Args:
        model: A Keras model, built.
        measurement: Of a few images: what the model takes.
        steps: See `deq_keras.conditioning.estimate`.

    Example:

    >>> measure = ConditioningMeasure(trainer.model, next(iter(validation))[0])
    >>> trainer.fit(batches, epochs=20, steps_per_epoch=10, measure=measure)
    """

    def __init__(self, model: keras.Model, measurement, steps: int = 16):
        self.model, self.measurement = model, measurement

        def measured(measurement):
            with dk.layers.observe() as observation:
                model(measurement, training=False)
            found = {}
            for seen in observation:
                estimate = dk.conditioning.estimate(seen.problem, seen.solution.value, steps)
                values = {
                    "smallest": tf.reduce_min(estimate.smallest),
                    "largest": tf.reduce_max(estimate.largest),
                    "skew": tf.reduce_max(estimate.skew),
                    "norm": tf.reduce_max(estimate.norm),
                }
                whole = dk.conditioning.Conditioning(**values)
                values |= {"condition": whole.condition, **seen.layer.cell.scalars()}
                found |= {f"{seen.layer.name}_{key}": value for key, value in values.items()}
            return found

        # A graph: the loops of a solver are slow without.
        self._measured = tf.function(measured, autograph=False)

    def __call__(self) -> dict[str, float]:
        """The numbers for the present weights."""
        return {key: float(value) for key, value in self._measured(self.measurement).items()}

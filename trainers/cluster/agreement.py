"""Agreement of the workers: what they tell each other in addition to gradients."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import tensorflow as tf


def everyones(row: tf.Tensor, replicas: int) -> tf.Tensor:
    """The rows of all replicas, in their order; in replica context.

    A sum of rows that are zero elsewhere, and so exact. (`all_gather` crashes on empty tensors.)
    """
    if replicas == 1 or row.shape[0] == 0:
        return tf.repeat(row[None], replicas, 0)
    context = tf.distribute.get_replica_context()
    mine = tf.one_hot(context.replica_id_in_sync_group, replicas, dtype=row.dtype)[:, None]
    placed = tf.where(mine > 0, row[None], tf.zeros_like(row)[None])
    return context.all_reduce(tf.distribute.ReduceOp.SUM, placed)


def gathered(strategy: tf.distribute.Strategy, content: Any) -> list[Any]:
    """What every replica says, in their order. All workers must call it.

    Args:
        strategy: A `tf.distribute.Strategy`.
        content: Plain values, as JSON has them; of this worker.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return [content]
    data = np.frombuffer(json.dumps(content).encode(), np.uint8).astype(np.int32)

    def exchange(row):
        @tf.function(autograph=False)
        def run():
            return strategy.run(lambda: everyones(tf.constant(row), replicas))

        return strategy.experimental_local_results(run())[0].numpy()

    lengths = exchange(np.array([len(data)], np.int32))[:, 0]
    rows = exchange(np.pad(data, (0, max(lengths) - len(data)))).astype(np.uint8)
    texts = (row[:length].tobytes() for row, length in zip(rows, lengths, strict=True))
    return [json.loads(text) for text in texts]


def any_of(strategy: tf.distribute.Strategy, flag: bool) -> bool:
    """Whether the flag is set on any worker. All workers must call it."""
    if strategy.num_replicas_in_sync == 1:
        return bool(flag)
    flags = strategy.run(lambda: tf.constant(float(flag)))
    total = strategy.reduce(tf.distribute.ReduceOp.SUM, flags, axis=None)
    return bool(total > 0)

"""The batches of this worker's replicas, as `tf.distribute` takes them.

The iterators are ours and not those of `tf.distribute`: no worker asks the others whether they have
data left, so one may have more validation images than another, and each reads its own part only.

Layers are never given a batch of length 0: TensorFlow's fused convolutions return one of a wrong
shape. A replica without an image has a filler, and a count of 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from trainers.process.errors import ConfigurationError


class Feed:
    """Hands batches to the replicas of this worker.

    Args:
        strategy: A `tf.distribute.Strategy`.

    Attributes:
        workers: Number of workers, each with an input pipeline.
        worker: The number of this one.
        replicas: Number of replicas of all workers.
        local: Number of replicas of this worker.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self.replicas = strategy.num_replicas_in_sync
        self.workers, self.worker = _place(strategy)
        self.local = self.replicas // self.workers
        self._filler: Any = None

    def context(self) -> tf.distribute.InputContext:
        """What a data pipeline must know to make this worker's part."""
        return tf.distribute.InputContext(self.workers, self.worker, self.replicas)

    def training(
        self, batches: Callable | tf.data.Dataset, start_step: int, parts: int = 1
    ) -> Iterator[list[Any]]:
        """For each step from `start_step` on, its parts: pairs of batches and of their sizes.

        Args:
            batches: `(input_context, start_step) -> tf.data.Dataset`, which gives a batch after
                the other for the local replicas; or a dataset of global batches.
            start_step: Number of steps to leave out.
            parts: In how many parts each replica's batch is cut.
        """
        if isinstance(batches, tf.data.Dataset):
            dataset = share(batches.repeat().skip(start_step), self.context())
        else:
            dataset = batches(self.context(), start_step)
        for group in self._groups(dataset):
            cut = [_cut(batch, parts) for batch in group]
            yield [self._distribute([pieces[part] for pieces in cut]) for part in range(parts)]

    def evaluation(self, batches: Callable | tf.data.Dataset) -> Iterator[Any]:
        """Pairs of batches for the local replicas and their sizes; at the end some have none."""
        if isinstance(batches, tf.data.Dataset):
            dataset = batches.shard(self.workers, self.worker)
        else:
            dataset = batches(self.context())
        for group in self._groups(dataset):
            empty = tf.nest.map_structure(lambda x: x[:0], group[0])
            yield self._distribute(group + [empty] * (self.local - len(group)))

    def _groups(self, dataset):
        if not isinstance(dataset, tf.data.Dataset):
            raise ConfigurationError(
                "Expected the data to be a tf.data.Dataset, or a function that returns one. "
                f"Received: {dataset!r}."
            )
        group = []
        for batch in dataset:
            group.append(batch)
            if len(group) == self.local:
                yield group
                group = []
        if group:
            yield group

    def _distribute(self, group):
        sizes = [size(batch) for batch in group]
        for batch, count in zip(group, sizes, strict=True):
            if count:
                self._filler = tf.nest.map_structure(lambda x: x[:1], batch)
        group = [
            (batch if count else self._fill(batch), tf.constant(count, tf.int32))
            for batch, count in zip(group, sizes, strict=True)
        ]
        if self.local == 1:
            return group[0]
        first = self.worker * self.local
        flat = [tf.nest.flatten(pair) for pair in group]
        values = [
            self.strategy.experimental_distribute_values_from_function(
                lambda context, leaf=leaf: leaf[context.replica_id_in_sync_group - first]
            )
            for leaf in zip(*flat, strict=True)
        ]
        return tf.nest.pack_sequence_as(group[0], values)

    def _fill(self, empty):
        """An image in place of none: one that was seen, or zeros."""
        if self._filler is not None:
            return self._filler
        return tf.nest.map_structure(lambda x: tf.zeros([1, *x.shape[1:]], x.dtype), empty)


def size(batch: Any) -> int:
    """The number of examples of a batch of any structure."""
    return tf.nest.flatten(batch)[0].shape[0]


def share(batches: tf.data.Dataset, context: tf.distribute.InputContext | None) -> tf.data.Dataset:
    """This worker's part of global batches: each cut into a batch for each of its replicas.

    The parts are contiguous and their sizes differ by one at most; a batch smaller than the number
    of replicas leaves some with a batch of length 0. Every worker reads the whole dataset: where
    that is expensive, give the trainer a function of the input context instead.

    Args:
        batches: A dataset of global batches, of any structure.
        context: Says which part is wanted; `None` for all.
    """
    if context is None or context.num_replicas_in_sync == 1:
        return batches
    replicas = context.num_replicas_in_sync
    local = replicas // context.num_input_pipelines
    first = context.input_pipeline_id * local

    def parts(*batch):
        batch = batch[0] if len(batch) == 1 else batch

        def part(replica):
            def cut(x):
                length = tf.shape(x, tf.int64)[0]
                return x[length * replica // replicas : length * (replica + 1) // replicas]

            return tf.nest.map_structure(cut, batch)

        return tf.data.Dataset.range(first, first + local).map(part)

    return batches.flat_map(parts)


def _cut(batch, parts):
    if parts == 1:
        return [batch]
    cuts = [size(batch) * part // parts for part in range(parts + 1)]
    return [
        tf.nest.map_structure(lambda x, a=a, b=b: x[a:b], batch)
        for a, b in zip(cuts, cuts[1:], strict=False)
    ]


def _place(strategy):
    """Number of workers with a pipeline of their own, and the number of this one."""
    resolver = strategy.cluster_resolver
    if resolver is None or isinstance(strategy, tf.distribute.TPUStrategy):
        return 1, 0
    cluster = resolver.cluster_spec().as_dict()
    chiefs, workers = len(cluster.get("chief", ())), len(cluster.get("worker", ()))
    if chiefs + workers == 0:
        return 1, 0
    return chiefs + workers, resolver.task_id + (chiefs if resolver.task_type == "worker" else 0)

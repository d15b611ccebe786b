"""Every image goes to one replica, once; a replica without one has a filler that does not count."""

import functools
import types

import numpy as np
import pytest
import tensorflow as tf

from trainers.process.errors import ConfigurationError
from trainers.training.feed import Feed, share, size


def context(workers, worker, replicas):
    return tf.distribute.InputContext(workers, worker, replicas)


def cluster(jobs, kind, index, replicas):
    """What a feed asks a strategy of several workers for."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(jobs), task_type=kind, task_id=index
    )
    return types.SimpleNamespace(num_replicas_in_sync=replicas, cluster_resolver=resolver)


def workers(count):
    """The feeds of workers with a replica each."""
    jobs = {"worker": [f"host{n}:1" for n in range(count)]}
    return [Feed(cluster(jobs, "worker", n, count)) for n in range(count)]


def dataset(sizes):
    """Batches of these sizes, whose images and labels say which they are."""
    batches, first = [], 0
    for count in [*sizes, 0]:
        numbers = np.arange(first, first + count, dtype=np.float32)
        first += count
        batches.append((np.stack([numbers, -numbers], 1), {"label": numbers.astype(np.int32)}))
    datasets = map(tf.data.Dataset.from_tensors, batches)
    # Of different lengths, and there may be none.
    return functools.reduce(tf.data.Dataset.concatenate, datasets).take(len(sizes))


def labels(batch):
    x, y = batch
    np.testing.assert_array_equal(x[:, 0], y["label"])
    np.testing.assert_array_equal(x[:, 1], -x[:, 0])
    return y["label"].numpy().tolist()


def local(feed, data):
    """Pairs of a batch and its size for each local replica."""
    results = feed.strategy.experimental_local_results if feed.local > 1 else lambda x: [x]
    leaves = [results(leaf) for leaf in tf.nest.flatten(data)]
    return [tf.nest.pack_sequence_as(data, parts) for parts in zip(*leaves, strict=True)]


def counted(pair):
    """The labels of those images that count."""
    batch, count = pair
    assert size(batch) >= 1  # whatever is computed has at least one image
    assert int(count) in (0, size(batch))
    return labels(batch)[: int(count)]


# Shares


@pytest.mark.parametrize(("pipelines", "replicas"), [(1, 2), (2, 2), (3, 3), (2, 6), (1, 5)])
def test_shares_are_the_batch_cut_as_evenly_as_can_be(pipelines, replicas):
    sizes = [12, 7, 5, 1, replicas, 0]
    shares = [
        list(share(dataset(sizes), context(pipelines, n, replicas))) for n in range(pipelines)
    ]
    each = replicas // pipelines
    first = 0
    for step, count in enumerate(sizes):
        parts = [b for part in shares for b in part[step * each : (step + 1) * each]]
        assert sum((labels(part) for part in parts), []) == list(range(first, first + count))
        lengths = [size(part) for part in parts]
        assert max(lengths) - min(lengths) <= 1
        first += count
    assert all(len(part) == each * len(sizes) for part in shares)


@pytest.mark.parametrize("which", [None, context(1, 0, 1)])
def test_one_replica_has_everything(which):
    batches = dataset([3, 2])
    assert share(batches, which) is batches


def test_batches_of_one_tensor_and_of_a_dictionary():
    for batch in (tf.range(5), {"a": tf.range(5), "b": (tf.range(5, 10),)}):
        data = share(tf.data.Dataset.from_tensors(batch), context(1, 0, 2))
        assert tf.nest.map_structure(lambda x: x.dtype, data.element_spec) == (
            tf.nest.map_structure(lambda x: x.dtype, batch)
        )
        parts = list(data)
        assert [size(part) for part in parts] == [2, 3]
        together = tf.nest.map_structure(lambda *x: tf.concat(x, 0), *parts)
        for new, old in zip(tf.nest.flatten(together), tf.nest.flatten(batch), strict=True):
            np.testing.assert_array_equal(new, old)


# Training


@pytest.mark.parametrize(
    ("count", "parts", "start"), [(1, 1, 0), (1, 3, 4), (2, 2, 0), (3, 1, 4), (3, 2, 1)]
)
def test_steps_of_all_workers_are_the_batches_from_a_step_on(count, parts, start):
    sizes = [7, 4, 1]
    feeds = workers(count)
    runs = [feed.training(dataset(sizes), start, parts) for feed in feeds]
    whole = [labels(batch) for batch in dataset(sizes)]
    for step in range(start, start + 4):  # longer than the data, which begin again
        seen = []
        for feed, run in zip(feeds, runs, strict=True):
            pieces = next(run)
            assert len(pieces) == parts
            for piece in pieces:
                (pair,) = local(feed, piece)
                seen += counted(pair)
        assert seen == whole[step % 3]


@pytest.mark.parametrize("parts", [1, 2])
def test_replicas_of_a_strategy_have_the_batch_in_their_order(mirrored, parts):
    feed = Feed(mirrored)
    run = feed.training(dataset([7, 4, 1]), 0, parts)
    for whole in dataset([7, 4, 1]):
        pieces = [local(feed, piece) for piece in next(run)]
        replicas = [sum((counted(piece[r]) for piece in pieces), []) for r in range(2)]
        assert replicas[0] + replicas[1] == labels(whole)
        assert abs(len(replicas[0]) - len(replicas[1])) <= 1


def test_filler_is_an_image_that_was_seen():
    second = workers(2)[0]  # of a batch of one it has none
    run = second.training(dataset([4, 1]), 0)
    next(run)
    ((batch, count),) = next(run)
    assert count == 0
    assert labels(batch) == [0]


def test_filler_before_any_image_is_zero_and_of_the_right_kind():
    first = workers(2)[0]
    ((batch, count),) = next(first.training(dataset([1]), 0))
    assert count == 0
    assert labels(batch) == [0]
    assert tf.nest.map_structure(lambda x: x.dtype, batch) == (tf.float32, {"label": tf.int32})


def test_function_is_asked_for_the_batches_of_this_worker_from_a_step_on(mirrored):
    asked = []

    def batches(where, step):
        asked.append((where.num_input_pipelines, where.input_pipeline_id, step))
        assert where.num_replicas_in_sync == (2 if where.num_input_pipelines == 1 else 3)
        return dataset([2, 3, 4, 5])

    feed = Feed(mirrored)
    steps = list(feed.training(batches, 7))
    # One after the other for the replicas of this worker.
    seen = [[int(count) for _, count in local(feed, step[0])] for step in steps]
    assert seen == [[2, 3], [4, 5]]
    worker = workers(3)[2]
    seen = [int(count) for ((_, count),) in worker.training(batches, 9)]
    assert seen == [2, 3, 4, 5]
    assert asked == [(1, 0, 7), (3, 2, 9)]


# Evaluation


@pytest.mark.parametrize("count", [1, 2, 4])
def test_workers_evaluate_every_image_once(count):
    sizes = [2, 3, 1, 4, 5]
    whole = [labels(batch) for batch in dataset(sizes)]
    seen = []
    for feed in workers(count):
        mine = [counted(pair) for data in feed.evaluation(dataset(sizes)) for pair in [data]]
        assert mine == whole[feed.worker :: count]
        seen += mine
    assert sorted(seen) == sorted(whole)


@pytest.mark.parametrize("sizes", [[], [3], [2, 3], [2, 3, 1], [5, 1, 4, 2, 3]])
def test_replicas_evaluate_every_image_once_and_the_last_ones_may_have_none(mirrored, sizes):
    feed = Feed(mirrored)
    seen = [counted(pair) for data in feed.evaluation(dataset(sizes)) for pair in local(feed, data)]
    whole = [labels(batch) for batch in dataset(sizes)]
    assert seen == whole + [[]] * (len(whole) % 2)


def test_images_of_different_sizes(mirrored):
    def images():
        for side in (3, 5, 4):
            yield np.full((1, side, side + 1, 1), side, np.float32)

    feed = Feed(mirrored)
    data = tf.data.Dataset.from_generator(
        images, output_signature=tf.TensorSpec((1, None, None, 1), tf.float32)
    )
    shapes = [
        (*pair[0].shape[1:3], int(pair[1]))
        for group in feed.evaluation(data)
        for pair in local(feed, group)
    ]
    assert shapes[:3] == [(3, 4, 1), (5, 6, 1), (4, 5, 1)]
    assert shapes[3][2] == 0


def test_function_is_asked_for_the_images_of_this_worker():
    def images(where):
        return dataset([where.input_pipeline_id + 1, where.num_input_pipelines])

    for number, feed in enumerate(workers(3)):
        assert [int(count) for _, count in feed.evaluation(images)] == [number + 1, 3]


# Arguments


@pytest.mark.parametrize("batches", [lambda *_: [1, 2], lambda *_: None, lambda *_: iter([])])
def test_what_is_no_dataset_is_refused(single, batches):
    feed = Feed(single)
    with pytest.raises(ConfigurationError, match="a function that returns one. Received"):
        next(feed.training(batches, 0))
    with pytest.raises(ConfigurationError, match="a function that returns one. Received"):
        next(feed.evaluation(batches))


@pytest.mark.parametrize(
    ("jobs", "kind", "index", "place"),
    [
        ({"worker": ["a:1", "b:1", "c:1"]}, "worker", 2, (3, 2)),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "chief", 0, (3, 0)),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "worker", 0, (3, 1)),
        ({"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "worker", 1, (3, 2)),
        ({}, None, None, (1, 0)),
    ],
)
def test_place_among_the_workers(jobs, kind, index, place):
    feed = Feed(cluster(jobs, kind, index, 6))
    assert (feed.workers, feed.worker) == place
    assert feed.local == 6 // place[0]
    where = feed.context()
    assert (where.num_input_pipelines, where.input_pipeline_id) == place
    assert where.num_replicas_in_sync == 6


def test_place_without_workers(single, mirrored):
    for strategy, replicas in ((single, 1), (mirrored, 2)):
        feed = Feed(strategy)
        places = (feed.workers, feed.worker, feed.local, feed.replicas)
        assert places == (1, 0, replicas, replicas)

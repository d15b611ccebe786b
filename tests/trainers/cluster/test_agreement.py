"""Each replica hears what all say; between processes see `test_strategy.py`."""

import numpy as np
import pytest
import tensorflow as tf

from trainers.cluster.agreement import any_of, everyones, gathered

CONTENTS = [
    None,
    True,
    0,
    -1.5,
    "",
    "é𝄞",
    "x" * 3000,
    [],
    {"a": {"b": [1, None, 0.1]}, "é": 1e-300},
]


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: repr(content)[:20])
def test_what_is_said_comes_back_once_a_replica(single, mirrored, content):
    assert gathered(single, content) == [content]
    assert gathered(mirrored, content) == [content, content]


@pytest.mark.parametrize("flag", [True, False])
def test_any_of(single, mirrored, flag):
    for strategy in (single, mirrored):
        assert any_of(strategy, flag) is flag
        assert any_of(strategy, np.bool_(flag)) is flag


@pytest.mark.parametrize("dtype", ["int32", "int64", "float32", "float64"])
@pytest.mark.parametrize("length", [0, 1, 5])
def test_rows_are_exact_and_in_their_order(single, mirrored, dtype, length):
    rng = np.random.default_rng(0)
    if dtype.startswith("int"):
        limits = np.iinfo(dtype)
        rows = rng.integers(limits.min, limits.max, size=(2, length), dtype=dtype)
    else:
        rows = (rng.normal(size=(2, length)) * 10.0 ** rng.integers(-30, 30, length)).astype(dtype)
    for strategy in (single, mirrored):
        replicas = strategy.num_replicas_in_sync

        def row():
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            return tf.constant(rows)[number]

        @tf.function(autograph=False)
        def exchange(strategy=strategy, replicas=replicas, row=row):
            return strategy.run(lambda: everyones(row(), replicas))

        for result in strategy.experimental_local_results(exchange()):
            np.testing.assert_array_equal(result, rows[:replicas], strict=True)


def test_number_that_is_none_stays_with_its_replica(mirrored):
    @tf.function(autograph=False)
    def exchange():
        def row():
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            return tf.constant([[np.nan, 1.0], [2.0, np.inf]])[number]

        return mirrored.run(lambda: everyones(row(), 2))

    result = mirrored.experimental_local_results(exchange())[0]
    np.testing.assert_array_equal(result, [[np.nan, 1.0], [2.0, np.inf]])

"""What the tests are seeded by: the same numbers each time, whoever drew before."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import random_seed

from tests.seeds import Seeds


@pytest.fixture
def seeds(monkeypatch):
    monkeypatch.setattr(random_seed, "get_seed", random_seed.get_seed)  # undone afterwards
    seeds = Seeds()
    seeds.watch()
    seeds.set(keras)
    return seeds


@tf.function(autograph=False)
def _traced():
    return tf.random.uniform((4,))


DRAWS = {
    "eager": lambda: tf.random.normal((4,)),
    "seeded": lambda: tf.random.normal((4,), seed=3),
    "graph": _traced,
    "shuffled": lambda: list(tf.data.Dataset.range(30).shuffle(30).as_numpy_iterator()),
    "keras": lambda: keras.random.normal((4,)),
    "initializer": lambda: keras.initializers.GlorotUniform()((4, 4)),
    "numpy": lambda: np.random.normal(size=4),  # noqa: NPY002
}


@pytest.mark.parametrize("name", DRAWS)
def test_each_time_the_same_is_drawn(name, seeds):
    first = np.array(DRAWS[name]())
    assert not np.array_equal(first, DRAWS[name]()), "a test of nothing"
    for _ in range(2):
        seeds.set(keras)
        np.testing.assert_array_equal(first, DRAWS[name]())


def test_another_seed_in_between_is_undone(seeds):
    first = tf.random.normal((4,)).numpy()
    keras.utils.set_random_seed(5)
    seeds.set(keras)
    np.testing.assert_array_equal(first, tf.random.normal((4,)))


def test_kernels_are_forgotten_after_a_draw_alone(seeds, monkeypatch):
    asked, set_seed = [], tf.random.set_seed
    monkeypatch.setattr(tf.random, "set_seed", lambda seed: asked.append(seed) or set_seed(seed))
    tf.ones((3,)) + 1.0
    seeds.set(keras)
    assert asked == []
    tf.random.normal((4,))
    seeds.set(keras)
    assert asked == [0]
    seeds.forget()
    seeds.set(keras)
    assert asked == [0, 0]

"""The strategies of the tests: one object of each kind a process.

Two that reduce by collectives would mix them up: TensorFlow numbers them by process.
"""

import pytest
import tensorflow as tf

from trainers.cluster import strategy


@pytest.fixture(scope="session")
def single():
    """The default strategy, of one replica."""
    return tf.distribute.get_strategy()


@pytest.fixture(scope="session")
def mirrored():
    """Two replicas, on the two logical devices of every test process."""
    return strategy.get("mirrored")

"""The strategies of the tests: one object of each kind a process; and a run of two workers.

Two that reduce by collectives would mix them up: TensorFlow numbers them by process.
"""

import pytest
import tensorflow as tf

from tests.trainers.drill import program, running
from trainers.cluster import strategy


@pytest.fixture(scope="session")
def single():
    """The default strategy, of one replica."""
    return tf.distribute.get_strategy()


@pytest.fixture(scope="session")
def mirrored():
    """Two replicas, on the two logical devices of every test process."""
    return strategy.get("mirrored")


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The folders of runs on two workers that nothing happened to, by the name of the model."""
    folder = tmp_path_factory.mktemp("undisturbed")
    running.finish(folder, ",".join(program.MODELS))
    return {name: folder / name for name in program.MODELS}

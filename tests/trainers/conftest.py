"""The strategies of the tests: one object of each kind a process; and a run of two workers.

Two that reduce by collectives would mix them up: TensorFlow numbers them by process.
"""

import pytest
import tensorflow as tf

from tests.trainers.drill import running
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
    """The folder of a run on two workers that nothing happened to, of a model."""
    folder = tmp_path_factory.mktemp("undisturbed")

    def run(model):
        if not (folder / model).exists():
            # The two that tests need which are not slow share the start of TensorFlow.
            models = ("conv", "bilevel") if model in ("conv", "bilevel") else (model,)
            running.finish(folder, ",".join(models))
        return folder / model

    return run

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
    """The folder of a run of a model on two workers that nothing happened to."""
    folders = {}

    def run(model):
        if model not in folders:
            # Those of which more is asked at once: most of the time is TensorFlow's start.
            models = ["conv"] if model == "conv" else ["bilevel", "equilibrium"]
            folder = tmp_path_factory.mktemp(model)
            running.finish(folder, ",".join(models))
            folders.update({name: folder / name for name in models})
        return folders[model]

    return run

"""SavedModels and pictures for the tests of restoration."""

import numpy as np
import pytest

from tests.experiments.restoration import saved_models

_MODELS = {
    "grey": saved_models.pointwise,
    "colour": lambda: saved_models.pointwise(channels=3),
    "masked": saved_models.masked,
    "scaled": saved_models.scaled,
    "doubled": saved_models.doubled,
    "fourier": saved_models.fourier,
}


@pytest.fixture(scope="session")
def saved(tmp_path_factory):
    """From the name of a small model to the folder with its versions."""
    folder, made = tmp_path_factory.mktemp("models"), {}

    def find(name):
        if name not in made:
            _MODELS[name]().save(folder / name / "1")
            made[name] = folder / name
        return made[name]

    return find


@pytest.fixture
def rng():
    return np.random.default_rng(0)

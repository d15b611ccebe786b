"""SavedModels of this machine: which version is taken, and what is no model."""

import shutil

import numpy as np
import pytest

from experiments.restoration.local import LocalModel
from tests.experiments.restoration import saved_models
from trainers.process.errors import ConfigurationError


def test_the_highest_version_is_taken(saved, tmp_path):
    for version in ("2", "10", "9"):
        shutil.copytree(saved("grey") / "1", tmp_path / version)
    (tmp_path / "11").mkdir()  # not a model yet
    assert LocalModel(tmp_path).where == repr(str(tmp_path / "10"))
    assert LocalModel(tmp_path / "9").where == repr(str(tmp_path / "9"))


def test_what_it_takes(saved):
    grey, masked, fourier = (LocalModel(saved(name)) for name in ("grey", "masked", "fourier"))
    assert (grey.channels, grey.data, grey.is_complex) == (1, [], False)
    assert LocalModel(saved("colour")).channels == 3
    assert masked.data == ["data"]
    assert (fourier.channels, fourier.is_complex) == (None, True)


def test_no_model(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "missing", tmp_path / "file", tmp_path):
        with pytest.raises(ConfigurationError, match="Expected --model to be a SavedModel"):
            LocalModel(path)


@pytest.mark.parametrize("kind", ["cut", "foreign", "no variables"])
def test_a_damaged_model(saved, tmp_path, kind):
    folder = tmp_path / "model"
    shutil.copytree(saved("grey") / "1", folder)
    if kind == "cut":
        content = (folder / "saved_model.pb").read_bytes()
        (folder / "saved_model.pb").write_bytes(content[: len(content) // 2])
    elif kind == "foreign":
        (folder / "saved_model.pb").write_bytes(b"hello")
    else:
        shutil.rmtree(folder / "variables")
    with pytest.raises(ConfigurationError, match="cannot be loaded: it is damaged"):
        LocalModel(folder)


def test_a_model_without_diagnoses(tmp_path):
    saved_models.pointwise().save(tmp_path / "plain", diagnose=False)
    with pytest.raises(ConfigurationError, match="signature `diagnose`.*has none. Export it anew"):
        LocalModel(tmp_path / "plain")


def test_answers_are_a_row_for_each_image(saved):
    model = LocalModel(saved("grey"))
    images = np.stack([np.zeros((4, 5, 1)), np.ones((4, 5, 1))])
    answer = model.diagnose(images, {})
    np.testing.assert_allclose(answer.reconstruction, 0.5 + 0.5 * images)
    assert answer.converged.tolist() == [False, True]
    assert answer.steps.tolist() == [5, 5]

"""`experiments.serve_check` on a model of this machine in the place of one at a server."""

import json

import numpy as np
import pytest

from experiments import serve_check
from experiments.restoration import connection, local, summary
from trainers.process import exits


@pytest.fixture
def check(run_program, monkeypatch):
    """Runs the program on a model; returns how it ended and what it printed."""

    def run(model, *arguments):
        monkeypatch.setattr(connection, "connect", lambda *_: model)
        serve_check.FLAGS.unparse_flags()
        return run_program(serve_check, "--server=here:1", "--name=mine", *arguments)

    yield run
    serve_check.FLAGS.unparse_flags()


@pytest.fixture
def card(tmp_path):
    """The folder of a version with the card of a grey model."""
    rows = {"tolerance": {"shape": [None]}, "max_steps": {"shape": [None]}}
    inputs = {"measurement": {"shape": [None, None, None, 1]}, **rows}
    content = {"name": "bilevel", "task": "denoising", "versions": {"deq_keras": "0.1"}}
    content["signatures"] = {"diagnose": {"inputs": inputs}}
    (tmp_path / "assets.extra").mkdir()
    (tmp_path / "assets.extra" / "model_card.json").write_text(json.dumps(content))
    return tmp_path


def test_a_good_answer(check, saved, card, capsys):
    assert check(local.LocalModel(saved("grey")), f"--card={card}", "--size=9") == 0
    out = capsys.readouterr().out
    assert "bilevel, denoising, deq_keras 0.1" in out
    assert "image of shape (1, 9, 9, 1)" in out
    assert "Converged  yes" in out


def test_data_and_complex_measurements(check, saved):
    for name in ("masked", "fourier"):
        assert check(local.LocalModel(saved(name))) == 0


def test_another_model_than_that_of_the_card(check, saved, card, capsys):
    assert check(local.LocalModel(saved("colour")), f"--card={card}") == exits.CONFIG
    assert "serves another model" in capsys.readouterr().err
    assert check(local.LocalModel(saved("grey")), f"--card={card / 'no'}") == exits.CONFIG
    assert "model_card.json" in capsys.readouterr().err


def test_wrong_answers_and_no_convergence(check, saved, monkeypatch, capsys):
    model = local.LocalModel(saved("grey"))
    right = model.infer

    def spoilt(**changes):
        monkeypatch.setattr(model, "infer", lambda tensors: {**right(tensors), **changes})
        return check(model)

    assert spoilt(converged=np.array([False])) == summary.NOT_CONVERGED
    assert spoilt(residual=np.array([np.nan])) == exits.BAD_DATA
    assert spoilt(steps=np.array([1, 2])) == exits.BAD_DATA
    assert "Expected a row for one image" in capsys.readouterr().err

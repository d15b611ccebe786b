"""The command `deq-keras`: what it says, and which programs it finds; without TensorFlow."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import deq_keras_programs
from deq_keras import __version__
from trainers.process import exits

ROOT = Path(__file__).resolve().parents[1]


def test_each_command_is_a_program():
    for module, words in deq_keras_programs.PROGRAMS.values():
        assert words
        assert (ROOT / "experiments" / f"{module}.py").is_file()
    assert (ROOT / deq_keras_programs._DEMO["--config"]).is_file()
    assert (deq_keras_programs.USAGE, deq_keras_programs.CONFIG) == (exits.USAGE, exits.CONFIG)


def test_what_it_says(capsys):
    assert deq_keras_programs.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in deq_keras_programs.PROGRAMS)
    assert deq_keras_programs.main([]) == exits.USAGE
    assert deq_keras_programs.main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out
    assert deq_keras_programs.main(["evalute"]) == exits.USAGE
    error = capsys.readouterr().err
    assert "Did you mean 'evaluate'?" in error
    assert "serve-check" in error


def test_without_a_checkout_it_says_how(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    # A package of the same name that is not ours, and the library alone.
    for name in ("experiments", "site/deq_keras"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
    spec = importlib.util.spec_from_file_location("x", tmp_path / "site/deq_keras/__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    assert deq_keras_programs.main(["train", "--help"]) == exits.CONFIG
    assert "pip install -e" in capsys.readouterr().err
    monkeypatch.chdir(ROOT)
    assert deq_keras_programs.checkout() == ROOT


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("restore", "--help"), 0, "--protocol"),
        (("restore", "a.png"), exits.CONFIG, "Expected INPUT..."),
        (("serve-check", "--server=x"), exits.CONFIG, "--name"),
        (("serve-check", "--sever=x"), exits.USAGE, "--help lists the flags"),
    ],
)
def test_it_runs_programs_from_anywhere_without_tensorflow(arguments, code, words, tmp_path):
    block = "import sys; sys.modules['tensorflow'] = None; import deq_keras_programs as p; "
    done = subprocess.run(
        [sys.executable, "-c", block + f"sys.exit(p.main({list(arguments)}))"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    assert words in done.stdout + done.stderr

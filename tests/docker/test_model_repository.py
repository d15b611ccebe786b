"""`make_repository.py`: a model repository of an export, and of nothing else.

`make serving-test` serves what it makes with a real Triton.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

TRITON = Path(__file__).resolve().parents[2] / "docker" / "serving" / "triton"
SECONDS = 60

SIGNATURES = {
    "serving_default": {
        "inputs": {"measurement": {"dtype": "complex64", "shape": [None, None, None, 1]}},
        "outputs": {"reconstruction": {"dtype": "float32", "shape": [None, None, None, 1]}},
    },
    "diagnose": {
        "inputs": {
            "measurement": {"dtype": "complex64", "shape": [None, None, None, 1]},
            "tolerance": {"dtype": "float32", "shape": [None]},
            "max_steps": {"dtype": "int32", "shape": [None]},
        },
        "outputs": {"converged": {"dtype": "bool", "shape": [None]}},
    },
    "encoded": {
        "inputs": {"measurement_bytes": {"dtype": "string", "shape": [None]}},
        "outputs": {"reconstruction_bytes": {"dtype": "string", "shape": [None]}},
    },
}


def _export(folder, signatures=SIGNATURES):
    """A version folder with the files of an export; the model itself is not looked at."""
    for name in ("variables", "assets", "assets.extra"):
        (folder / name).mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"graph")
    (folder / "variables" / "variables.index").write_bytes(b"weights")
    card = {"name": "denoiser", "signatures": signatures}
    (folder / "assets.extra" / "model_card.json").write_text(json.dumps(card))
    return folder


def _make(*arguments):
    command = [sys.executable, TRITON / "make_repository.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)


def test_a_repository_of_the_latest_version(tmp_path):
    export = tmp_path / "denoiser"
    for version in ("2", "10"):
        _export(export / version)
    done = _make(export, f"--output={tmp_path / 'triton'}")
    assert done.returncode == 0, done.stderr
    made = {path.name for path in (tmp_path / "triton").iterdir()}
    assert made == {"denoiser", "denoiser_default", "denoiser_encoded"}
    for name in made:
        model = tmp_path / "triton" / name
        assert {path.name for path in model.iterdir()} == {"10", "config.pbtxt"}
        assert (model / "10" / "model.py").read_text() == (TRITON / "model.py").read_text()
        assert (model / "10" / "saved_model" / "variables" / "variables.index").is_file()


def test_the_configuration_says_what_the_card_says(tmp_path):
    _export(tmp_path / "denoiser" / "1")
    output = f"--output={tmp_path}"
    done = _make(tmp_path / "denoiser" / "1", output, "--name=blur", "--signatures=diagnose")
    assert done.returncode == 0, done.stderr
    text = " ".join((tmp_path / "blur" / "config.pbtxt").read_text().split())
    assert not (tmp_path / "blur_encoded").exists()
    assert 'name: "blur" backend: "python" max_batch_size: 0' in text
    # Complex is FP32 with one more axis; what may be left out is optional, the measurement is not.
    complex_one = 'name: "measurement" data_type: TYPE_FP32 dims: [-1, -1, -1, 1, 2] }'
    assert complex_one in text
    assert 'name: "tolerance" data_type: TYPE_FP32 dims: [-1] optional: true }' in text
    assert 'name: "max_steps" data_type: TYPE_INT32 dims: [-1] optional: true }' in text
    assert 'name: "converged" data_type: TYPE_BOOL dims: [-1] }' in text
    assert 'key: "signature" value { string_value: "diagnose" }' in text


def test_a_version_is_not_replaced(tmp_path):
    export = _export(tmp_path / "denoiser" / "1")
    assert _make(export, f"--output={tmp_path / 'triton'}").returncode == 0
    done = _make(export, f"--output={tmp_path / 'triton'}")
    assert done.returncode == 1
    assert "has version 1 already" in done.stderr


def _without_model(export):
    (export / "saved_model.pb").unlink()


def _without_card(export):
    (export / "assets.extra" / "model_card.json").unlink()


def _with_code(export):
    (export / "run_me.py").write_text("print('hello')")


def _with_a_link(export):
    (export / "assets" / "elsewhere").symlink_to(export.parent)


def _with_half_a_card(export):
    card = export / "assets.extra" / "model_card.json"
    card.write_text(card.read_text()[:60])


def _with_a_card_of_something_else(export):
    (export / "assets.extra" / "model_card.json").write_text('{"name": "of another program"}')


def _with_an_unknown_type(export):
    card = export / "assets.extra" / "model_card.json"
    card.write_text(card.read_text().replace('"bool"', '"resource"'))


def _with_a_name_that_breaks_out(export):
    card = export / "assets.extra" / "model_card.json"
    card.write_text(card.read_text().replace('"converged"', '"a b"'))


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_without_model, "has no saved_model.pb"),
        (_without_card, "has no assets.extra/model_card.json"),
        (_with_code, "received run_me.py as well"),
        (_with_a_link, "received elsewhere as well"),
        (_with_half_a_card, "damaged"),
        (_with_a_card_of_something_else, "KeyError: 'signatures'"),
        (_with_an_unknown_type, "KeyError: 'resource'"),
        (_with_a_name_that_breaks_out, "received 'a b'"),
    ],
)
def test_a_foreign_folder_is_refused(tmp_path, damage, said):
    export = _export(tmp_path / "denoiser" / "1")
    damage(export)
    done = _make(export.parent, f"--output={tmp_path / 'triton'}")
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "triton").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no_such_folder",), "is no folder"),
        ((".",), "without any"),
        (("denoiser", "--signatures=diagnose,restore"), "received ['restore']"),
        (("denoiser", "--name=../up"), "use --name"),
        (("denoiser", "--instances=0"), "--instances=1 or more"),
    ],
)
def test_wrong_arguments_are_refused(tmp_path, arguments, said):
    _export(tmp_path / "denoiser" / "1")
    done = _make(tmp_path / arguments[0], f"--output={tmp_path / 'triton'}", *arguments[1:])
    assert done.returncode != 0
    assert said in done.stderr

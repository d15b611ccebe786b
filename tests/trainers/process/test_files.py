"""Files are whole, or as they were."""

import json
import math
import os
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags

from trainers.process import files, folder_flag
from trainers.process.files import finite, save_weights, write_json


def test_write_json(tmp_path):
    path = tmp_path / "a.json"
    content = {
        "nan": math.nan,
        "list": [np.float32(0.5), -math.inf, (1, np.int64(2))],
        "array scalar": np.float64("nan"),
        3: {"flag": np.bool_(True), "none": None, "text": "é"},
    }
    write_json(path, content)
    assert json.loads(path.read_text("utf-8")) == {
        "nan": None,
        "list": [0.5, None, [1, 2]],
        "array scalar": None,
        "3": {"flag": True, "none": None, "text": "é"},
    }
    assert os.listdir(tmp_path) == ["a.json"]


def test_numbers_come_back_exactly(tmp_path):
    numbers = np.random.default_rng(0).normal(size=50) * 10.0 ** np.arange(-25, 25)
    write_json(tmp_path / "a.json", list(numbers))
    read = json.loads((tmp_path / "a.json").read_text())
    np.testing.assert_array_equal(read, numbers)


def test_finite_leaves_what_json_has():
    content = {"a": [1, 2.5, "x", None, True], "b": {"c": 10**30}}
    assert finite(content) == content
    assert finite(content) is not content


@pytest.mark.parametrize("failure", ["content", "disk", "rename"])
def test_write_json_leaves_the_old_file_if_it_fails(tmp_path, monkeypatch, failure):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def half(self, text, *args, **kwargs):
        with open(self, "w") as file:
            file.write(text[:3])
        raise OSError("No space left on device")

    def broken(*args):
        raise OSError("killed")

    if failure == "disk":
        monkeypatch.setattr(type(path), "write_text", half)
    if failure == "rename":
        monkeypatch.setattr(files.os, "replace", broken)
    with pytest.raises((OSError, TypeError)):
        write_json(path, {"new": object() if failure == "content" else 2})
    assert json.loads(path.read_text("utf-8")) == {"old": 1}


def tiny():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    return model


def test_save_weights_round_trip_and_old_file_kept(tmp_path, monkeypatch):
    path = tmp_path / "final.weights.h5"
    net = tiny()
    save_weights(net, path)
    assert os.listdir(tmp_path) == [path.name]
    keras.utils.set_random_seed(99)
    other = tiny()
    other.load_weights(path)
    for new, old in zip(other.get_weights(), net.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)

    def half(filepath):
        with open(filepath, "wb") as file:
            file.write(b"half")
        raise OSError("No space left on device")

    content = path.read_bytes()
    monkeypatch.setattr(net, "save_weights", half)
    with pytest.raises(OSError, match="No space"):
        save_weights(net, path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["lr=[1,2]", "a*b?", "back\\slash", "plain"])
def test_saved_model_is_read_from_a_folder_of_any_name(tmp_path, name):
    module = tf.Module()
    module.weight = tf.Variable(2.0)
    module.double = tf.function(lambda: 2 * module.weight, input_signature=[])
    tf.saved_model.save(module, str(tmp_path / name))
    with files.literal(tmp_path / name) as readable:
        loaded = tf.saved_model.load(readable)
    assert loaded.double() == 4.0  # afterwards too
    assert Path(readable).exists() == (name == "plain")
    assert (tmp_path / name / "saved_model.pb").exists()  # the link has gone, not what it led to


def test_flag_of_a_folder_knows_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/h/somebody")
    values = flags.FlagValues()
    flag = folder_flag.define("place", None, "A folder.", flag_values=values)
    for text, expected in (("~/x", "/h/somebody/x"), ("a/~b", "a/~b"), ("", "")):
        values(["program", f"--place={text}"])
        assert flag.value == expected
    # It is a flag of this module, and its --help shows it.
    assert [one.name for one in values.get_key_flags_for_module(__name__)] == ["place"]

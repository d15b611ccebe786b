"""Weights of other people's models: files that hold them, and what becomes of them."""

import json
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl.testing import flagsaver

import deq_keras as dk
from experiments import convert, tensor_files
from tests.presets.test_pytorch import crr_tensors, drunet_tensors, wcrr_tensors
from trainers.process import exits
from trainers.process.errors import ConfigurationError


@pytest.fixture(autouse=True)
def unset_flags():
    saved = flagsaver.save_flag_values(convert.FLAGS)
    yield
    flagsaver.restore_flag_values(saved, convert.FLAGS)


def single(tensors):
    return {name: np.asarray(value, np.float32) for name, value in tensors.items()}


def write_safetensors(path, tensors):
    """As its specification says: length of the header, header, bytes."""
    header, content = {"__metadata__": {"format": "pt"}}, b""
    for name, value in tensors.items():
        data = value.tobytes()
        offsets = [len(content), len(content) + len(data)]
        header[name] = {"dtype": "F32", "shape": value.shape, "data_offsets": offsets}
        content += data
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + content)


def test_a_prior_becomes_a_preset(tmp_path, program):
    tensors, folder = single(wcrr_tensors()), tmp_path / "mine"
    np.savez(tmp_path / "weights.npz", **tensors)
    ended = program(
        convert,
        "--from=wcrr",
        f"--weights={tmp_path / 'weights.npz'}",
        f"--output={folder}",
        "--licence=MIT",
        "--noise=0.1",
        "--weak_convexity=0.5",
    )
    assert ended.code == 0, ended.errors
    card = dk.presets.card(folder)
    assert (card["licence"], card["noise"], card["weight"]) == ("MIT", 0.1, 1.0)
    expected = dk.presets.pytorch.wcrr(tensors, 0.5)
    assert card["parameters"] == expected.count_params()
    u, level = tf.random.uniform((1, 12, 10, 1)), tf.constant([0.1])
    found = dk.presets.load(folder)
    np.testing.assert_array_equal(found.gradient(u, level), expected.gradient(u, level))


def test_a_denoiser_becomes_a_keras_file(tmp_path, program):
    tensors, output = single(drunet_tensors()), tmp_path / "new" / "drunet.keras"
    write_safetensors(tmp_path / "weights.safetensors", tensors)
    flags = f"--weights={tmp_path / 'weights.safetensors'}", f"--output={output}"
    ended = program(convert, "--from=drunet", *flags)
    assert ended.code == 0, ended.errors
    inputs = tf.random.uniform((1, 8, 8, 1)), tf.constant([0.1])
    expected = dk.presets.pytorch.drunet(tensors)(inputs)
    np.testing.assert_array_equal(keras.models.load_model(output)(inputs), expected)


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--weights={file}", "--output={folder}"], exits.CONFIG, "'--licence'"),
        (["--weights={file}", "--output=a.keras", "--licence=x"], exits.CONFIG, "a folder for crr"),
        (["--weights=none.npz", "--output={folder}", "--licence=x"], exits.CONFIG, "no file"),
        (["--weights={file}", "--output={folder}", "--licence=x"], exits.CONFIG, "tensor 'mu'"),
        (["--output={folder}", "--licence=x", "--wieghts=a"], exits.USAGE, "weights"),
    ],
)
def test_what_does_not_fit(flags, code, says, tmp_path, program):
    tensors = single(crr_tensors())
    del tensors["mu"]
    np.savez(tmp_path / "weights.npz", **tensors)
    places = {"file": tmp_path / "weights.npz", "folder": tmp_path / "mine"}
    ended = program(convert, "--from=crr", *(flag.format(**places) for flag in flags))
    assert ended.code == code
    assert says in ended.errors
    assert not (tmp_path / "mine").exists()


def test_files_that_cannot_be_read(tmp_path, monkeypatch):
    for name in ("damaged.npz", "damaged.safetensors"):
        (tmp_path / name).write_bytes(b"\x05" + 60 * b"\0")
        with pytest.raises(ConfigurationError, match=f"{name}' cannot be read"):
            tensor_files.read(tmp_path / name)
    (tmp_path / "weights.pth").touch()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ConfigurationError, match="PyTorch, which is not installed.*numpy.savez"):
        tensor_files.read(tmp_path / "weights.pth")
    np.savez(tmp_path / "pickled.npz", a=np.array([{}], object))
    with pytest.raises(ConfigurationError, match="cannot be read.*pickle"):
        tensor_files.read(tmp_path / "pickled.npz")

"""Exports: what a fresh process with TensorFlow alone is answered, and what is refused."""

import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import deq_keras as dk
from trainers import export as exporter
from trainers.export.verification import Unlike
from trainers.process.errors import ConfigurationError

ASKING = Path(__file__).with_name("asking.py")
RNG = np.random.default_rng(0)
HEIGHT, WIDTH = 12, 9


def smooth(count, height, width):
    coarse = RNG.uniform(0.2, 0.8, (count, 3, 3, 1)).astype("float32")
    return tf.image.resize(coarse, (height, width)).numpy()


def inpainting():
    measurement, mask = keras.Input((None, None, 1)), keras.Input((None, None, 1))
    # Zeros beyond the border are the quickest to trace, which happens many times; sharp experts are
    # well conditioned.
    prior = dk.priors.FieldsOfExperts(
        2, 3, sharpness=5.0, padding="zero", filters_initializer="first_order"
    )
    layer = dk.layers.Variational(
        dk.operators.Mask(), prior, weight=0.5, solver=dk.solvers.LBFGS(tolerance=1e-6)
    )
    return keras.Model([measurement, mask], layer([measurement, mask]))


def sample(count, height, width):
    mask = (RNG.uniform(size=(count, height, width, 1)) < 0.8).astype("float32")
    return [smooth(count, height, width) * mask, mask]


def png(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def model():
    return inpainting()


@pytest.fixture(scope="module")
def exported(model, tmp_path_factory):
    """The folder of the version, and what lies beside it."""
    card = exporter.Card(description="Inpainting of tests.", metrics={"PSNR (dB)": 30.0})
    samples = [sample(2, 7, 11), sample(2, 8, 8)]
    folder = tmp_path_factory.mktemp("models") / "inpaint"
    return exporter.export(model, folder, samples=samples, card=card, max_pixels=64 * 64)


@pytest.fixture(scope="module")
def asked(exported, tmp_path_factory):
    """What is put to the export, and its answers."""
    y, mask = sample(2, HEIGHT, WIDTH)
    grey = [np.uint8(255 * smooth(1, h, w)[0, :, :, 0]) for h, w in ((10, 7), (7, 12))]
    words = np.uint16(65535 * smooth(1, 6, 6)[0, :, :, 0])
    jpeg = io.BytesIO()
    Image.fromarray(grey[1]).save(jpeg, "JPEG")
    files = [png(grey[0]), jpeg.getvalue(), png(words)]
    masks = [png(np.full(image.shape, 255, np.uint8)) for image in (*grey, words)]
    header = struct.pack(">IIBBBBB", 2**20, 2**20, 8, 0, 0, 0, 0)
    bad = {
        "empty": b"",
        "text": b"no image",
        "cut": files[0][:50],
        "bomb": b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + header + b"\1\2\3\4",
        "jpeg": b"\xff\xd8\xff\xe0 and no more",
    }
    arrays = {
        "y": y,
        "mask": mask,
        "target": smooth(2, HEIGHT, WIDTH),
        "integers": np.uint8(np.round(255 * y)),
        "files": np.array(files),
        "masks": np.array(masks),
        "bad": np.array(list(bad.values())),
        "bad names": np.array(list(bad)),
    }
    folder = tmp_path_factory.mktemp("asked")
    np.savez(folder / "inputs.npz", **arrays)
    done = subprocess.run(
        [sys.executable, "-I", str(ASKING), str(exported), str(folder / "inputs.npz")],
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return arrays, json.loads(done.stdout.splitlines()[-1]), done.stderr


def test_answers_are_those_of_the_model(model, asked):
    arrays, found, _ = asked
    expected = tf.function(model, autograph=False)([arrays["y"], arrays["mask"]])
    np.testing.assert_allclose(found["batch"]["reconstruction"], expected, atol=1e-5)
    singles = np.concatenate([one["reconstruction"] for one in found["singles"]])
    np.testing.assert_allclose(singles, expected, atol=1e-5)
    np.testing.assert_array_equal(found["batch"]["reconstruction"], found["own"]["reconstruction"])


def test_convergence_is_told(model, asked):
    arrays, found, _ = asked
    # In a graph, like the export: operation by operation the last digits differ.
    solve = tf.function(model.layers[-1].solve, autograph=False)
    solution = solve([tf.constant(arrays["y"]), tf.constant(arrays["mask"])])
    assert found["own"]["converged"] == [True, True]
    np.testing.assert_allclose(found["own"]["steps"], solution.steps, atol=2)
    assert max(found["own"]["residual"]) <= 1e-5
    limited = found["limited"]
    assert limited["converged"] == [True, False]
    assert limited["steps"][0] < found["own"]["steps"][0]
    assert limited["steps"][1] == 2
    assert 1e-5 < limited["residual"][0] <= 1e-1
    assert limited["residual"][1] > 1e-5
    image = np.array(limited["reconstruction"])
    error = np.sqrt(np.mean((image - found["own"]["reconstruction"]) ** 2, axis=(1, 2, 3)))
    # Not certified, for pixels outside the mask have no strong convexity: estimates, which are near
    # where the solution is.
    assert limited["certified"] == [False, False]
    np.testing.assert_allclose(limited["error_bound"][0], error[0], rtol=0.5)
    assert error[1] > error[0]


def test_derivatives_are_right(asked):
    arrays, found, _ = asked
    gradient = np.array(found["gradient"]["gradient"])
    np.testing.assert_allclose(found["tape"], gradient, rtol=1e-3, atol=1e-6)
    assert np.abs(gradient).max() > 1e-5


def test_loading_warns_of_nothing(asked):
    """Derivatives that TensorFlow does not save are left to it."""
    assert "custom gradient" not in asked[2]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nan", "Expected finite numbers"),
        ("infinite mask", "Expected finite numbers"),
        ("empty", "one at least"),
        ("no pixels", "Expected an image"),
        ("rank", "not compatible"),
        ("channels", "not compatible"),
        ("counts", "Expected as many of each input"),
        ("large", "Expected at most 4096 pixels"),
        ("limits", "Expected tolerance to have one number"),
    ],
)
def test_wrong_requests_are_refused(asked, name, message):
    assert asked[1]["refused"][name].startswith("InvalidArgumentError")
    assert message in asked[1]["refused"][name]


def test_after_wrong_requests_the_next_is_right(asked):
    assert asked[1]["again"] == asked[1]["batch"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("empty", "Expected PNG or JPEG"),
        ("text", "Expected PNG or JPEG"),
        ("cut", "Invalid PNG data"),
        ("bomb", "Expected at most 4096 pixels"),
        ("jpeg", "Invalid JPEG data"),
    ],
)
def test_what_is_no_image_is_refused(asked, name, message):
    assert message in asked[1]["refused files"][name]


def test_files_of_several_sizes_and_depths(model, asked):
    arrays, found, _ = asked
    encoded = found["encoded"]
    assert encoded["depths"] == [8, 8, 16]
    assert encoded["converged"] == [True, True, True]
    for number, content in enumerate(arrays["files"].tolist()):
        array = np.asarray(Image.open(io.BytesIO(content)))
        image = array.astype("float32")[None, :, :, None] / np.iinfo(array.dtype).max
        expected = model([image, np.ones_like(image)]).numpy()[0]
        scale = 255 if encoded["depths"][number] == 8 else 65535
        levels = np.array(encoded["images"][number], float) / 65535 * scale
        # A JPEG is decoded by another library: a level or two.
        slack = 2.5 if number == 1 else 0.51 + 65535e-6
        np.testing.assert_allclose(levels, np.clip(expected, 0, 1) * scale, atol=slack)


def test_integers(asked):
    _, found, _ = asked
    expected = np.clip(found["of integers"]["reconstruction"], 0, 1) * 255
    np.testing.assert_allclose(found["uint8"]["reconstruction"], expected, atol=0.501)


# What is in the folder


def test_a_folder_is_data_alone(exported):
    files = {path.relative_to(exported).as_posix() for path in exported.rglob("*")}
    assert {path for path in files if (exported / path).is_file()} == {
        "saved_model.pb",
        "fingerprint.pb",
        "variables/variables.index",
        "variables/variables.data-00000-of-00001",
        "assets.extra/model_card.json",
        "assets.extra/model_card.md",
        "assets.extra/tf_serving_warmup_requests",
    }
    assert [path.name for path in exported.parent.iterdir()] == ["1"]
    mode = (exported / "saved_model.pb").stat().st_mode
    assert mode & 0o044 or not (Path(__file__).stat().st_mode & 0o044)


def test_the_card(model, exported):
    card = json.loads((exported / "assets.extra" / "model_card.json").read_text("utf-8"))
    assert card["name"] == "inpaint"
    assert card["max_pixels"] == 4096
    assert card["parameters"] == sum(np.size(v) for v in model.trainable_variables)
    assert card["signatures"]["diagnose"]["inputs"] == {
        "measurement": {"dtype": "float32", "shape": [None, None, None, 1]},
        "data": {"dtype": "float32", "shape": [None, None, None, 1]},
        "tolerance": {"dtype": "float32", "shape": [None]},
        "max_steps": {"dtype": "int32", "shape": [None]},
    }
    assert card["signatures"]["encoded"]["outputs"] == {
        "reconstruction_bytes": {"dtype": "string", "shape": [None]},
        "converged": {"dtype": "bool", "shape": [None]},
    }
    assert set(card["verification"]["differences"]) == set(card["signatures"])
    assert max(card["verification"]["differences"].values()) <= 1e-6
    text = (exported / "assets.extra" / "model_card.md").read_text("utf-8")
    assert "Inpainting of tests." in text
    assert "| PSNR (dB) | 30 |" in text


def test_warm_up_requests_are_answered(asked):
    """Read by TensorFlow Serving's own classes."""
    pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    _, found, _ = asked
    assert set(found["warm up"]["models"]) == {"inpaint"}
    assert sorted(found["warm up"]["signatures"]) == found["signatures"]


# What is not exported


class Unsteady(keras.layers.Layer):
    """Never answers twice in the same way."""

    def call(self, image):
        return image + tf.cast(tf.timestamp() % 1000.0, tf.float32)


class Python(keras.layers.Layer):
    """Runs Python code, which a server must not."""

    def call(self, image):
        return tf.ensure_shape(tf.numpy_function(lambda x: 2 * x, [image], tf.float32), image.shape)

    def compute_output_spec(self, image):
        return keras.KerasTensor(image.shape, image.dtype)


@pytest.mark.parametrize(
    ("layer", "error", "message"),
    [
        (Unsteady(), Unlike, "Expected the export to answer as the model does"),
        (Python(), ConfigurationError, "which a server must not run"),
    ],
)
def test_what_does_not_answer_as_the_model_is_removed(tmp_path, layer, error, message):
    image = keras.Input((None, None, 1))
    with pytest.raises(error, match=message):
        exporter.export(keras.Model(image, layer(image)), tmp_path / "m", samples=[smooth(2, 5, 6)])
    assert not (tmp_path / "m").exists()


def test_a_model_without_known_inputs_is_refused(tmp_path):
    class Own(keras.Model):
        def call(self, image):
            return image

    with pytest.raises(ConfigurationError, match="inputs Keras knows"):
        exporter.export(Own(), tmp_path / "m", samples=[])
    assert not (tmp_path / "m").exists()

"""Images of the reproduced experiments: which are trained on, their size and scale."""

import numpy as np
import pytest
from PIL import Image

from experiments.configs.riccio2022 import faces, mnist
from experiments.inverse_problem import BadImages
from experiments.reproduction import images
from trainers.process.errors import ConfigurationError


def _digits(path, count=1030, **arrays):
    pixels = np.arange(count * 784, dtype=np.uint32).reshape(count, 28, 28) % 256
    arrays = {"image": pixels.astype(np.uint8), "label": np.zeros(count, np.uint8), **arrays}
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    config = mnist.get_config("quick")
    config.data.file = str(path)
    return config, arrays["image"]


def test_the_first_digits_are_trained_on_and_the_last_thousand_are_not(tmp_path):
    config, pixels = _digits(tmp_path / "digits.npz")
    found = images.digits(config)
    assert found.train.shape == (30, 28, 28, 1)
    assert found.test.shape == (500, 28, 28, 1)
    np.testing.assert_allclose(found.train[..., 0], pixels[:30] / 127.5 - 1.0, atol=1e-6)
    np.testing.assert_allclose(found.test[..., 0], pixels[30:530] / 127.5 - 1.0, atol=1e-6)
    assert found.train.dtype == np.float32


@pytest.mark.parametrize(
    ("arrays", "match"),
    [
        ({"image": None}, "an array named 'image'. It does not"),
        ({"image": np.zeros((1030, 28, 28), np.float32)}, "dtype uint8. Received .*float32"),
        ({"image": np.zeros((1030, 784), np.uint8)}, r"Received shape \(1030, 784\)"),
        ({"image": np.zeros((1000, 28, 28), np.uint8)}, "more than 1000 images"),
    ],
)
def test_a_file_of_something_else(tmp_path, arrays, match):
    config, _ = _digits(tmp_path / "digits.npz", **arrays)
    with pytest.raises(BadImages, match=match):
        images.digits(config)


def test_no_file_at_all(tmp_path):
    config = mnist.get_config("quick")
    with pytest.raises(ConfigurationError, match="--data_file=FILE.npz or --dataset=mnist"):
        images.digits(config)
    config.data.file = str(tmp_path / "none.npz")
    with pytest.raises(BadImages, match="none.npz"):
        images.digits(config)
    (tmp_path / "none.npz").write_text("no archive")
    with pytest.raises(BadImages, match="to be an .npz file of images"):
        images.digits(config)


def test_digits_of_tensorflow_datasets(monkeypatch):
    config = mnist.get_config("quick")
    config.data.dataset, config.data.train, config.data.test = "mnist", 3, 2
    asked = []

    def load(name, split, batch_size):
        asked.append((name, split, batch_size))
        return {"image": np.full((5, 28, 28, 1), 255 if split == "train" else 0, np.uint8)}

    monkeypatch.setattr("tensorflow_datasets.load", load)
    found = images.digits(config)
    assert asked == [("mnist", "train", -1), ("mnist", "test", -1)]
    assert (found.train == 1.0).all()
    assert (found.test == -1.0).all()
    assert (len(found.train), len(found.test), found.source) == (3, 2, "mnist")

    def fail(*args, **kwargs):
        raise ConnectionError("No route to host.\nA trace.")

    monkeypatch.setattr("tensorflow_datasets.load", fail)
    with pytest.raises(BadImages, match="'mnist': No route to host. Without a network, take"):
        images.digits(config)


def _pictures(folder, count, size):
    folder.mkdir()
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, size).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    config = faces.get_config("quick")
    config.data.data_dir, config.data.size = str(folder), (12, 10)
    config.data.train, config.data.test = 3, 2
    return config


def test_a_folder_is_cut_in_the_middle(tmp_path):
    found = images.photographs(_pictures(tmp_path / "faces", 6, (14, 10)))
    assert (found.train.shape, found.test.shape) == ((3, 12, 10, 1), (2, 12, 10, 1))
    first = np.random.default_rng(0).integers(0, 256, (14, 10))
    np.testing.assert_allclose(found.train[0, ..., 0], first[1:13] / 127.5 - 1.0, atol=1e-6)


def test_a_folder_that_does_not_do(tmp_path):
    with pytest.raises(BadImages, match=r"at least 3 \+ 2 images"):
        images.photographs(_pictures(tmp_path / "few", 4, (14, 10)))
    with pytest.raises(BadImages, match="at least 12 x 10 pixels. Received '00.png' of 14 x 9"):
        images.photographs(_pictures(tmp_path / "small", 6, (14, 9)))


def test_parts_of_photographs_come_from_different_ones_first():
    pixels = [np.full((4, 6), value, np.uint8)[..., None] for value in (1, 2)]
    found = images._parts(pixels, (2, 3), 5)
    assert found[:, 0, 0, 0].tolist() == [1, 2, 1, 2, 1]
    with pytest.raises(BadImages, match="The photographs have 8"):
        images._parts(pixels, (2, 3), 9)

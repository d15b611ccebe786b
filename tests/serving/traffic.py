"""Requests to a served model, with what a direct call of the SavedModel answers to each.

The driver, `check_triton.py`, sends them. A bad request has no answer: the server must refuse it.
"""

import io
import json
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

SIZES = ((24, 31), (33, 48), (40, 40), (57, 22), (64, 64), (9, 8))
SUFFIXES = {"diagnose": "", "serving_default": "_default"}
# The NumPy types of the card's names where they differ.
TYPES = {"string": object}


class Request(NamedTuple):
    """One request: the model's name, its inputs, and the outputs or None if it must fail."""

    label: str
    model: str
    inputs: dict[str, np.ndarray]
    expected: dict[str, np.ndarray] | None


def from_triton(value, dtype):
    """The array of TensorFlow's of one that came from Triton."""
    if dtype == "complex64":
        value = np.ascontiguousarray(value, np.float32).view(np.complex64)[..., 0]
    return value


def to_triton(value):
    """The array that Triton's clients send: a complex one as two real ones."""
    if np.iscomplexobj(value):
        return np.stack([value.real, value.imag], -1).astype(np.float32)
    return value


def png(image):
    """The bytes of a PNG file of a uint8 image `(height, width, channels)`."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(file, "PNG")
    return file.getvalue()


class Export:
    """An exported model: called directly, and a source of requests for Triton's models of it.

    Args:
        folder: The export, `NAME` with versions in it.
        rng: A `numpy.random.Generator`.
    """

    def __init__(self, folder, rng):
        version = max(
            (p for p in folder.iterdir() if p.name.isdecimal()), key=lambda p: int(p.name)
        )
        self.name, self.rng, self.version = folder.name, rng, version
        self.card = json.loads((version / "assets.extra" / "model_card.json").read_text("utf-8"))
        self.signatures = self.card["signatures"]
        self._loaded = tf.saved_model.load(str(version))

    @property
    def takes_grey_images(self):
        """Whether its measurements are grey images, and nothing else."""
        encoded = self.signatures.get("encoded", {"inputs": ()})["inputs"]
        return self.card["channels"] == 1 and list(encoded) == ["measurement_bytes"]

    def answer(self, signature, inputs):
        """What the SavedModel says, as arrays by name."""
        tensors = {
            name: tf.constant(value.tolist() if value.dtype == object else value)
            for name, value in inputs.items()
        }
        for name, spec in self.signatures[signature]["inputs"].items():
            if name not in tensors:
                batch = len(next(iter(inputs.values())))
                tensors[name] = tf.zeros([batch], spec["dtype"])
        return {n: t.numpy() for n, t in self._loaded.signatures[signature](**tensors).items()}

    def good(self, signature, batch=1, size=(24, 31)):
        """A request that has an answer."""
        inputs = self._inputs(signature, batch, size)
        label = f"{self.name} {signature} {batch}x{size[0]}x{size[1]}"
        return Request(label, self._model(signature), inputs, self.answer(signature, inputs))

    def _model(self, signature):
        return self.name + SUFFIXES.get(signature, f"_{signature}")

    def _inputs(self, signature, batch, size):
        inputs = {}
        for name, spec in self.signatures[signature]["inputs"].items():
            if name.endswith("_bytes"):
                # Files of a request need not have one size, where each has no data of its own.
                sizes = [(size[0] + i, size[1]) for i in range(batch)]
                shape = [(*s, self.card["channels"]) for s in sizes]
                files = [png(self.rng.integers(0, 256, s, dtype=np.uint8)) for s in shape]
                inputs[name] = np.array(files, dtype=object)
            elif name in ("tolerance", "max_steps"):
                if self.rng.random() < 0.5:
                    value = {"tolerance": 1e-3, "max_steps": 7}[name]
                    inputs[name] = np.full([batch], value, spec["dtype"])
            else:
                inputs[name] = self._tensor(name, spec, batch, size)
        if "target" in inputs:
            inputs["target"] = self._target(inputs)
        return inputs

    def _tensor(self, name, spec, batch, size):
        shape = (batch, *size, spec["shape"][-1] or self.card["channels"])
        if name.startswith("data"):
            return (self.rng.random(shape) < 0.7).astype(spec["dtype"])
        if spec["dtype"] == "uint8":
            return self.rng.integers(0, 256, shape, dtype=np.uint8)
        value = self.rng.random(shape)
        if spec["dtype"] == "complex64":
            value = value + 1j * self.rng.random(shape)
        return value.astype(spec["dtype"])

    def _target(self, inputs):
        inputs = {name: value for name, value in inputs.items() if name != "target"}
        shape = self.answer("serving_default", inputs)["reconstruction"].shape
        return self.rng.random(shape).astype(np.float32)

    def bad(self):
        """Requests that the server must refuse, one of each kind."""
        good = self._inputs("diagnose", 1, (24, 31))
        measurement = good["measurement"]
        rest = {name: value for name, value in good.items() if name != "measurement"}
        nan = measurement.copy()
        nan[0, 3, 4] = np.nan
        infinite = measurement.copy()
        infinite[0, 0, 0] = np.inf
        wrong: dict[str, Any] = {
            "not a number": nan,
            "infinite": infinite,
            "without rows": measurement[:, :0],
            "without images": measurement[:0],
            "of another rank": measurement[0],
            "with two more channels": np.concatenate([measurement] * 3, -1),
            "of another type": np.zeros(measurement.shape, np.int64),
            "huge": self._huge(measurement.dtype),
        }
        model = self._model("diagnose")
        requests = [
            Request(f"{self.name}: {what}", model, {"measurement": value, **rest}, None)
            for what, value in wrong.items()
        ]
        requests.append(Request(f"{self.name}: no measurement", model, {**rest}, None))
        requests.append(Request("unknown model", f"{self.name}_none", {"measurement": nan}, None))
        if "encoded" in self.signatures:
            requests += self._bad_files()
        return [r for r in requests if r.inputs]

    def _huge(self, dtype):
        """More pixels than the card allows, as few as that takes."""
        rows = self.card["max_pixels"] // 4096 + 1
        return np.zeros([1, rows, 4096, self.card["channels"]], dtype)

    def _bad_files(self):
        bomb = io.BytesIO()
        side = int(self.card["max_pixels"] ** 0.5) + 2
        Image.new("1", (side, side)).save(bomb, "PNG")  # some kilobytes
        good = self._inputs("encoded", 1, (24, 31))
        for what, content in {
            "no image": b"GIF89a, or so",
            "no bytes": b"",
            "half a file": good["measurement_bytes"][0][:60],
            "a file that grows": bomb.getvalue(),
        }.items():
            inputs = {**good, "measurement_bytes": np.array([content], dtype=object)}
            yield Request(f"{self.name}: {what}", self._model("encoded"), inputs, None)

    def some(self, count):
        """Requests that have answers, of all signatures, sizes and numbers of images."""
        signatures = sorted(self.signatures)
        for number in range(count):
            signature = signatures[number % len(signatures)]
            size = SIZES[self.rng.integers(len(SIZES))]
            yield self.good(signature, int(self.rng.integers(1, 4)), size)

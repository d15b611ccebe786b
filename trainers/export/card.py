"""The card of an exported model: what it is, how good, for what, for people and for programs."""

from __future__ import annotations

import dataclasses
import datetime
import math
import platform
from pathlib import Path
from typing import Any

import deq_keras as dk
from trainers.callbacks.model_solver import solving_layers
from trainers.process import versions
from trainers.process.files import write_json


@dataclasses.dataclass
class Card:
    """What is said of a model beside what is found out of it.

    Attributes:
        description: What is measured and how it is reconstructed, in a sentence or two.
        task: The name of the inverse problem.
        data: What it was trained on: `source`, counts.
        metrics: Results on test images, from names to numbers.
        metrics_source: Where these come from.
        configuration: The configuration of the training.
        limits: What it is not good for, a list of sentences.
        licence: Of the weights.
    """

    description: str = "No description was given."
    task: str = ""
    data: dict[str, Any] = dataclasses.field(default_factory=dict)
    metrics: dict[str, float | None] = dataclasses.field(default_factory=dict)
    metrics_source: str = ""
    configuration: dict[str, Any] = dataclasses.field(default_factory=dict)
    limits: list[str] = dataclasses.field(default_factory=list)
    licence: str = "not stated"


def write(folder, name, served, card, report):
    """Writes `model_card.json` and `model_card.md`.

    Args:
        folder: Where.
        name: The name of the model.
        served: `trainers.export.Signatures`.
        card: A `Card`.
        report: What the verification found.
    """
    content = as_dict(name, served, card, report)
    write_json(Path(folder) / "model_card.json", content)
    (Path(folder) / "model_card.md").write_text(as_markdown(content), "utf-8")


def as_dict(name, served, card, report):
    """The card as JSON has it."""
    model = served.model
    return {
        "name": name,
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        **dataclasses.asdict(card),
        "channels": served.inputs[0].shape[-1],
        "max_pixels": served.max_pixels,
        "parameters": sum(math.prod(v.shape) for v in model.trainable_variables),
        "layers": [layer.name for layer in model.layers],
        "solvers": {
            layer.name: repr(layer.solver)
            for layer in solving_layers(model)
            if hasattr(layer, "solver")
        },
        "signatures": {key: _signature(function) for key, function in served.functions.items()},
        "verification": report,
        "versions": {
            "python": platform.python_version(),
            "deq_keras": dk.__version__,
            **versions.installed("tensorflow", "tensorflow-cpu", "keras", "numpy"),
        },
    }


def as_markdown(content):
    """The card for people."""
    lines = [f"# {content['name']}", "", content["description"], ""]
    lines += ["## Results", ""]
    if content["metrics"]:
        lines += ["| | |", "|---|---|"]
        lines += [f"| {key} | {_number(value)} |" for key, value in content["metrics"].items()]
        lines += ["", content["metrics_source"], ""]
    else:
        lines += ["It was not evaluated on test images before it was exported.", ""]
    lines += ["## Training", ""]
    lines += [f"- {key}: {value}" for key, value in content["data"].items()]
    lines += [f"- parameters that were learned: {content['parameters']}", ""]
    lines += ["## Values and limits", ""]
    lines += ["- Images are `(batch, height, width, channels)`, float32 on [0, 1]."]
    if "uint8" in content["signatures"]:
        lines += ["- Integers and files are on 0 to 255, files of 16 bits on 0 to 65535."]
    lines += [
        f"- Channels: {content['channels']}. Pixels of an image: up to {content['max_pixels']}."
    ]
    lines += ["- An image that was not solved for to the tolerance has `converged` false."]
    lines += [f"- {sentence}" for sentence in content["limits"]]
    lines += ["", "## Signatures", "", "| signature | inputs | outputs |", "|---|---|---|"]
    for key, signature in content["signatures"].items():
        cells = (_tensors(signature[side]) for side in ("inputs", "outputs"))
        lines.append(f"| `{key}` | {' | '.join(cells)} |")
    report = content["verification"]
    lines += ["", "## Verification", "", "Loaded by a fresh process with TensorFlow alone. Largest"]
    lines += ["differences from the model, for measurements of the shapes"]
    lines += [f"{', '.join(map(str, report['sizes']))}:", ""]
    lines += [f"- `{key}`: {value:.1e}" for key, value in report["differences"].items()]
    lines += [f"- from the start of the process to the first answer: {report['seconds']:.1f} s"]
    lines += ["", "## Versions and licence", ""]
    lines += [f"- {key} {value}" for key, value in content["versions"].items()]
    lines += [f"- solver of `{key}`: `{value}`" for key, value in content["solvers"].items()]
    lines += [f"- licence of the weights: {content['licence']}", ""]
    return "\n".join(lines)


def _signature(function):
    inputs, _ = function.structured_input_signature  # by position; a spec has the name
    return {
        "inputs": _described({spec.name: spec for spec in inputs}),
        "outputs": _described(function.structured_outputs),
    }


def _described(tensors):
    return {
        name: {"dtype": tensor.dtype.name, "shape": tensor.shape.as_list()}
        for name, tensor in tensors.items()
    }


def _tensors(tensors):
    return ", ".join(
        f"`{name}` {tensor['dtype']} {tuple('?' if n is None else n for n in tensor['shape'])}"
        for name, tensor in tensors.items()
    ).replace("'", "")


def _number(value):
    return "not known" if value is None else f"{value:.4g}"

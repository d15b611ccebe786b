"""Verification of an export: another process, with TensorFlow alone, must answer as the model."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tensorflow as tf

from trainers.export import codec
from trainers.export.signatures import reconstruct
from trainers.process import exits
from trainers.process.files import literal

TOLERANCE = 1e-6  # largest difference of values on [0, 1]
_ZERO = tf.UnconnectedGradients.ZERO
_PROGRAM = Path(__file__).with_name("elsewhere.py")
_PATIENCE = 1800.0  # seconds


class Unlike(RuntimeError):
    """An export that does not answer as its model does, or cannot be loaded elsewhere."""

    exit_code = exits.SOFTWARE


def verify(path, served, samples):
    """Compares the answers of an export, in a process of its own, with those of the live model.

    Args:
        path: The folder of the SavedModel.
        served: The `trainers.export.Signatures` that it was written from.
        samples: Batches of measurements, in the structure of the model's input.

    Returns:
        A dictionary: `sizes` of the samples, the largest `differences` of each signature, the
        `seconds` from the start of that process to its first answer.

    Raises:
        Unlike: If they differ by more than `TOLERANCE`.
    """
    arrays, sizes = {}, []
    answers = live_answers(served)
    for number, sample in enumerate(samples):
        inputs = [np.asarray(part) for part in tf.nest.flatten(sample)]
        sizes.append(list(inputs[0].shape))
        for signature, (asked, given) in answers(inputs).items():
            for side, tensors in (("in", asked), ("out", given)):
                for name, tensor in tensors.items():
                    arrays[f"{number}/{signature}/{side}/{name}"] = _array(tensor)
    with tempfile.TemporaryDirectory() as folder, literal(Path(path).resolve()) as readable:
        file = Path(folder) / "expected.npz"
        np.savez(file, **arrays)
        # Isolated: no path of this checkout, and no variable of the environment that adds one.
        command = [sys.executable, "-I", str(_PROGRAM), readable, str(file)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, cwd=folder, timeout=_PATIENCE
            )
        except subprocess.TimeoutExpired:
            raise Unlike(f"The export gave no answer within {_PATIENCE:.0f} s.") from None
    if done.returncode:
        raise Unlike(
            "The export could not be used in a fresh process without this package:\n"
            + "\n".join(done.stderr.strip().splitlines()[-8:])
        )
    report = json.loads(done.stdout.splitlines()[-1])
    wrong = {name: value for name, value in report["differences"].items() if not value <= TOLERANCE}
    if wrong:
        raise Unlike(
            f"Expected the export to answer as the model does, within {TOLERANCE:g}. Received "
            f"differences of {wrong}."
        )
    return {**report, "sizes": sizes}


def live_answers(served):
    """The function from inputs to what is asked of each signature, and what the model answers.

    For the reconstruction and its derivative that is the model itself; for the rest the functions
    that were exported, before they were.
    """

    # A graph for all sizes, as that of the export: one for a size rounds in another way, which an
    # ill-conditioned problem amplifies.
    @tf.function(autograph=False, input_signature=served.inputs)
    def model(*inputs):
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(inputs[0])
            image = reconstruct(served.model, inputs)
            target = tf.zeros_like(image) + 0.5
            loss = tf.reduce_mean((image - target) ** 2, axis=[1, 2, 3])
        gradient = tape.gradient(loss, inputs[0], unconnected_gradients=_ZERO)
        return image, target, loss, gradient

    def answers(inputs):
        image, target, loss, gradient = model(*map(tf.constant, inputs))
        asked = requests_of(served, inputs, target)
        found = {
            "serving_default": {"reconstruction": image},
            "gradient": {"loss": loss, "gradient": gradient},
        }
        for name, function in served.functions.items():
            if name not in found:
                found[name] = function(*map(tf.constant, asked[name].values()))
        return {name: (asked[name], found[name]) for name in found}

    return answers


def requests_of(served, inputs, target):
    """The inputs of each signature for a batch: dictionaries from names to arrays.

    Args:
        served: `trainers.export.Signatures`.
        inputs: An array for each input of the model.
        target: Images like the reconstruction.
    """
    plain = {spec.name: part for spec, part in zip(served.inputs, inputs, strict=True)}
    own = {"tolerance": np.zeros(1, np.float32), "max_steps": np.zeros(1, np.int32)}
    found = {
        "serving_default": plain,
        "diagnose": {**plain, **own},
        "gradient": {**plain, "target": target},
    }
    if served.takes_images:
        integers = {name: codec.quantised(part, tf.uint8).numpy() for name, part in plain.items()}
        found["uint8"] = {**plain, "measurement": integers["measurement"]}
        found["encoded"] = {
            f"{name}_bytes": np.array([tf.io.encode_png(image).numpy() for image in part])
            for name, part in integers.items()
        }
    return found


def _array(tensor):
    """As a file of arrays takes it, which has no objects."""
    array = np.asarray(tensor)
    return array.astype(np.bytes_) if array.dtype == object else array

"""The conversion of a Keras model to another format: apart, checked, and whole or not at all."""

import importlib.util
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from trainers.export.formats import litert, onnx, openvino, source, worker
from trainers.process.errors import ConfigurationError, unknown_name
from trainers.process.files import literal

FORMATS = {"litert": litert, "onnx": onnx, "openvino": openvino}
BOUND = 1e-4  # on images on [0, 1]: a fortieth of a grey level of 8 bits
EXACT = 1e-6  # the relative residual of solutions that count as exact
MORE_STEPS = 1.25  # a solver that takes so many times the steps does something else
TIMEOUT = 3600.0  # seconds; a conversion that takes so long is caught in a loop
SIZES = ((1, 24, 33), (3, 25, 32), (2, 32, 32))  # (images, height, width) where all are free
_ELSEWHERE = "Use another format, or the SavedModel; docs/formats.md says what converts to what."


class Converted(NamedTuple):
    """What was written.

    Attributes:
        files: The files, the one to load first.
        difference: The largest difference of a pixel to that of the live model.
    """

    files: tuple
    difference: float


def convert(model, path, format, size=None, samples=None) -> Converted:
    """Converts a model, and compares what its runtime computes with the model itself.

    The result has the inputs `measurement` and, where the operator has data for each image,
    `data`, `data_1` and so on, float32 of the shapes of the model, and the outputs `reconstruction`
    and, where there is a solver, `steps`, `residual` and `converged`, a row for each image. Only
    the forward pass is converted.

    Solves stop where the residual reaches the solver's tolerance, so other rounding leads to
    results that differ by as much as that allows. Images that are off the exact solution by `BOUND`
    more than twice what the live model's are count as an error of the conversion.

    Args:
        model: A functional Keras model of float32, such as `keras.Model(y, layer(y))`.
        path: The file to write, one that exists is replaced; `.tflite`, `.onnx` or `.xml` is
            appended if it is missing.
        format: `"litert"`, `"onnx"` or `"openvino"`.
        size: Height and width of the measurements in pixels, if they shall be fixed. For
            `"litert"`, which converts for single images, they must be.
        samples: Batches to compare with, each a list of arrays in the order of the model's
            inputs; for `"litert"` of one image of the size. `None`: random ones.

    Returns:
        A `Converted`.

    Raises:
        ConfigurationError: If the format is unknown, its libraries are not installed, the model
            has something that the converter does not know, or the results differ. Then nothing is
            written, and what was there before is left as it was.

    Example:

    >>> import tempfile
    >>> from trainers.export.formats import convert
    >>> y = keras.Input((None, None, 1))
    >>> prior = dk.priors.FieldsOfExperts(filters=4, kernel_size=3)
    >>> model = keras.Model(y, dk.layers.Variational(dk.operators.Identity(), prior)(y))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     converted = convert(model, f"{folder}/denoise", "litert", size=(16, 16))
    >>> converted.files[0].name, converted.difference < 1e-4
    ('denoise.tflite', True)
    """
    chosen = _chosen(format)
    path, size = _path(path, chosen), _size(size, chosen, format)
    specs = source.signature(model, size, 1 if chosen.FIXED else None)
    _check_dtypes(specs, format)
    batches = _batches(specs, size, chosen, samples)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=path.parent) as folder:
        folder = Path(folder)
        source.save(model, folder / "source", specs)
        worker.write_batches(folder / "inputs.npz", batches)
        (folder / "result").mkdir()
        with literal(folder) as readable:
            outputs = _run(format, Path(readable), Path(readable, "result", path.name))
        difference = _compare(model, specs, batches, outputs, format)
        written = sorted((folder / "result").iterdir())
        # The file that is loaded comes last: whoever finds it finds the others.
        written.sort(key=lambda file: file.name == path.name)
        for file in written:
            os.replace(file, path.with_name(file.name))
    return Converted(tuple(path.with_name(file.name) for file in reversed(written)), difference)


def _chosen(format):
    if format not in FORMATS:
        raise unknown_name("format", format, FORMATS)
    chosen = FORMATS[format]
    missing = [name for name in chosen.LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigurationError(
            f"Expected the libraries of the format {format!r}. Not installed: {missing}. Install "
            'them with: python -m pip install -e ".[export]"'
        )
    return chosen


def _path(path, chosen):
    path = Path(path)
    return path if path.suffix == chosen.SUFFIX else path.with_name(path.name + chosen.SUFFIX)


def _size(size, chosen, format):
    if size is None and chosen.FIXED:
        raise ConfigurationError(
            f"Expected `size`, the height and width of the measurements: the format {format!r} is "
            "for one size. Received none."
        )
    if size is None:
        return None
    size = tuple(int(n) for n in size)
    if len(size) != 2 or min(size) < 1:
        raise ConfigurationError(
            f"Expected `size` to be a height and a width in pixels. Received size={size!r}."
        )
    return size


def _check_dtypes(specs, format):
    wrong = {name: spec.dtype.name for name, spec in specs.items() if spec.dtype != tf.float32}
    if wrong:
        raise ConfigurationError(
            f"The format {format!r} is for inputs of float32: none of {list(FORMATS)} has complex "
            f"inputs or complex Fourier transforms. The model has {wrong}. Use the SavedModel."
        )


def _batches(specs, size, chosen, samples):
    if samples is None:
        sizes = SIZES if size is None else [(n, *size) for n in (1, 3)]
        return source.random_batches(specs, [(1, *size)] * 3 if chosen.FIXED else sizes)
    batches = []
    for sample in samples:
        arrays = [
            np.asarray(x, spec.dtype.as_numpy_dtype)
            for x, spec in zip(sample, specs.values(), strict=True)
        ]
        for array, (name, spec) in zip(arrays, specs.items(), strict=True):
            if not spec.shape.is_compatible_with(array.shape):
                raise ConfigurationError(
                    f"Expected samples of `{name}` of shape {tuple(spec.shape)}. Received "
                    f"{array.shape}."
                )
        batches.append(dict(zip(specs, arrays, strict=True)))
    return batches


def _run(format, folder, file):
    """Converts and runs in another process; what came out."""
    root = str(Path(__file__).resolve().parents[3])
    paths = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "-1"}
    command = [
        sys.executable,
        "-m",
        "trainers.export.formats.worker",
        format,
        str(folder),
        str(file),
    ]
    with open(folder / "log", "w+", encoding="utf-8", errors="replace") as log:
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=TIMEOUT,
            )
            status = f"exit code {done.returncode}"
        except subprocess.TimeoutExpired:
            status = f"no end after {TIMEOUT:.0f} s"
        log.seek(0)
        text = log.read()
    if not (folder / "outputs.npz").exists():
        raise ConfigurationError(_failure(format, status, text))
    return worker.read_batches(folder / "outputs.npz")


def _failure(format, status, log):
    if unsupported := FORMATS[format].unsupported(log):
        return f"The format {format!r} cannot express {', '.join(unsupported)}. {_ELSEWHERE}"
    lines = [line for line in log.splitlines() if line.strip()][-15:]
    return "\n".join([f"The conversion to {format!r} failed ({status}). {_ELSEWHERE}", *lines])


def _compare(model, specs, batches, outputs, format):
    """The largest difference to the live model, unless it is too large."""
    function, exact, differences = source.live(model, specs), source.live(model, specs, EXACT), []
    for batch, output in zip(batches, outputs, strict=True):
        expected = {name: x.numpy() for name, x in function(**batch).items()}
        image, known = output["reconstruction"], expected["reconstruction"]
        if image.shape != known.shape or not np.isfinite(image).all():
            raise ConfigurationError(
                f"The model that was converted to {format!r} computes something else: images of "
                f"shape {image.shape} for {known.shape}, or numbers that are not finite. "
                f"{_ELSEWHERE}"
            )
        if "converged" in expected:
            _compare_solves(expected, output, format)
        solves = "converged" in expected
        solution = exact(**batch)["reconstruction"].numpy() if solves else known
        error, own = (float(np.abs(x - solution).max()) for x in (image, known))
        if error > BOUND + 2 * own:
            raise ConfigurationError(
                f"The model that was converted to {format!r} is off the solution by {error:.2g} in "
                f"a pixel, where the live model is off by {own:.2g}. {_ELSEWHERE}"
            )
        differences.append(float(np.abs(image - known).max()))
    return max(differences)


def _compare_solves(expected, output, format):
    steps, known = (int(x["steps"].max(initial=0)) for x in (output, expected))
    lost = (expected["converged"] & ~output["converged"]).any()
    if lost or steps > MORE_STEPS * known + 10:
        raise ConfigurationError(
            f"The solver of the model that was converted to {format!r} takes {steps} steps"
            f"{' and does not converge' if lost else ''}, where that of the live model takes "
            f"{known}. {_ELSEWHERE}"
        )

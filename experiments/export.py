"""Export of a trained model for a server: a SavedModel in the next version folder, verified.

    python -m experiments.export --workdir=runs/train --output=models/denoise
    python -m experiments.export --workdir=runs/demo --task=inpainting --model=equilibrium \\
        --output=models/inpaint

Of a training it takes the weights of the best epoch. Writes `models/denoise/1`, then `2` and so on,
each as a whole or not at all. It runs without this package: a fresh process has loaded it, with
TensorFlow alone, and its answers equal those of the model. `trainers.export.Signatures` says what
it can be asked; `assets.extra/model_card.md` in the folder says what it is. With results of
`experiments.evaluate`, run it first, the card says how good.

    python -m experiments.export --workdir=runs/train --output=models/denoise --format=onnx
    python -m experiments.export --workdir=runs/train --output=models/denoise --format=litert \\
        --size=180,180

write `models/denoise.onnx` and `models/denoise.tflite`, for runtimes that are smaller than
TensorFlow; see docs/formats.md.
"""

from pathlib import Path

from experiments import command_line

# isort: split
# It chooses Keras's backend, so it comes first.
import keras
import numpy as np
import tensorflow as tf
from absl import flags

from experiments import inverse_problem, trained
from experiments.methods import RECONSTRUCTIONS
from trainers import export as exporter
from trainers.export.formats import FORMATS, convert
from trainers.process.errors import ConfigurationError
from trainers.process.files import make_writable
from trainers.process.signals import interruptible

flags.adopt_module_key_flags(command_line)
flags.adopt_module_key_flags(trained)
_TASK = flags.DEFINE_string("task", None, "Which task of a comparison.")
_MODEL = flags.DEFINE_enum("model", None, RECONSTRUCTIONS, "Which model of a comparison.")
_MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels", exporter.MAX_PIXELS, "Limit of height times width of an image in a request.", 1
)
_FORMAT = flags.DEFINE_enum("format", "saved_model", ["saved_model", *FORMATS], "What is written.")
_SIZE = flags.DEFINE_list(
    "size", None, "HEIGHT,WIDTH of the measurements, if they shall be fixed; not for a SavedModel."
)

# Odd, even and not square; of a multiple where the task needs one.
_SIZES = ((33, 47), (40, 40), (24, 31))
_METRICS = {
    "psnr": "PSNR (dB)",
    "ssim": "SSIM",
    "steps": "steps of the solver",
    "forward_steps": "steps of the solver",
    "converged": "share of images that converged",
    "error_bound": "certified error (root mean square)",
}


def samples(task, channels):
    """Measurements of smooth images of several sizes, two of each, to verify an export with."""
    found, rng = [], np.random.default_rng(0)
    for height, width in _SIZES:
        size = [height * task.multiple, (height if task.square else width) * task.multiple]
        coarse = rng.uniform(size=(2, 6, 6, channels)).astype("float32")
        truth = tf.image.resize(coarse, size, "bicubic")
        parts = [
            task.measure(truth[n], tf.constant(0, tf.int64), tf.constant(n, tf.int64))
            for n in range(2)
        ]
        found.append(tf.nest.map_structure(lambda *each: np.stack(each), *parts))
    return found


def card(model):
    """The `trainers.export.Card` of a `trained.Trained`."""
    config = model.config
    limits = [
        "It was trained for this measurement and level of noise: " + model.task.description,
        f"It was trained on patches of {config.data.patch_size} x {config.data.patch_size} pixels.",
    ]
    if model.task.multiple > 1:
        limits.append(
            f"The reconstruction is {model.task.multiple} times as high and as wide as the "
            "measurement."
        )
    if model.task.square:
        limits.append("It takes images to be square.")
    return exporter.Card(
        description=f"{model.task.title} by the model {model.name!r}. {model.task.description}",
        task=model.task.name,
        data={
            "images": str(inverse_problem.source(config)),
            "weights": model.weights,
            "seed": config.seed,
        },
        metrics={
            label: float(model.metrics[key])
            for key, label in _METRICS.items()
            if model.metrics.get(key) is not None
        },
        metrics_source="Means over the test images of the training's data.",
        configuration=config.to_dict(),
        limits=limits,
        licence=trained.LICENCE.value or "not stated",
    )


def _size():
    """Height and width, or `None`."""
    if _SIZE.value is None:
        return None
    try:
        height, width = (int(text) for text in _SIZE.value)
    except ValueError:
        height = width = 0
    if min(height, width) < 1 or _FORMAT.value == "saved_model":
        raise ConfigurationError(
            "Expected --size=HEIGHT,WIDTH, two positive integers, together with a --format other "
            f"than 'saved_model', which takes any size. Received --size={','.join(_SIZE.value)}."
        )
    return height, width


def export():
    """Everything, from the flags to the version folder."""
    command_line.check_folders()
    output = (trained.OUTPUT.value or "").strip()
    if not output or not Path(output).name or Path(output).name.isdigit():
        raise ConfigurationError(
            "Expected --output to be the folder of a model, such as models/NAME; the number of the "
            f"version is added. Received {trained.OUTPUT.value!r}."
        )
    if command_line.DATA_DIR.value is not None:
        raise ConfigurationError(
            "Expected no --data_dir: an export needs no images. To put results into its card, run "
            "experiments.evaluate first."
        )
    size = _size()
    folder = output if _FORMAT.value == "saved_model" else Path(output).parent
    make_writable(folder, "folder", "Name another one with --output.")
    keras.utils.set_random_seed(0)
    model = trained.load(
        command_line.WORKDIR.value,
        trained.CHECKPOINT.value,
        _TASK.value,
        _MODEL.value,
        trained.PRECISION.value,
    )
    if _FORMAT.value != "saved_model":
        converted = convert(model.model, output, _FORMAT.value, size)
        files = ", ".join(map(str, converted.files))
        print(f"Model: {files}\nLargest difference of a pixel: {converted.difference:.1e}")
        return
    path = exporter.export(
        model.model,
        output,
        samples=samples(model.task, model.config.data.channels),
        card=card(model),
        max_pixels=_MAX_PIXELS.value,
    )
    print(f"Model: {path}\nCard:  {path / 'assets.extra' / 'model_card.md'}")


def work():
    """The export; a version that is not whole does not stay behind."""
    with interruptible(at_once=True):
        export()


def run():
    """Entry point: flags, then `work`."""
    command_line.run(work)


if __name__ == "__main__":
    run()

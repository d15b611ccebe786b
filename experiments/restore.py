"""Restoration of images with a trained model, on this machine or through a server.

    python -m experiments.restore photo.jpg scans/ --output=restored --model=models/mine
    python -m experiments.restore scans/ --output=restored --server=HOST:8500 --name=mine

The model is a SavedModel of `experiments.export`: its signature `diagnose`. --model names the
folder of a version, or the one above it, of which the highest version is taken. --server asks
TensorFlow Serving or a server of the Open Inference Protocol (KServe, Triton), by gRPC or REST;
without --protocol it is asked for the model in each protocol until it answers. TensorFlow is not
imported then, and need not be installed.

PNG and TIFF files keep their format, depth (8 or 16 bits), transparency, colour profile and EXIF;
the orientation of the camera is applied and reset. A JPEG becomes a PNG. A grey model restores the
luminance of a colour image and keeps its colours, or with --colour=channels each channel by itself;
a colour model takes a grey image as three equal channels, and the result is their mean. The column
"as" of the summary says which. `.npy` and `.npz` files are measurements (`measurement`, and `data`,
`data_1`... of the operator), and give a float32 `.npy`: the way for Fourier coefficients.

Images larger than --tile are restored in overlapping tiles, see `experiments.restoration.tiles`.

Results are not replaced without --force. One image that fails does not end the others. The exit
code is 0 if all images are written and the solver converged for each, 3 if it did not for some, 65
if an image failed, 69 if the server was lost; the rest is in `trainers.process.exits`.
"""

import sys
from pathlib import Path

from absl import flags
from rich.console import Console
from tqdm import tqdm

from experiments import program
from experiments.restoration import connection, inputs, summary, tiles
from experiments.restoration.jobs import Restorer
from experiments.restoration.operator_data import OperatorData
from experiments.restoration.restoring import Settings
from trainers.process import exits, folder_flag
from trainers.process.errors import ConfigurationError, Interrupted
from trainers.process.files import make_writable
from trainers.process.signals import interruptible

# Flags of its own: those that other programs share belong to training.
FLAGS = flags.FlagValues()
flags.DEFINE_bool("help", False, "Shows this.", flag_values=FLAGS)
_OUTPUT = folder_flag.define("output", None, "Folder for the results.", flag_values=FLAGS)
_MODEL = flags.DEFINE_string(
    "model", None, "SavedModel of this machine: a version or all of them.", flag_values=FLAGS
)
_SERVER = flags.DEFINE_string(
    "server", None, "HOST:PORT, maybe with grpc://, http:// or https://.", flag_values=FLAGS
)
_NAME = flags.DEFINE_string("name", None, "The model's name at the server.", flag_values=FLAGS)
_PROTOCOL = flags.DEFINE_enum(
    "protocol", "auto", ["auto", *connection.PROTOCOLS], "Of the server.", flag_values=FLAGS
)
_TIMEOUT = flags.DEFINE_float(
    "timeout",
    60.0,
    "Seconds for a request to the server, retries included.",
    0.1,
    flag_values=FLAGS,
)
_DATA = flags.DEFINE_string(
    "data",
    None,
    "What the operator needs, such as a mask (white was measured): a file for all images, or a "
    "folder with a file of the same name for each.",
    flag_values=FLAGS,
)
_COLOUR = flags.DEFINE_enum(
    "colour",
    "luminance",
    ["luminance", "channels"],
    "What a grey model restores of a colour image.",
    flag_values=FLAGS,
)
_TILE = flags.DEFINE_integer(
    "tile", 512, "Longest side of a tile in pixels; 0: whole images.", flag_values=FLAGS
)
_OVERLAP = flags.DEFINE_integer(
    "overlap", 32, "Pixels that neighbouring tiles share.", flag_values=FLAGS
)
_TOLERANCE = flags.DEFINE_float(
    "tolerance",
    0.0,
    "Residual at which the solver stops; 0: the model's own.",
    0.0,
    flag_values=FLAGS,
)
_MAX_STEPS = flags.DEFINE_integer(
    "max_steps", 0, "Most steps of the solver; 0: the model's own.", 0, flag_values=FLAGS
)
_MAX_PIXELS = flags.DEFINE_integer(
    "max_pixels", 200_000_000, "Larger files are refused before decoding.", 1, flag_values=FLAGS
)
_FORCE = flags.DEFINE_bool("force", False, "Replace results that exist.", flag_values=FLAGS)


def open_model():
    """The model that the flags name."""
    if (_MODEL.value is None) == (_SERVER.value is None):
        raise ConfigurationError("Expected either --model=FOLDER or --server=HOST:PORT.")
    if _SERVER.value is not None:
        if not _NAME.value:
            raise ConfigurationError("Expected --name, the model's name at the server.")
        return connection.connect(_SERVER.value, _NAME.value, _PROTOCOL.value, _TIMEOUT.value)
    from experiments.restoration.local import LocalModel  # with TensorFlow

    return LocalModel(_MODEL.value)


def restore(names):
    """Everything, from the flags to the summary.

    Args:
        names: Files and folders.

    Raises:
        SystemExit: Some images failed, or did not converge, or a signal has come.
    """
    if not names or not _OUTPUT.value:
        raise ConfigurationError("Expected INPUT... --output=FOLDER, and --model or --server.")
    tiles.check(_TILE.value, _OVERLAP.value)
    jobs = inputs.find(names, _OUTPUT.value, _FORCE.value)
    data = OperatorData(_DATA.value, _MAX_PIXELS.value)
    make_writable(Path(_OUTPUT.value), "folder", "Name another one with --output.")
    results = []
    try:
        with interruptible(at_once=True):
            restore_each(jobs, data, results)
    except Interrupted as stop:
        if results:
            report(results)
        print(f"{stop} {len(jobs) - len(results)} of {len(jobs)} are left.", file=sys.stderr)
        raise SystemExit(exits.STOPPED) from None
    if code := report(results):
        raise SystemExit(code)


def restore_each(jobs, data, results):
    """Restores files, one after the other.

    Args:
        jobs: A list of `Job`.
        data: The `OperatorData`.
        results: A list, to which a `Done` is added for each file.
    """
    model = open_model()
    data.check(model)
    print(f"Model: {model.where}", flush=True)
    settings = Settings(_TILE.value, _OVERLAP.value, _TOLERANCE.value, _MAX_STEPS.value)
    restorer = Restorer(model, settings, _COLOUR.value, data, _MAX_PIXELS.value, _FORCE.value)
    with tqdm(jobs, unit="image", dynamic_ncols=True, disable=None) as bar:
        for job in bar:
            bar.set_postfix_str(job.name)

            def progress(done, total, name=job.name):
                bar.set_postfix_str(f"{name}, tile {done} of {total}" if total > 1 else name)

            results.append(restorer(job, progress))


def report(results):
    """Prints the summary of a list of `Done`; returns the exit code."""
    Console(width=None if sys.stdout.isatty() else 120).print(summary.table(results))
    for line in summary.failures(results):
        print(line, file=sys.stderr)
    print(f"{summary.counts(results)} Results: {_OUTPUT.value}")
    return summary.exit_code(results)


def run():
    """Entry point: flags, then `restore`."""
    program.run(restore, program.parser_of(FLAGS, __doc__), positional=True)


if __name__ == "__main__":
    run()

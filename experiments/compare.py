"""Bilevel learning against a deep equilibrium model on photographs: one command, one report.

For each task: total variation with its weight tuned on the training photographs; a bilevel model
(fields of experts, fitted from the weight up); a deep equilibrium model started from it; and the
bilevel model trained for as many further steps on the same batches, which is what the equilibrium
model is compared with. Writes `results.json` and `report.html` into the working directory; stopped
and started again, it goes on where it was.

    python -m experiments.compare --workdir=runs/demo
    python -m experiments.compare --workdir=runs/mine --data_dir=FOLDER --tasks=denoising
    python -m experiments.compare --workdir=runs/other --config.prior.filters=48
"""

import datetime
import os
import platform
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# The backend is chosen before Keras is imported, so the library comes first.
try:
    import deq_keras as dk  # noqa: I001
except (ImportError, RuntimeError) as problem:  # it has checked them, and says what to do
    if __name__ != "__main__":
        raise
    raise SystemExit(f"Error: {problem}") from None
import keras
import numpy as np
import tensorflow as tf
from absl import app, flags, logging
from ml_collections import config_flags
from rich.console import Console
from rich.table import Table

from experiments import stages, tasks
from experiments.report import verdict, write_report
from experiments.workspace import Workspace
from trainers import evaluation, pipeline
from trainers.trainer import Interrupted, interruptible, write_json


def _misspelt(error):
    """The end of a program whose command line names an entry that the configuration has not."""
    inner = error
    while inner.args and isinstance(inner.args[0], Exception):
        inner = inner.args[0]
    name = ". ".join(str(inner.args[0]).splitlines())
    if not name.startswith("'"):
        return error  # of the configuration file itself
    return SystemExit(f"Error: The configuration has no entry {name}")


try:
    # Overrides are looked up here already, and again when a --config is parsed.
    _CONFIG = config_flags.DEFINE_config_file(
        "config",
        str(Path(__file__).parent / "configs" / "demo.py"),
        "File with a `get_config()`; --config.KEY=VALUE overrides an entry.",
    )
except (AttributeError, KeyError) as problem:
    raise _misspelt(problem) from None
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder for results; a run is continued there.")
_TASKS = flags.DEFINE_list("tasks", None, "Some of denoising, inpainting, deblurring.")
_STEPS = flags.DEFINE_integer("steps", None, "Steps of each training.", lower_bound=1)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of PNG or JPEG images to learn from.")
_SEED = flags.DEFINE_integer("seed", None, "Seed of patches and noise.", lower_bound=0)

LABELS = {
    "measurement": "Measurement",
    "total_variation": "Total variation (tuned)",
    "bilevel": "Bilevel",
    "equilibrium": "Equilibrium",
}


def effective_config():
    """The configuration file, with what the flags say in place of its entries; locked."""
    config = _CONFIG.value
    with config.unlocked():
        if _TASKS.value is not None:
            config.tasks = tuple(_TASKS.value)
        if _STEPS.value is not None:
            config.train.steps = config.train.further_steps = _STEPS.value
        if _DATA_DIR.value is not None:
            config.data.data_dir = _DATA_DIR.value
        if _SEED.value is not None:
            config.seed = _SEED.value
    # An empty variable of a shell must not be taken for the current folder, or for no folder.
    for name, value in (("workdir", _WORKDIR.value), ("data_dir", _DATA_DIR.value)):
        if value is not None and not value.strip():
            raise ValueError(f"Expected --{name} to be the name of a folder. Received {value!r}.")
    if not config.tasks:
        raise ValueError("Expected at least one task. Received an empty list.")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"Expected 0 <= seed < 2**32. Received {config.seed}.")
    counts = ("train.steps", "train.further_steps", "train.batch_size", "evaluate.training_batches")
    for name, least in (*((name, 1) for name in counts), ("evaluate.pictures", 0)):
        value = _entry(config, name)
        if value < least:
            raise ValueError(f"Expected {name} >= {least}. Received {value}.")
    for name in ("train.learning_rate", "train.further_learning_rate"):
        value = _entry(config, name)
        if not 0 < value < float("inf"):
            raise ValueError(f"Expected {name} to be finite and > 0. Received {value}.")
    return config


def _entry(config, name):
    section, name = name.split(".")
    return config[section][name]


def compare_task(work):
    """All stages of one task; its part of `results.json`, and its pictures."""
    task, config, images = work.task, work.config, work.images
    total_variation, tv_record = work.total_variation()
    start, start_record = work.bilevel()
    bilevel, bilevel_record = work.bilevel_further(start)
    equilibrium, equilibrium_record = work.equilibrium(start)
    layers = {
        "measurement": None,
        "total_variation": total_variation,
        "bilevel": bilevel,
        "equilibrium": equilibrium,
    }
    methods, pictures, residual, psnr_time = {}, {}, {}, {}
    shown = min(config.evaluate.pictures, len(images["test"].names))
    measurement, truth = work.test[0]
    for name, layer in layers.items():
        row, estimates = stages.evaluate(work, layer)
        methods[name] = {"label": LABELS[name], "seconds": None, "backward_steps": None, **row}
        pictures[name] = estimates[:shown]
        if layer is not None:
            residual[name] = evaluation.residual_curve(layer, measurement)
            psnr_time[name] = evaluation.quality_against_time(layer, measurement, truth)
    methods["total_variation"]["seconds"] = tv_record["seconds"]
    for name, record in (("bilevel", bilevel_record), ("equilibrium", equilibrium_record)):
        methods[name]["seconds"] = start_record["seconds"] + record["seconds"]
        methods[name].update(stages.diagnostics(record, name))
    curves = {
        "bilevel": _curve(start_record),
        "bilevel_further": _curve(bilevel_record, config.train.steps),
        "equilibrium": _curve(equilibrium_record, config.train.steps),
    }
    pictures["truth"] = [truth.numpy()[0] for _, truth in work.test[:shown]]
    pictures["names"] = images["test"].names[:shown]
    learned = equilibrium.cell.prior.coefficients()
    pictures["filters"] = {
        "bilevel": bilevel.prior.coefficients().analysis.numpy(),
        "equilibrium_analysis": learned.analysis.numpy(),
        "equilibrium_synthesis": learned.synthesis.numpy(),
    }
    results = {
        "title": task.title,
        "description": task.description,
        "methods": methods,
        "curves": {"training": curves, "residual": residual, "psnr_time": psnr_time},
        "details": {
            "total variation: weight": tv_record["weight"],
            "bilevel: weight before training": start_record["start"]["weight"],
            "bilevel: weight": float(tf.exp(bilevel.cell.log_weight)),
            "equilibrium: weight": float(tf.exp(equilibrium.cell.log_weight)),
            "bilevel: mean sharpness": float(np.mean(bilevel.prior.coefficients().sharpness)),
        },
    }
    if (bound := methods["bilevel"]["training_error_bound"]) is not None:
        results["details"]["bilevel: certified error of its solves, RMS"] = bound
    return results, pictures


def _curve(record, first_step=0):
    history = record["history"]
    return {
        "step": [first_step + row["step"] for row in history],
        "loss": [row["loss"] for row in history],
        "val_psnr": [row.get("val_psnr") for row in history],
    }


def print_table(results, console):
    """The numbers of all tasks, a row for each method."""
    columns = ["PSNR (dB)", "SSIM", "train loss", "test loss", "train s", "s/image"]
    columns += ["fwd its", "bwd its", "converged", "parameters"]
    keys = ["psnr", "ssim", "train_loss", "test_loss", "seconds", "solve_seconds"]
    keys += ["forward_steps", "backward_steps", "converged", "parameters"]
    forms = ["{:.2f}", "{:.4f}", "{:.3e}", "{:.3e}", "{:.0f}", "{:.2f}"]
    forms += ["{:.0f}", "{:.1f}", "{:.0%}", "{}"]
    for task in results["tasks"].values():
        table = Table("method", *columns, title=task["title"], title_justify="left")
        for method in task["methods"].values():
            values = (method[key] for key in keys)
            cells = [
                "-" if v is None else form.format(v) for form, v in zip(forms, values, strict=True)
            ]
            table.add_row(method["label"], *cells)
        console.print(table)
        console.print(verdict(task), highlight=False)
        console.print()


def prepare():
    """Configuration, workspace, images, stages: what can be wrong is found out before any work."""
    try:
        config = effective_config()
        chosen = [tasks.get(name, config) for name in config.tasks]
        workspace = Workspace(_WORKDIR.value, config.to_dict())
        data = config.data
        images = pipeline.load(
            data.data_dir or None,
            channels=data.channels,
            seed=config.seed,
            max_side=data.max_side or None,
        )
        works = [stages.Stages(task, config, images, workspace) for task in chosen]
        for work in works:
            work.check()
    except (ValueError, OSError) as error:
        raise SystemExit(f"Error: {error}") from None
    return config, workspace, images, works


def compare():
    """Everything, from the flags to the report."""
    begin = time.perf_counter()
    config, workspace, images, works = prepare()
    keras.utils.set_random_seed(config.seed)
    results = {
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": "python -m experiments.compare " + " ".join(sys.argv[1:]),
        "seed": config.seed,
        "versions": {
            "deq_keras": dk.__version__,
            "tensorflow": tf.__version__,
            "keras": keras.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
        "machine": {
            "cpus": os.cpu_count(),
            "devices": [device.name for device in tf.config.list_logical_devices()],
        },
        "config": config.to_dict(),
        "data": {
            "source": config.data.data_dir or "photographs of scikit-image",
            **{split: list(images[split].names) for split in images},
        },
        "tasks": {},
    }
    pictures = {}
    for work in works:
        name = work.task.name
        results["tasks"][name], pictures[name] = compare_task(work)
    results["seconds"] = time.perf_counter() - begin
    write_json(workspace.path / "results.json", results)
    report = write_report(workspace.path / "report.html", results, pictures)
    print_table(results, Console(width=None if sys.stdout.isatty() else 140))
    print(f"Results: {workspace.path / 'results.json'}\nReport:  {report}")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}. Options begin with --.")
    # The progress bar is for people; every model's first step would otherwise warn of tracing.
    logging.set_verbosity(logging.WARNING)
    tf.get_logger().setLevel("ERROR")
    try:
        # Training stops where nothing is lost; all else can be done again.
        with interruptible(at_once=True):
            compare()
    except Interrupted as stop:
        print(f"{stop} Run the same command again to go on.")
        raise SystemExit(128 + stop.signum) from None
    except (FloatingPointError, OSError) as error:
        raise SystemExit(f"Error: {error}") from None


def parse(argv):
    """The flags, from a command line; a wrong one ends the program with a line that says so."""
    try:
        return app.parse_flags_with_usage(argv)
    except (AttributeError, KeyError) as error:
        raise _misspelt(error) from None


def run():
    """Entry point: parse flags, then `main`."""
    flags.mark_flag_as_required("workdir")
    app.run(main, flags_parser=parse)


if __name__ == "__main__":
    run()

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

import os
import sys
import time

from experiments import command_line, config_flag

# isort: split
# They choose Keras's backend, so they come first.
import keras
import numpy as np
import tensorflow as tf
from absl import flags
from rich.console import Console
from rich.table import Table

from experiments import comparison, configuration, inverse_problem, tasks
from experiments.configs import demo
from experiments.methods import FURTHER, METHODS
from experiments.provenance import provenance
from experiments.report import verdict, write_report
from experiments.workspace import Workspace
from trainers.process.errors import ConfigurationError
from trainers.process.files import write_json
from trainers.process.signals import interruptible

flags.adopt_module_key_flags(command_line)
flags.adopt_module_key_flags(config_flag)
_TASKS = flags.DEFINE_list("tasks", None, f"Some of {', '.join(tasks.TASKS)}.")
_STEPS = flags.DEFINE_integer("steps", None, "Steps of each training.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", None, "Seed of patches and noise.", lower_bound=0)


def effective_config():
    """The configuration file, with what the flags say in place of its entries; locked."""
    command_line.check_folders()
    config = config_flag.CONFIG.value
    configuration.check_entries(config, demo.get_config(), "compare")
    with config.unlocked():
        if _TASKS.value is not None:
            config.tasks = tuple(_TASKS.value)
        if _STEPS.value is not None:
            config.train.steps = config.train.further_steps = _STEPS.value
        configuration.use_folder(config, command_line.DATA_DIR.value)
        if _SEED.value is not None:
            config.seed = _SEED.value
    if not config.tasks:
        raise ConfigurationError("Expected at least one task. Received an empty list.")
    configuration.check_names(config)
    configuration.check_seed(config)
    configuration.check_counts(
        config,
        train__steps=1,
        train__further_steps=1,
        train__batch_size=1,
        evaluate__training_batches=1,
        evaluate__pictures=0,
    )
    configuration.check_positive(config, "train.learning_rate", "train.further_learning_rate")
    return config


def compare_task(work):
    """All that is compared of one task; its part of `results.json`, and its pictures."""
    task, config, images = work.task, work.config, work.images
    total_variation, tv_record = work.total_variation_tuned()
    start, start_record = work.bilevel_first()
    bilevel, bilevel_record = work.bilevel_further(start)
    equilibrium, equilibrium_record = work.equilibrium_further(start)
    layers = (None, total_variation, bilevel, equilibrium)
    methods, pictures, curves = {}, {}, {"residual": {}, "psnr_time": {}}
    shown = min(config.evaluate.pictures, len(images["test"].names))
    for method, layer in zip(METHODS.values(), layers, strict=True):
        row, estimates, drawn = work.evaluate(layer)
        label = task.measurement_label if layer is None else method.label
        methods[method.key] = {"label": label, "seconds": None, "backward_steps": None, **row}
        pictures[method.key] = estimates[:shown]
        for kind, curve in drawn.items():
            curves[kind][method.key] = curve
    methods["total_variation"]["seconds"] = tv_record["seconds"]
    for name, record in (("bilevel", bilevel_record), ("equilibrium", equilibrium_record)):
        methods[name]["seconds"] = start_record["seconds"] + record["seconds"]
        methods[name].update(comparison.diagnostics(record, name))
    curves["training"] = {
        "bilevel": _curve(start_record),
        FURTHER.key: _curve(bilevel_record, config.train.steps),
        "equilibrium": _curve(equilibrium_record, config.train.steps),
    }
    pictures["truth"] = [truth.numpy()[0] for _, truth in work.test[:shown]]
    pictures["names"] = images["test"].names[:shown]
    pictures["filters"] = {**_filters("bilevel", bilevel), **_filters("equilibrium", equilibrium)}
    results = {
        "title": task.title,
        "description": task.description,
        "methods": methods,
        "curves": curves,
        "details": {
            "total variation: weight": tv_record["weight"],
            "bilevel: weight before training": start_record["start"]["weight"],
            "bilevel: weight": float(tf.exp(bilevel.cell.log_weight)),
            "equilibrium: weight": float(tf.exp(equilibrium.cell.log_weight)),
        },
    }
    if hasattr(bilevel.prior, "coefficients"):
        sharpness = float(np.mean(bilevel.prior.coefficients().sharpness))
        results["details"]["bilevel: mean sharpness"] = sharpness
    if (bound := methods["bilevel"]["training_error_bound"]) is not None:
        results["details"]["bilevel: certified error of its solves, RMS"] = bound
    return results, pictures


def _filters(name, layer):
    """The pictures of a layer's prior `(height, width, channels, count)`, with their titles."""
    pictures = layer.cell.prior.pictures()
    label = METHODS[name].label
    return {
        label if len(pictures) == 1 else f"{label}: {title}": np.moveaxis(picture.numpy(), 0, -1)
        for title, picture in pictures.items()
    }


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
    """Configuration, workspace, images, comparisons: what is wrong is found out before any work."""
    config = effective_config()
    chosen = [tasks.get(name, config) for name in config.tasks]
    workspace = Workspace(command_line.WORKDIR.value, config.to_dict())
    images = inverse_problem.load_images(config)
    works = [comparison.Comparison(task, config, images, workspace) for task in chosen]
    for work in works:
        work.check()
    return config, workspace, images, works


def compare():
    """Everything, from the flags to the report."""
    begin = time.perf_counter()
    config, workspace, images, works = prepare()
    keras.utils.set_random_seed(config.seed)
    results = {
        **provenance("compare"),
        "seed": config.seed,
        "machine": {
            "cpus": os.cpu_count(),
            "devices": [device.name for device in tf.config.list_logical_devices()],
        },
        "config": config.to_dict(),
        "data": {
            "source": inverse_problem.source(config),
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


def work():
    """The comparison. Training stops where nothing is lost; all else can be done again."""
    with interruptible(at_once=True):
        compare()


def run():
    """Entry point: flags, then `work`."""
    command_line.run(work, lambda argv: config_flag.parse(argv, "demo.py"))


if __name__ == "__main__":
    run()

"""Evaluation of a trained model on images: a row for each, pictures, JSON and CSV.

    python -m experiments.evaluate --workdir=runs/train
    python -m experiments.evaluate --workdir=runs/train --data_dir=FOLDER --output=runs/mine
    python -m experiments.evaluate --workdir=runs/train --solver=newton_krylov --output=runs/newton

The model is that of `experiments.train` in the working directory, with the weights of its best
epoch. The images are the test split of its training; with `--data_dir` the folder's own: its `test`
split if it has one, else all of it. The solver is that of the training, unless `--solver`,
`--tolerance` or `--max_steps` say otherwise; the results say which it was. After a training in
mixed precision, `--precision=float32` computes with all digits. Writes `results.json`,
`results.csv`, `pictures/` (measurement, reconstruction, truth, error), `reconstructions/`,
`filters/`, and `training.html`, the curves of the training.
"""

import csv
import os
import re
import sys
from pathlib import Path

from experiments import command_line

# isort: split
# It chooses Keras's backend, so it comes first.
import keras
import numpy as np
from absl import flags
from ml_collections import ConfigDict
from rich.console import Console
from rich.table import Table
from rich.text import Text

from deq_keras.plot.pictures import as_picture
from experiments import (
    configuration,
    evaluation,
    inverse_problem,
    other_solver,
    tasks,
    trained,
    training_page,
)
from experiments.provenance import provenance
from experiments.report import images as drawing
from experiments.report.sheet import filter_picture, sheet
from experiments.workspace import read_config
from trainers.callbacks.model_solver import solver_of
from trainers.callbacks.tensorboard import learned_filters
from trainers.datasets.folder import MAX_PIXELS, named_splits, read_folder
from trainers.datasets.images import SPLITS, ImageSet
from trainers.process.files import make_writable, write_json

flags.adopt_module_key_flags(command_line)
flags.adopt_module_key_flags(trained)
flags.adopt_module_key_flags(other_solver)
_SPLIT = flags.DEFINE_enum("split", None, ["test", "all"], "Which of the images.")
_MAX_SIDE = flags.DEFINE_integer(
    "max_side", None, "Shrink larger images to this side; 0: none; as in training if not given.", 0
)
_MAX_PIXELS = flags.DEFINE_integer(
    "max_image_pixels", None, "With a folder: refuse larger images; as in training if not given.", 1
)
_PICTURES = flags.DEFINE_integer("pictures", 20, "Number of images that are drawn.", 0)

COLUMNS = ("name", "psnr", "ssim", "loss", "steps", "residual", "converged", "error_bound")
COLUMNS += ("seconds",)
_FORMS = ("{}", "{:.2f}", "{:.4f}", "{:.3e}", "{:.0f}", "{:.1e}", "{}", "{:.1e}", "{:.2f}")


def load_config():
    """The configuration of the training, with what the flags say of the images."""
    command_line.check_folders()
    other_solver.check_flags()
    config = ConfigDict(read_config(command_line.WORKDIR.value))
    trained.check_training(config, command_line.WORKDIR.value)
    return config


def load_images(config):
    """The images to evaluate, an `ImageSet`, and what they are, for people.

    Args:
        config: The configuration of the training.
    """
    trained_on, given = config.data.data_dir, command_line.DATA_DIR.value
    folder = given if given is not None else trained_on
    own = given is not None and not (trained_on and _same(given, trained_on))
    for name, flag in (("max_side", _MAX_SIDE), ("max_pixels", _MAX_PIXELS)):
        if flag.value is not None:
            config.data[name] = flag.value
    if folder:
        configuration.use_folder(config, folder)
    source = inverse_problem.source(config)
    split, named = _SPLIT.value, {}
    if own and split != "all":
        with inverse_problem.bad_images():
            named = named_splits(folder)
        split = split or ("test" if "test" in named else "all")
    if folder and (split == "all" or "test" in named):
        with inverse_problem.bad_images():
            found = read_folder(
                folder,
                config.data.channels,
                max_side=config.data.max_side or None,
                max_pixels=config.data.get("max_pixels") or MAX_PIXELS,
                names=named["test"] if split == "test" else None,
            )
        what = "test split" if split == "test" else "all"
        return ImageSet(*zip(*found, strict=True)), f"{what} of {source}"
    splits = inverse_problem.load_images(config)
    if split != "all":
        return splits["test"], f"test split of {source}"
    parts = [splits[name] for name in SPLITS]
    names = sum((part.names for part in parts), ())
    return ImageSet(names, sum((part.images for part in parts), ())), f"all of {source}"


def _same(folder, other):
    return len({os.path.realpath(os.path.expanduser(name)) for name in (folder, other)}) == 1


def draw(output, rows, estimates, problem, model):
    """Writes pictures, reconstructions and filters.

    Args:
        output: The folder.
        rows: A row of results for each image.
        estimates: The reconstructions.
        problem: The `InverseProblem`.
        model: The Keras model.
    """
    for name in ("pictures", "reconstructions", "filters"):
        (output / name).mkdir(exist_ok=True)
    task = problem.task
    shown = list(zip(rows, estimates, problem.test, strict=True))[: _PICTURES.value]
    for number, (row, estimate, (measurement, truth)) in enumerate(shown):
        # Images of two folders may have one name.
        stem = re.sub(r"[^\w.-]+", "_", Path(row["name"]).stem)
        name = f"{number:04d} {stem}.png"
        panels = (
            (
                task.measurement_label,
                np.asarray(task.picture(measurement))[0],
            ),
            (f"Reconstruction, SSIM {row['ssim']:.3f}", estimate),
            ("Truth", truth.numpy()[0]),
        )
        sheet(row["name"], panels, output / "pictures" / name)
        content = drawing.file_bytes(as_picture(estimate))
        (output / "reconstructions" / name).write_bytes(content)
    for name, kernel in learned_filters(model):
        path = output / "filters" / f"{name.replace('/', ' ')}.png"
        path.write_bytes(filter_picture(kernel))


def print_table(rows, means, title, console):
    """A row for each image, and their mean."""
    # Names of images and folders may have [brackets], which are no markup.
    table = Table(*COLUMNS, title=Text(title, "table.title"), title_justify="left")
    for row in [*rows, {"name": "mean", **means}]:
        cells = zip(COLUMNS, _FORMS, strict=True)
        texts = ("-" if row.get(k) is None else form.format(row[k]) for k, form in cells)
        table.add_row(*map(Text, texts))
    console.print(table)


def evaluate():
    """Everything, from the flags to the pictures."""
    config = load_config()
    output = Path(trained.OUTPUT.value or Path(command_line.WORKDIR.value) / "evaluation")
    make_writable(output, "folder", "Name another one with --output.")
    keras.utils.set_random_seed(config.seed)
    images, source = load_images(config)
    task = tasks.get(config.task, config)
    problem = inverse_problem.InverseProblem(task, config, {"test": images})
    problem.check_sizes()
    model, position, precision = trained.restored(
        problem,
        config,
        command_line.WORKDIR.value,
        trained.CHECKPOINT.value,
        trained.PRECISION.value,
    )
    solvers = other_solver.apply(model, problem.test[0][0])
    solver = solver_of(model)
    _, rows, estimates = evaluation.evaluate(solver, problem.test, images.names, bounds=True)
    _, measured, _ = evaluation.evaluate(None, problem.test, images.names, picture=task.picture)
    means = {key: evaluation.mean(rows, key) for key in COLUMNS[1:]}
    write_json(
        output / "results.json",
        {
            **provenance("evaluate"),
            "checkpoint": {
                "which": trained.CHECKPOINT.value,
                "step": position.step,
                "epoch": position.epoch,
                "precision": precision,
            },
            "solvers": solvers,
            "config": config.to_dict(),
            "data": {"source": source, "max_side": config.data.max_side, "images": len(images)},
            "means": means,
            "shown_of_measurement": task.picture_name or "measurement",
            "measurement": {key: evaluation.mean(measured, key) for key in COLUMNS[1:4]},
            "images": [{key: row.get(key) for key in COLUMNS} for row in rows],
        },
    )
    with open(output / "results.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    draw(output, rows, estimates, problem, model)
    training_page.write(command_line.WORKDIR.value, output)
    title = f"{config.model}, {config.task}, {trained.CHECKPOINT.value} checkpoint, {source}"
    if solvers:
        title += f"\n{other_solver.words(solvers)}"
    print_table(rows, means, title, Console(width=None if sys.stdout.isatty() else 140))
    print(f"Results: {output / 'results.json'}, {output / 'results.csv'}")


def run():
    """Entry point: flags, then `evaluate`."""
    command_line.run(evaluate)


if __name__ == "__main__":
    run()

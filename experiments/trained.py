"""Trained models: of a training or a comparison, rebuilt with the weights that were kept."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import keras
from absl import flags
from ml_collections import ConfigDict

import deq_keras as dk
from experiments import configuration, inverse_problem, models, tasks
from experiments.configs import demo
from experiments.methods import FURTHER, RECONSTRUCTIONS
from experiments.workspace import read_config, read_json, without
from trainers.process import folder_flag
from trainers.process.errors import ConfigurationError, unknown_name
from trainers.process.files import load_weights
from trainers.training import Trainer
from trainers.training.options import PRECISIONS

# Flags of the programs that look at a finished run.
CHECKPOINT = flags.DEFINE_enum(
    "checkpoint", "best", ["best", "latest"], "Which weights of a training."
)
PRECISION = flags.DEFINE_enum(
    "precision",
    None,
    PRECISIONS,
    "Of a training's model, such as float32 after mixed_bfloat16; the training's if not given.",
)
LICENCE = flags.DEFINE_string("licence", None, "export, preset: licence of the weights.")
OUTPUT = folder_flag.define(
    "output",
    None,
    "Folder for results. evaluate: WORKDIR/evaluation if none; export: models/NAME, needed.",
)


@dataclasses.dataclass
class Trained:
    """A model with the weights of a run, and what the run says of it.

    Attributes:
        model: The Keras model.
        task: Its `experiments.tasks.Task`.
        name: What it is called, such as `"bilevel"`.
        config: The configuration of the run.
        weights: Which weights these are, for people.
        metrics: Means over the test images, from names to numbers; empty if it was not evaluated.
    """

    model: keras.Model
    task: tasks.Task
    name: str
    config: ConfigDict
    weights: str
    metrics: dict[str, Any]


def load(workdir, which="best", task=None, name=None, precision=None):
    """The model of a working directory of `experiments.train` or `experiments.compare`.

    Args:
        workdir: The working directory.
        which: Of a training, which weights: `"best"` or `"latest"`.
        task: Of a comparison, which task; its only one if it is `None`.
        name: Of a comparison, which model: `"total_variation"`, `"bilevel"` or `"equilibrium"`.
        precision: Of a training, one of `PRECISIONS`; `None` for its own.

    Raises:
        ConfigurationError: If the folder holds no such run, or it has not got so far.
    """
    config = ConfigDict(read_config(workdir))
    if "tasks" in config:
        return _of_comparison(config, Path(workdir), task, name)
    check_training(config, workdir)
    if task is not None or name is not None:
        raise ConfigurationError(
            f"Expected --task and --model for a comparison only. {str(workdir)!r} holds one model: "
            "leave them out."
        )
    problem = inverse_problem.InverseProblem(tasks.get(config.task, config), config, {})
    model, position, _ = restored(problem, config, workdir, which, precision)
    found = _read(Path(workdir) / "evaluation" / "results.json")
    same = found.get("checkpoint", {}).get("step") == position.step
    # Another solver of the evaluation is not the one that comes with this model.
    same &= not any("training" in solver for solver in found.get("solvers", {}).values())
    return Trained(
        model,
        problem.task,
        config.model,
        config,
        f"{which} epoch, {position.epoch}, after {position.step} steps",
        found.get("means", {}) if same else {},
    )


def start_weights(config, workdir):
    """The weights that a training starts from: of the prior of the folder `train.start`.

    Args:
        config: The configuration of the training.
        workdir: Its working directory.

    Returns:
        A list of arrays, of the best epoch there; `None` if the prior starts anew, or if the
        training goes on from a checkpoint of its own.

    Raises:
        ConfigurationError: If that folder holds no training with a prior.
    """
    start = config.train.get("start")
    if not start or models.goes_on(workdir):
        return None
    found = load(start)
    if found.name not in models.MODELS or config.model not in models.MODELS:
        raise ConfigurationError(
            f"Expected models of {sorted(models.MODELS)} for train.start. Received {found.name!r} "
            f"to start {config.model!r} from: give your own model its weights in its function."
        )
    (layer,) = (one for one in found.model.layers if one.name == found.name)
    return models.learned_part(layer).get_weights()


def cell_of(found, workdir):
    """What has the prior and the weight of a `Trained` model, as `prior` and `log_weight`.

    Returns:
        A `deq_keras.layers.GradientStep`, or a `deq_keras.layers.OneStepDenoiser`.

    Raises:
        ConfigurationError: If it has none; the working directory is named.
    """
    layers = [one for one in found.model.layers if isinstance(one, dk.layers.Equilibrium)]
    cells = [one.cell for one in layers if isinstance(one.cell, dk.layers.GradientStep)]
    cells += [one for one in found.model.layers if isinstance(one, dk.layers.OneStepDenoiser)]
    if len(cells) != 1:
        raise ConfigurationError(
            f"Expected the training of a model with a prior. {str(workdir)!r} holds {found.name!r}."
        )
    return cells[0]


def check_training(config, workdir):
    """Raises a `ConfigurationError` unless a configuration is one of `experiments.train`."""
    try:
        configuration.check_training(config)
    except (KeyError, AttributeError, TypeError) as error:
        raise ConfigurationError(
            f"Expected --workdir to be the folder of a training by experiments.train. "
            f"{str(workdir)!r} holds something else: {error}"
        ) from None


def restored(problem, config, workdir, which="best", precision=None):
    """The model of a working directory of `experiments.train`, with its weights.

    Args:
        problem: An `experiments.inverse_problem.InverseProblem`.
        config: The configuration of the training.
        workdir: Its working directory.
        which: `"best"` or `"latest"`.
        precision: One of `PRECISIONS`; `None` for that of the training.

    Returns:
        `(model, position, precision)`: the model, the position in the training, and the precision.
    """
    weight = config.train.weight or 0.1  # what was trained takes its place
    build = models.builder(problem, config, weight)
    options = configuration.training_options(config)
    trainer = Trainer(
        build, workdir, options=options, config=without(read_config(workdir), config.may_change)
    )
    trainer.restore(which)
    if precision in (None, options.precision):
        return trainer.model, trainer.position, options.precision
    with dataclasses.replace(options, precision=precision).policy():
        model = build()
    model.set_weights(trainer.model.get_weights())
    return model, trainer.position, precision


def _of_comparison(config, workdir, task, name):
    configuration.check_entries(config, demo.get_config(), "compare")
    known = list(config.tasks)
    if task is None and len(known) > 1:
        raise ConfigurationError(f"Expected --task to be one of {known}. Received none.")
    task = known[0] if task is None else task
    if task not in known:
        raise unknown_name("task of this comparison", task, known)
    if name not in RECONSTRUCTIONS:
        raise unknown_name("model of a comparison (--model)", name, RECONSTRUCTIONS)
    make = {"total_variation": models.total_variation, **models.MODELS}[name]
    problem = inverse_problem.InverseProblem(tasks.get(task, config), config, {})
    layer = make(problem.task, config)
    model = models.model(layer, problem.inputs())
    # The bilevel model that the equilibrium model is compared with is the one trained further.
    folder = workdir / task / (FURTHER.key if name == "bilevel" else name)
    record = _read(folder / "done.json")
    if not record:
        raise ConfigurationError(
            f"Expected a comparison that has trained {name!r} for {task!r}. {str(folder)!r} holds "
            "no result: run experiments.compare with this --workdir first."
        )
    if name == "total_variation":
        layer.cell.log_weight.assign(math.log(record["weight"]))
    else:
        load_weights(model, folder / "final.weights.h5")
    results = _read(workdir / "results.json")
    row = results.get("tasks", {}).get(task, {}).get("methods", {}).get(name, {})
    keys = ("psnr", "ssim", "test_loss", "forward_steps", "converged", "solve_seconds")
    return Trained(
        model, problem.task, name, config, "after the whole training", {k: row.get(k) for k in keys}
    )


def _read(path):
    """A JSON object, empty if there is none."""
    content = read_json(path) if path.is_file() else None
    return content if isinstance(content, dict) else {}

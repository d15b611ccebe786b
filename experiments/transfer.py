"""A trained prior on another inverse problem: two numbers fitted on a few images, nothing else.

    python -m experiments.transfer --preset=wcrr_bsd400 --config.task=deblurring \\
        --data_dir=FOLDER --workdir=runs/transfer
    python -m experiments.transfer --from=runs/mine --config.task=inpainting --workdir=runs/transfer

Takes the prior of a preset of `deq_keras.presets` (or a folder of `experiments.preset`), or of a
working directory of `experiments.train`, whose images and seed are then taken as well. Fits its
weight and one more number on the first training images: the noise level if the prior takes one,
else the scale `s` of `dk.priors.Rescaled`, `R(s u) / s`. Tunes the weight of total variation on the
same images, and evaluates both on the test split, which nothing is fitted to. Writes
`results.json`, prints a table, and says who is ahead. Started again, it goes on.
"""

import math
import sys
import time
from pathlib import Path

from experiments import command_line, config_flag

# isort: split
# They choose Keras's backend, so they come first.
import keras
import tensorflow as tf
from absl import flags
from rich.console import Console
from rich.table import Table
from rich.text import Text

import deq_keras as dk
from experiments import configuration, evaluation, inverse_problem, models, tasks, trained
from experiments.configs import transfer as default
from experiments.provenance import provenance
from experiments.tuning import Scalar, tune
from experiments.workspace import Workspace
from trainers.callbacks.model_solver import LayerSolver
from trainers.process.errors import ConfigurationError
from trainers.process.files import write_json
from trainers.process.folder_flag import define as define_folder

flags.adopt_module_key_flags(command_line)
flags.adopt_module_key_flags(config_flag)
_PRESET = flags.DEFINE_string("preset", None, "Name or folder of a preset with the prior.")
_FROM = define_folder("from", None, "Working directory of a training with the prior.")

_COLUMNS = {"psnr": "{:.2f}", "ssim": "{:.4f}", "converged": "{:.0%}", "steps": "{:.0f}"}
_COLUMNS |= {"seconds": "{:.2f}"}
_NUMBERS = ("weight", "scale", "noise_level")  # what is fitted, some of them


def load_prior(config):
    """The prior that the flags name, and the weight that belongs to it.

    Of a working directory the configuration takes over the images and the seed.

    Raises:
        ConfigurationError: If not one of the flags names one.
    """
    if (_PRESET.value is None) == (_FROM.value is None):
        raise ConfigurationError(
            f"Expected --preset or --from, one of them. Received --preset={_PRESET.value!r} and "
            f"--from={_FROM.value!r}."
        )
    if _FROM.value is not None:
        found = trained.load(_FROM.value, trained.CHECKPOINT.value)
        cell = trained.cell_of(found, _FROM.value)
        config.seed, config.data = found.config.seed, found.config.data
        return cell.prior, math.exp(float(cell.log_weight))
    try:
        return dk.presets.load(_PRESET.value), float(dk.presets.card(_PRESET.value)["weight"])
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def adjustable(prior, noise):
    """The prior with one number to fit, and where to look for it: `(prior, name, low, high)`."""
    if prior.takes_noise_level:
        noise = noise or 0.1
        return dk.priors.AtNoiseLevel(prior, noise), "noise_level", noise / 4, 4 * noise
    return dk.priors.Rescaled(prior), "scale", 1 / 4, 16.0


def layer_of(prior, problem, name):
    """A built layer that reconstructs by a prior."""
    config, operator = problem.config.solve, problem.task.operator()
    if prior.has_energy:
        layer = dk.layers.Variational(operator, prior, solver=dk.solvers.LBFGS(), name=name)
    else:
        cell = dk.layers.GradientStep(operator, prior)
        layer = dk.layers.Equilibrium(cell, dk.solvers.get(config.solver_of_maps), name=name)
    layer.solver.tolerance, layer.solver.max_steps = config.tolerance, config.max_steps
    models.model(layer, problem.inputs())
    return layer


def total_variation(problem):
    """The layer of total variation, and what is tuned of it."""
    prior = dk.priors.TotalVariation(problem.config.total_variation.smoothing)
    layer = layer_of(prior, problem, "total_variation")
    return layer, {"weight": Scalar(layer.cell.log_weight, 1e-4, 1.0, 7)}


def transferred(problem, prior, weight, noise):
    """The layer of the trained prior, and the two numbers that are fitted."""
    prior, name, low, high = adjustable(prior, noise)
    layer = layer_of(prior, problem, "transferred")
    return layer, {
        "weight": Scalar(layer.cell.log_weight, 1e-2 * weight, 10 * weight, 7),
        name: Scalar(getattr(prior, f"log_{name}"), low, high, 7),
    }


def measure(layer, scalars, problem, batches):
    """Fits a layer, and evaluates it on the test images; a record for `results.json`."""
    begin = time.perf_counter()
    tuned = tune(layer, scalars, batches, problem.config.tuning.refinements)
    tuned["seconds"] = time.perf_counter() - begin
    ends = {n: (s.low, s.high) for n, s in scalars.items()}
    tuned["at_the_end"] = [n for n, pair in ends.items() if tuned[n] in pair]
    names = problem.images["test"].names
    _, rows, _ = evaluation.evaluate(LayerSolver(layer), problem.test, names)
    return {"tuned": tuned, "means": _means(rows), "images": rows}


def _means(rows):
    return {key: evaluation.mean(rows, key) for key in _COLUMNS}


def print_table(methods, numbers, title, console):
    """A row for each method."""
    table = Table("method", *numbers, *_COLUMNS, title=Text(title, "table.title"))
    for name, record in methods.items():
        tuned = record.get("tuned", {})
        row = [f"{tuned[n]:.4g}" if n in tuned else "-" for n in numbers]
        means = record["means"]
        row += ["-" if means[k] is None else form.format(means[k]) for k, form in _COLUMNS.items()]
        table.add_row(*map(Text, (name.replace("_", " "), *row)))
    console.print(table)


def verdict(methods):
    """A sentence that says who is ahead, and one for each fit that ended where its grid does."""
    ours, other = (
        {row["name"]: row["psnr"] for row in methods[name]["images"]}
        for name in ("transferred", "total_variation")
    )
    ahead = methods["transferred"]["means"]["psnr"] - methods["total_variation"]["means"]["psnr"]
    wins = sum(ours[name] > other[name] for name in ours)
    lines = [
        f"The prior is {abs(ahead):.2f} dB {'ahead of' if ahead > 0 else 'behind'} total "
        f"variation, and better on {wins} of {len(ours)} images."
    ]
    for name, record in methods.items():
        for number in record.get("tuned", {}).get("at_the_end", ()):
            value = record["tuned"][number]
            lines.append(f"The {number} of {name} is at the end of its grid, {value:.4g}.")
    return lines


def transfer():
    """Everything, from the flags to the table."""
    command_line.check_folders()
    config = config_flag.CONFIG.value
    configuration.check_entries(config, default.get_config(), "transfer")
    with config.unlocked():
        prior, weight = load_prior(config)
    configuration.use_folder(config, command_line.DATA_DIR.value)
    configuration.check_seed(config)
    configuration.check_counts(config, tuning__images=1, tuning__refinements=0, solve__max_steps=1)
    configuration.check_positive(config, "solve.tolerance", "total_variation.smoothing")
    keras.utils.set_random_seed(config.seed)
    tf.config.experimental.enable_op_determinism()
    task = tasks.get(config.task, config)
    problem = inverse_problem.InverseProblem(task, config, inverse_problem.load_images(config))
    problem.check_sizes()
    source = _PRESET.value or _FROM.value
    workspace = Workspace(command_line.WORKDIR.value, {**config.to_dict(), "prior": source})
    names, batches = problem.whole_training_images(config.tuning.images)
    noise = config[config.task].noise
    _, rows, _ = evaluation.evaluate(
        None, problem.test, problem.images["test"].names, picture=task.picture
    )
    methods = {"measurement": {"means": _means(rows), "images": rows}}
    for name, make in (
        ("total_variation", lambda: total_variation(problem)),
        ("transferred", lambda: transferred(problem, prior, weight, noise)),
    ):
        methods[name] = workspace.once(
            (name,), lambda make=make: measure(*make(), problem, batches)
        )
    lines = verdict(methods)
    results = Path(command_line.WORKDIR.value) / "results.json"
    write_json(
        results,
        {
            **provenance("transfer"),
            "config": workspace.config,
            "data": {"source": inverse_problem.source(config), "images": len(problem.test)},
            "tuned_on": names,
            "verdict": lines,
            "methods": methods,
        },
    )
    title = f"{source}, {task.title}, tuned on {len(names)} images, {len(problem.test)} to test"
    console = Console(width=None if sys.stdout.isatty() else 140)
    numbers = [key for key in methods["transferred"]["tuned"] if key in _NUMBERS]
    print_table(methods, numbers, title, console)
    print("\n".join(lines))
    print(f"Results: {results}")


def run():
    """Entry point: flags, then `transfer`."""
    command_line.run(transfer, lambda argv: config_flag.parse(argv, "transfer.py"))


if __name__ == "__main__":
    run()

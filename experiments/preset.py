"""A preset of `deq_keras.presets` from a trained and evaluated model.

    python -m experiments.evaluate --workdir=runs/mine
    python -m experiments.preset --workdir=runs/mine --output=presets/mine \\
        --description="Weakly convex ridge regulariser" --data="400 photographs" \\
        --command="python -m experiments.train --config=…" --licence=Apache-2.0

Writes the prior's configuration and weights, and a card: what the flags say, and from the working
directory weight, noise, time of training and results on the test images.
"""

from pathlib import Path

from experiments import command_line

# isort: split
# It chooses Keras's backend, so it comes first.
import numpy as np
from absl import flags

import deq_keras as dk
from experiments import trained
from experiments.report.training import read_metrics
from trainers.callbacks import metrics_log
from trainers.process.errors import ConfigurationError
from trainers.process.files import make_writable

flags.adopt_module_key_flags(command_line)
flags.adopt_module_key_flags(trained)
_TEXTS = {
    name: flags.DEFINE_string(name, None, text)
    for name, text in {
        "description": "What the prior is, in a sentence.",
        "data": "The images it was trained on, and what their licence allows.",
        "command": "The command that trained it.",
    }.items()
}


def preset():
    """Everything, from the flags to the files."""
    command_line.check_folders()
    workdir = Path(command_line.WORKDIR.value)
    wanted = {"output": trained.OUTPUT, **_TEXTS, "licence": trained.LICENCE}
    if missing := [f"--{name}" for name, flag in wanted.items() if not flag.value]:
        raise ConfigurationError(f"Expected {', '.join(wanted)}. Received no {missing}.")
    found = trained.load(workdir, trained.CHECKPOINT.value, precision=trained.PRECISION.value)
    cell = trained.cell_of(found, workdir)
    if not found.metrics:
        raise ConfigurationError(
            f"Expected an evaluation of these weights in {str(workdir / 'evaluation')!r}. Found "
            f"none: run python -m experiments.evaluate --workdir={workdir} first."
        )
    channels = found.model.output.shape[-1]
    _, epochs = read_metrics(workdir / metrics_log.NAME)
    seconds = sum(row["seconds"] for row in epochs)
    output = trained.OUTPUT.value
    make_writable(output, "folder", "Name another one with --output.")
    task = found.config[found.config.task]
    card = {
        **{name: flag.value for name, flag in _TEXTS.items()},
        "licence": trained.LICENCE.value,
        "channels": channels,
        "parameters": int(sum(np.prod(v.shape) for v in cell.prior.trainable_variables)),
        "weight": float(np.exp(cell.log_weight)),
        "noise": float(task.noise),
        "results": {
            "task": found.config.task,
            "images": "test split",
            "weights": found.weights,
            **{name: round(found.metrics[name], 4) for name in ("psnr", "ssim")},
        },
        "time": f"{seconds / 60:.0f} minutes with validation, on the machine of the training",
    }
    dk.presets.save(cell.prior, output, card)
    print(f"Preset: {output}")


def run():
    """Entry point: flags, then `preset`."""
    command_line.run(preset)


if __name__ == "__main__":
    run()

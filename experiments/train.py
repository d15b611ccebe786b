"""Training of one model, on one or many devices and machines; it goes on after any stop.

    python -m experiments.train --config=experiments/configs/train_demo.py --workdir=runs/train
    python -m experiments.train --workdir=runs/mine --data_dir=FOLDER --config.model=equilibrium
    python -m trainers.launch --num_workers=2 -- \\
        python -m experiments.train --workdir=runs/two --strategy=multi_worker

Writes into the working directory: `config.json`, the configuration as it was; `metrics.jsonl`, a
line a step and a line an epoch; `training.html`, their curves; `tensorboard/`; `checkpoints/` and
`best/`; at the end `final.weights.h5`. Started again, it goes on from the last checkpoint. The exit
codes are those of `trainers.process.exits`; `experiments.evaluate` looks at the result.
"""

import tempfile
from pathlib import Path

from experiments import command_line, config_flag

# isort: split
# They choose Keras's backend, so they come first.
import keras
import tensorflow as tf
from absl import flags

from experiments import configuration, inverse_problem, models, tasks, trained
from experiments.configs import train_demo
from experiments.training_page import TrainingPage
from experiments.workspace import Workspace, without
from trainers.callbacks.conditioning import ConditioningMeasure
from trainers.callbacks.model_solver import solving_layers
from trainers.callbacks.phases import Phases
from trainers.callbacks.tensorboard import TensorBoard
from trainers.cluster import strategy as strategies
from trainers.process import files
from trainers.process.errors import ConfigurationError
from trainers.training import Trainer

flags.adopt_module_key_flags(command_line)
flags.adopt_module_key_flags(config_flag)
_STRATEGY = flags.DEFINE_enum("strategy", "none", strategies.NAMES, "How to distribute.")
_CLUSTER_TIMEOUT = flags.DEFINE_float(
    "cluster_timeout", 50.0, "Seconds to wait for all workers to come up.", lower_bound=0.0
)


def effective_config():
    """The configuration file, with what the flags say in place of its entries; locked."""
    command_line.check_folders()
    config = config_flag.CONFIG.value
    configuration.check_entries(config, train_demo.get_config(), "train")
    configuration.use_folder(config, command_line.DATA_DIR.value)
    configuration.check_training(config)
    return config


def callbacks(problem, config, trainer):
    """The Keras callbacks that a configuration asks for."""
    train, found = config.train, []
    watched = {"monitor": trainer.monitor.name, "mode": trainer.monitor.mode}
    if train.reduce_on_plateau:
        found.append(
            keras.callbacks.ReduceLROnPlateau(
                factor=0.5, patience=train.reduce_on_plateau, **watched
            )
        )
    if train.early_stopping:
        found.append(keras.callbacks.EarlyStopping(patience=train.early_stopping, **watched))
    if train.tensorboard:
        examples = next(iter(problem.validation(clean=True))) if trainer.is_chief else None
        folder = trainer.workdir / "tensorboard"
        pictures = config.evaluate.pictures
        found.append(
            TensorBoard(
                folder,
                lambda: trainer.position.step,
                examples,
                pictures,
                show=problem.task.picture,
            )
        )
    found.append(TrainingPage(trainer.workdir))
    if train.phases:
        found.append(Phases(train.phases, trainer.stepper))
    return found


def measure(problem, config, trainer):
    """What is measured after each epoch beside the validation, `None` for nothing.

    Raises:
        ConfigurationError: If it is the conditioning of a model that solves nothing.
    """
    if not config.train.conditioning:
        return None
    if not solving_layers(trainer.model):
        raise ConfigurationError(
            f"Expected a model with a layer that is solved, for train.conditioning. Received "
            f"{config.model!r}, which has none: set train.conditioning to False."
        )
    measurement, _ = next(iter(problem.validation()))  # of all workers the same
    return ConditioningMeasure(trainer.model, measurement)


def save_final(trainer):
    """Writes `final.weights.h5`. All workers take part, for what metrics hold is read from all."""
    if trainer.is_chief:
        files.save_weights(trainer.model, trainer.workdir / "final.weights.h5")
        return
    with tempfile.TemporaryDirectory() as folder:
        trainer.model.save_weights(Path(folder) / "other.weights.h5")


def summary(history, monitor):
    """A line that says what was reached, and in which epoch."""
    last = history[-1]
    rows = [row for row in history if row.get(monitor.name) is not None]
    choose = min if monitor.mode == "min" else max
    best = choose(rows, key=lambda row: row[monitor.name], default=last)
    line = f"Trained for {last['epoch']} epochs, {last['step']} steps."
    for what, row in (("Best", best), ("Last", last)):
        shown = (f"{k} {row[k]:.4g}" for k in ("loss", "val_loss", "val_psnr") if row.get(k))
        line += f" {what}, epoch {row['epoch']}: {', '.join(shown)}."
    return line


def train():
    """Everything, from the flags to the weights."""
    config = effective_config()
    workdir, entries = command_line.WORKDIR.value, config.to_dict()
    # Every worker looks whether the folder is that of this configuration, as soon as it can.
    Workspace(workdir, entries, (*config.may_change, "images"), writes=False)
    # Before any operation of TensorFlow.
    strategy = strategies.get(_STRATEGY.value, cluster_timeout=_CLUSTER_TIMEOUT.value)
    keras.utils.set_random_seed(config.seed)
    if config.train.deterministic:
        tf.config.experimental.enable_op_determinism()
    task = tasks.get(config.task, config)
    images = inverse_problem.load_images(config)
    entries["images"] = inverse_problem.fingerprint(images)
    problem = inverse_problem.InverseProblem(task, config, images)
    problem.training()  # are all images large enough?
    problem.validation()
    start = trained.start_weights(config, workdir)
    weight = models.first_weight(problem, config, workdir, start)
    trainer = Trainer(
        models.builder(problem, config, weight, start),
        workdir,
        strategy=strategy,
        options=configuration.training_options(config),
        config=without(entries, config.may_change),
    )
    whole = config.train.validation == "images"

    def batches(context, step):
        return problem.training(step, input_context=context)

    batches.describe = problem.describe  # of an image whose gradient is not finite, in messages

    def validate(context):
        return problem.validation(context, whole)

    validation = validate if config.train.validation else None
    trainer.prepare(batches, validation)  # what cannot be monitored is refused, and may be mended
    workspace = Workspace(workdir, entries, config.may_change, writes=trainer.is_chief)
    if trainer.is_chief:
        workspace.write_config()
    history = trainer.fit(
        batches,
        epochs=config.train.epochs,
        steps_per_epoch=config.train.steps_per_epoch,
        validation=validation,
        measure=measure(problem, config, trainer),
        callbacks=callbacks(problem, config, trainer),
    )
    save_final(trainer)
    if trainer.is_chief:
        print(summary(history, trainer.monitor))


def run():
    """Entry point: flags, then `train`."""
    command_line.run(train, lambda argv: config_flag.parse(argv, "train_demo.py"))


if __name__ == "__main__":
    run()

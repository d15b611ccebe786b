"""What the workers of the tests run: a training that hurts itself where it is told to.

    python -m tests.trainers.drill WORKDIR RUNS STRATEGY [FAULTS]

RUNS are separated by commas: each is a MODEL, trained in WORKDIR/MODEL, or FOLDER=MODEL.

FAULTS is a JSON file: a list of `{"worker", "kind", "step", "delay"}`. In the n-th attempt the n-th
of them happens: the worker sends itself a real signal (`"KILL"`, `"STOP"`) so many seconds after
the beginning of that step, or the next that is made, or (`"SAVE"`) of the writing of its
checkpoint. What has happened is noted in `FAULTS.done`.
"""

import dataclasses
import json
import os
import signal
import threading
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

import deq_keras as dk
from trainers.cluster import strategy as strategies
from trainers.process.exits import exit_codes
from trainers.training import Options, Trainer
from trainers.training.checkpoints import Checkpoints

BATCH, EPOCHS, STEPS = 7, 4, 5  # 7 images divide neither by two workers nor by two devices
VALIDATION = 5
OPTIONS = Options(clip_norm=1.0, average=0.9, save_every=3, keep=2)


def images(count, seed):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(size=(count, 8, 8, 1)).astype(np.float32)
    return truth + 0.1 * rng.normal(size=truth.shape).astype(np.float32), truth


def batches(context, start):
    """This worker's part of the batches from a step on, made of nothing but the step."""
    replicas = context.num_replicas_in_sync
    local = replicas // context.num_input_pipelines
    first = context.input_pipeline_id * local

    def generate():
        for step in range(start, EPOCHS * STEPS):
            arrays = images(BATCH, step)
            for replica in range(first, first + local):
                cut = slice(BATCH * replica // replicas, BATCH * (replica + 1) // replicas)
                yield tuple(array[cut] for array in arrays)

    spec = tf.TensorSpec((None, 8, 8, 1))
    return tf.data.Dataset.from_generator(generate, output_signature=(spec, spec))


def validation(context):
    """This worker's validation images, one at a time: three of the one, two of the other."""
    pairs = tf.data.Dataset.from_tensor_slices(images(VALIDATION, 1000))
    return pairs.shard(context.num_input_pipelines, context.input_pipeline_id).batch(1)


def conv():
    """Small, for each start traces it anew, but with states of its own: moving means, a seed."""
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(1, 3, padding="same", use_bias=False),
            layers.BatchNormalization(scale=False),
            layers.Dropout(0.3, seed=5),
        ]
    )
    net.compile(keras.optimizers.Adam(0.01), "mse", metrics=[dk.metrics.PSNR()])
    return net


def bilevel():
    # Of all solvers and boundaries these are the quickest to trace, which each start does anew.
    prior = dk.priors.FieldsOfExperts(filters=2, kernel_size=3, padding="zero")
    layer = dk.layers.Variational(dk.operators.Identity(), prior, solver="nesterov", name="layer")
    return reconstruction(layer)


def equilibrium():
    prior = dk.priors.UntiedFieldsOfExperts(filters=2, kernel_size=3, padding="zero")
    cell = dk.layers.GradientStep(dk.operators.Identity(), prior)
    return reconstruction(dk.layers.Equilibrium(cell, solver="picard", name="layer"))


def reconstruction(layer):
    net = keras.Sequential([keras.Input((8, 8, 1)), layer])
    net.compile(keras.optimizers.Adam(0.03), "mse", metrics=[dk.metrics.PSNR()])
    return net


MODELS = {"conv": conv, "bilevel": bilevel, "equilibrium": equilibrium}


def train(workdir, model, strategy, callbacks=()):
    """The training; `(trainer, history)`."""
    keras.utils.set_random_seed(3)
    # Adam makes as much of a gradient that is a rounding error as of any other.
    precision = "float32" if model == "conv" else "float64"
    options = dataclasses.replace(OPTIONS, precision=precision)
    trainer = Trainer(
        MODELS[model], workdir, strategy=strategy, options=options, config={"model": model}
    )
    plateau = keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, min_delta=1.0)
    history = trainer.fit(
        batches,
        epochs=EPOCHS,
        steps_per_epoch=STEPS,
        validation=validation,
        callbacks=[plateau, *callbacks],
        verbose=0,
    )
    if trainer.is_chief:
        model = trainer.model
        np.savez(
            Path(workdir) / "final.npz",
            **{f"model{n}": variable.numpy() for n, variable in enumerate(model.variables)},
            **{f"adam{n}": v.numpy() for n, v in enumerate(model.optimizer.variables)},
        )
    return trainer, history


class Faults(keras.callbacks.Callback):
    """Sends this worker the signal that is planned for this attempt."""

    def __init__(self, path, worker):
        super().__init__()
        self.done = Path(f"{path}.done")
        happened = len(self.done.read_text().splitlines()) if self.done.exists() else 0
        plan = json.loads(Path(path).read_text())
        self.fault = plan[happened] if happened < len(plan) else None
        if self.fault is not None and self.fault["worker"] != worker:
            self.fault = None
        self.step, self.happening = None, False
        if self.fault is not None and self.fault["kind"] == "SAVE":
            self.in_save()

    def get_state(self):
        return {}

    def set_state(self, state):
        pass

    def on_train_batch_begin(self, batch, logs=None):
        if self.step is None:
            # The optimizer counts the steps, and none is left out here.
            self.step = int(self.model.optimizer.iterations.numpy())
        self.step += 1
        if self.fault is not None and self.fault["kind"] != "SAVE":
            if self.step >= self.fault["step"]:
                self.happen()

    def in_save(self):
        write = Checkpoints.save

        def save(checkpoints, step, host, which="latest"):
            if step >= self.fault["step"]:
                self.happen()
            write(checkpoints, step, host, which)

        Checkpoints.save = save

    def happen(self):
        name = "STOP" if self.fault["kind"] == "STOP" else "KILL"
        if self.happening:
            return
        self.happening = True
        number, delay = getattr(signal, f"SIG{name}"), self.fault["delay"]

        def send():
            time.sleep(delay)
            with self.done.open("a") as file:
                file.write(json.dumps(self.fault) + "\n")
            os.kill(os.getpid(), number)

        threading.Thread(target=send, daemon=True).start()


def main(workdir, runs, strategy, faults=None):
    with exit_codes():
        strategy = strategies.get(strategy, cluster_timeout=40)
        callbacks = []
        if faults is not None:
            callbacks.append(Faults(faults, json.loads(os.environ["TF_CONFIG"])["task"]["index"]))
        for run in runs.split(","):
            folder, _, model = run.rpartition("=")
            train(Path(workdir) / (folder or model), model, strategy, callbacks)

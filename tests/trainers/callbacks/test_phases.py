"""Phases of a training: the epochs that they say, exactly what they say, and nothing after."""

from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk
from trainers.callbacks.phases import Phase, Phases, checked
from trainers.process.errors import ConfigurationError
from trainers.training import Trainer

LOOSE = Phase(1, 1e-1, "jacobian_free")


def build(tolerance=1e-4, adjoint="implicit"):
    keras.utils.set_random_seed(1)
    # Of all boundaries and solvers the quickest to trace; with so small a weight it takes 30 steps.
    prior = dk.priors.UntiedFieldsOfExperts(2, 3, padding="zero")
    cell = dk.layers.GradientStep(dk.operators.Identity(), prior, 0.01)
    solver = dk.solvers.Picard(tolerance=tolerance)
    layer = dk.layers.Equilibrium(cell, solver, adjoint, name="solved")
    model = keras.Sequential([keras.Input((8, 8, 1)), layer])
    model.compile(keras.optimizers.Adam(0.02), "mse")
    return model


@pytest.fixture(scope="module")
def data():
    sharp = np.random.default_rng(0).uniform(size=(4, 8, 8, 1)).astype("float32")
    noisy = sharp + 0.1 * np.random.default_rng(1).normal(size=sharp.shape).astype("float32")
    return tf.data.Dataset.from_tensor_slices((noisy, sharp)).batch(2)


class Trained(NamedTuple):
    trainer: Trainer
    history: list
    weights: list  # after each epoch


def train(folder, data, phases, epochs, make=build, validation=None):
    trainer, seen = Trainer(make, folder), []

    def look(epoch, logs):
        seen.append([v.numpy() for v in trainer.model.trainable_variables])

    callbacks = [keras.callbacks.LambdaCallback(on_epoch_end=look)]
    if phases:
        callbacks.append(Phases(phases, trainer.stepper))
    given = {"validation": validation, "callbacks": callbacks, "verbose": 0}
    return Trained(trainer, trainer.fit(data, epochs=epochs, steps_per_epoch=2, **given), seen)


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Two epochs, the first of them a loose one."""
    return train(tmp_path_factory.mktemp("trained"), data, [LOOSE], 2, validation=data)


def test_phases_follow_one_another():
    phases = Phases([(2, 1e-1), (1, None, "phantom")], Trainer(build, "unused").stepper)
    assert [phases.phase_of(epoch) for epoch in range(4)] == [
        Phase(2, 1e-1),
        Phase(2, 1e-1),
        Phase(1, None, "phantom"),
        None,
    ]


def test_a_phase_trains_as_a_model_that_was_made_so(trained, data, tmp_path):
    made = train(tmp_path, data, [], 1, lambda: build(1e-1, "jacobian_free"))
    for a, b in zip(trained.weights[0], made.weights[0], strict=True):
        np.testing.assert_array_equal(a, b)
    before, after = trained.history
    assert before["loss"] == made.history[0]["loss"]
    assert before["solved_forward_steps"] < after["solved_forward_steps"]


def test_validation_is_solved_as_the_model_was_made(trained, data):
    exact = build(1e-6)
    for variable, value in zip(exact.trainable_variables, trained.weights[0], strict=True):
        variable.assign(value)
    errors = [np.mean((exact(y) - u) ** 2) for y, u in data]
    assert trained.history[0]["val_loss"] == pytest.approx(np.mean(errors), rel=1e-4)


def test_a_loss_that_calls_the_model_is_within_the_phase(data, tmp_path):
    seen = []

    class Noting(keras.Sequential):
        def compute_loss(self, **kwargs):
            seen.append((kwargs.get("training"), type(self.layers[-1].adjoint).__name__))
            return super().compute_loss(**kwargs)

    def make():
        model = Noting([keras.Input((8, 8, 1)), build().layers[-1]])
        model.compile("sgd", "mse", run_eagerly=True)
        return model

    train(tmp_path, data, [LOOSE], 1, make, validation=data)
    assert {name for training, name in seen if training is True} == {"JacobianFree"}
    assert {name for training, name in seen if training is False} == {"Implicit"}


def test_what_comes_after_is_as_without_phases(trained):
    assert trained.history[1]["solved_backward_steps"] > 1
    (layer,) = trained.trainer.model.layers
    assert layer.solver.tolerance == 1e-4
    assert isinstance(layer.adjoint, dk.adjoints.Implicit)


@pytest.mark.slow
def test_a_training_that_goes_on_is_in_the_phase_of_its_epoch(trained, data, tmp_path):
    train(tmp_path, data, [LOOSE], 1)
    (again,) = train(tmp_path, data, [LOOSE], 2).weights
    for a, b in zip(again, trained.weights[1], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([()], r"each phase to be `\(epochs, tolerance, adjoint\)`"),
        ([3], "each phase to be"),
        ([(0,)], r"Of the phase \(0,\): Expected `epochs` to be"),
        ([(1, -1.0)], r"Of the phase \(1, -1.0\): Expected `tolerance` to be"),
        ([(1, 1e-2, "jacobian_fre")], "Did you mean 'jacobian_free'"),
    ],
)
def test_impossible_phases_are_refused(phases, message):
    with pytest.raises(ConfigurationError, match=message):
        checked(phases)


def test_a_model_that_solves_nothing_has_no_phases(tmp_path):
    def nothing():
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        return model

    with pytest.raises(ConfigurationError, match="a layer that is solved, for phases"):
        Phases([LOOSE], Trainer(nothing, tmp_path).stepper)

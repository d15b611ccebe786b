"""Phases of a training: the epochs that they say, exactly what they say, and nothing after."""

import shutil

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
    prior = dk.priors.UntiedFieldsOfExperts(2, 3, padding="zero")  # the quickest to trace
    cell = dk.layers.GradientStep(dk.operators.Identity(), prior, 0.3)
    layer = dk.layers.Equilibrium(
        cell, dk.solvers.Anderson(tolerance=tolerance), adjoint, name="solved"
    )
    model = keras.Sequential([keras.Input((8, 8, 1)), layer])
    model.compile(keras.optimizers.Adam(0.02), "mse")
    return model


@pytest.fixture(scope="module")
def data():
    sharp = np.random.default_rng(0).uniform(size=(4, 8, 8, 1)).astype("float32")
    noisy = sharp + 0.1 * np.random.default_rng(1).normal(size=sharp.shape).astype("float32")
    return tf.data.Dataset.from_tensor_slices((noisy, sharp)).batch(2)


def train(folder, data, phases, epochs, make=build):
    trainer = Trainer(make, folder)
    callbacks = [Phases(phases, trainer.stepper)] if phases else []
    history = trainer.fit(
        data, epochs=epochs, steps_per_epoch=2, validation=data, callbacks=callbacks, verbose=0
    )
    return trainer, history


def weights(trainer):
    return [v.numpy() for v in trainer.model.trainable_variables]


@pytest.fixture(scope="module")
def trained(data, tmp_path_factory):
    """Two epochs, the first of them a loose one."""
    return train(tmp_path_factory.mktemp("trained"), data, [LOOSE], 2)


@pytest.fixture(scope="module")
def first(data, tmp_path_factory):
    """An epoch, a loose one."""
    return train(tmp_path_factory.mktemp("first"), data, [LOOSE], 1)


def test_phases_follow_one_another():
    phases = Phases([(2, 1e-1), (1, None, "phantom")], Trainer(build, "unused").stepper)
    assert [phases.phase_of(epoch) for epoch in range(4)] == [
        Phase(2, 1e-1),
        Phase(2, 1e-1),
        Phase(1, None, "phantom"),
        None,
    ]


def test_a_phase_trains_as_a_model_that_was_made_so(first, trained, data, tmp_path):
    trainer, (row,) = first
    made, _ = train(tmp_path, data, [], 1, lambda: build(1e-1, "jacobian_free"))
    for a, b in zip(weights(trainer), weights(made), strict=True):
        np.testing.assert_array_equal(a, b)
    _, (before, after) = trained
    assert before["solved_forward_steps"] < after["solved_forward_steps"]
    assert before["loss"] == row["loss"]


def test_validation_is_solved_as_the_model_was_made(first, data):
    trainer, (row,) = first
    exact = build(1e-6)
    exact.set_weights(trainer.model.get_weights())
    errors = [np.mean((exact.predict(y, verbose=0) - u) ** 2) for y, u in data]
    assert row["val_loss"] == pytest.approx(np.mean(errors), rel=1e-4)


def test_a_loss_that_calls_the_model_is_within_the_phase(data, tmp_path):
    seen = []

    class Noting(keras.Sequential):
        def compute_loss(self, **kwargs):
            seen.append((kwargs.get("training"), type(self.layers[-1].adjoint).__name__))
            return super().compute_loss(**kwargs)

    def make():
        model = Noting([keras.Input((8, 8, 1)), build().layers[-1]])
        model.compile("sgd", "mse")
        return model

    train(tmp_path, data, [LOOSE], 1, make)
    assert {name for training, name in seen if training is True} == {"JacobianFree"}
    assert {name for training, name in seen if training is False} == {"Implicit"}


def test_what_comes_after_is_as_without_phases(trained):
    trainer, (_, after) = trained
    assert after["solved_backward_steps"] > 1
    (layer,) = trainer.model.layers
    assert layer.solver.tolerance == 1e-4
    assert isinstance(layer.adjoint, dk.adjoints.Implicit)


@pytest.mark.slow
def test_a_training_that_goes_on_is_in_the_phase_of_its_epoch(first, trained, data, tmp_path):
    shutil.copytree(first[0].workdir, tmp_path / "copy")
    again, _ = train(tmp_path / "copy", data, [LOOSE], 2)
    for a, b in zip(weights(again), weights(trained[0]), strict=True):
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

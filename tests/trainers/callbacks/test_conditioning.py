"""The conditioning that is followed over a training: of the present weights, on fixed images."""

import json
import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk
from trainers.callbacks.conditioning import ConditioningMeasure
from trainers.training import Options, Trainer

NAMES = ("smallest", "largest", "skew", "norm", "condition")
RNG = np.random.default_rng(0)
IMAGES = RNG.uniform(size=(3, 8, 8, 1)).astype(np.float32)


def equilibrium():
    # The quickest to trace and, with so small a weight, to solve.
    prior = dk.priors.UntiedFieldsOfExperts(2, 3, sharpness=8.0, padding="zero")
    cell = dk.layers.GradientStep(dk.operators.Identity(), prior, weight=0.05)
    return dk.layers.Equilibrium(cell, solver=dk.solvers.Picard(tolerance=1e-6), name="deq")


def model_of(layer):
    image = keras.Input((None, None, 1))
    model = keras.Model(image, layer(0.9 * image))
    model.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=True)
    return model


def test_numbers_are_those_of_the_solution_and_the_present_weights():
    layer = equilibrium()
    measure = ConditioningMeasure(model_of(layer), tf.constant(IMAGES))
    for change in (0.0, 0.5):
        for variable in layer.trainable_variables:
            variable.assign_add(change * RNG.normal(size=variable.shape))
        found = measure()
        problem = layer.cell.bind(tf.constant(0.9 * IMAGES))
        value = layer.solve(tf.constant(0.9 * IMAGES)).value
        each = dk.conditioning.estimate(problem, value)
        assert found["deq_smallest"] == pytest.approx(float(np.min(each.smallest)), rel=1e-3)
        assert found["deq_largest"] == pytest.approx(float(np.max(each.largest)), rel=1e-3)
        assert found["deq_skew"] == pytest.approx(float(np.max(each.skew)), rel=1e-3, abs=1e-6)
        assert found["deq_norm"] == pytest.approx(float(np.max(each.norm)), rel=1e-3)
        assert found["deq_weight"] == pytest.approx(math.exp(float(layer.cell.log_weight)))
        sharpness = np.exp(np.max(layer.cell.prior.log_sharpness))
        assert found["deq_largest_sharpness"] == pytest.approx(sharpness, rel=1e-5)
        ratio = found["deq_norm"] / found["deq_smallest"]
        expected = ratio if found["deq_smallest"] > 0 else math.inf
        assert found["deq_condition"] == pytest.approx(expected)
    assert found["deq_skew"] > 0.01


def test_any_cell_has_the_numbers_and_one_without_a_solver_none():
    convolution = keras.layers.Conv2D(1, 3, padding="same", activation="tanh")
    z, y = keras.Input((8, 8, 1)), keras.Input((8, 8, 1))
    layer = dk.layers.Equilibrium(keras.Model([z, y], y + 0.3 * convolution(z)), name="mine")
    found = ConditioningMeasure(model_of(layer), tf.constant(IMAGES))()
    assert set(found) == {f"mine_{name}" for name in NAMES}
    plain = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(1, 3)])
    assert ConditioningMeasure(plain, tf.constant(IMAGES))() == {}


def fit(folder, strategy=None, options=None):
    trainer = Trainer(lambda: model_of(equilibrium()), folder, strategy=strategy, options=options)
    measure = ConditioningMeasure(trainer.model, tf.constant(IMAGES), steps=3)
    pair = tf.data.Dataset.from_tensors((0.9 * IMAGES[:2], IMAGES[:2]))
    arguments = {"epochs": 2, "steps_per_epoch": 1, "validation": pair, "verbose": 0}
    return trainer, measure, trainer.fit(pair, measure=measure, **arguments)


def test_it_is_logged_after_each_epoch_with_the_weights_of_the_validation(tmp_path):
    """Those are the averaged ones; and what no layer has measured is in no line."""
    trainer, measure, history = fit(tmp_path, options=Options(average=0.5))
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "epoch" in line]
    for line, row in zip(lines, history, strict=True):
        assert {f"deq_{name}" for name in NAMES} <= set(line)
        assert line["deq_condition"] == row["deq_condition"]
        for silent in ("deq_error_bound", "deq_forward_products", "val_deq_forward_steps"):
            assert silent not in line
    assert history[0]["deq_weight"] != history[1]["deq_weight"]
    assert measure()["deq_weight"] == pytest.approx(history[1]["deq_weight"])


@pytest.mark.slow
def test_on_two_devices_it_is_that_of_one(mirrored, tmp_path):
    _, _, one = fit(tmp_path / "one")
    _, _, two = fit(tmp_path / "two", mirrored)
    for row, other in zip(one, two, strict=True):
        for name in (*NAMES, "weight", "largest_sharpness"):
            assert other[f"deq_{name}"] == pytest.approx(row[f"deq_{name}"], rel=1e-3, abs=1e-6)

"""Stochastic descent: errors are as small as the schedule says, and the loss comes down."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import bilevel, layers, operators, priors
from tests.bilevel.test_maid import NOISY, TRUTH

# Four images: two, and the same mirrored.
MEASURED, CLEAN = (tf.concat([part, part[:, ::-1]], axis=0) for part in (NOISY, TRUTH))


START = np.log([0.02, 0.1])


@pytest.fixture(scope="module")
def level():
    prior = priors.TotalVariation(0.1, train_smoothing=True, dtype="float64")
    identity = operators.Identity(dtype="float64")
    layer = layers.Variational(identity, prior, dtype="float64")
    return bilevel.LowerLevel(layer, MEASURED, CLEAN)


def assign(level, values):
    for variable, value in zip(level.variables, values, strict=True):
        variable.assign(value)


def method(**options):
    rate = keras.optimizers.schedules.InverseTimeDecay(0.5, 10, 1.0)
    options = {"optimizer": keras.optimizers.Adam(rate), "batch_size": 2, **options}
    return bilevel.ISGD(**options)


@pytest.fixture(scope="module")
def learned(level):
    assign(level, START)
    found = method(accuracy=0.3, decay=0.5).minimize(level, 30)
    assert found.reason == "steps"
    return found.history


def test_errors_are_certified_and_fall_as_the_schedule_says(level, learned):
    history = learned
    for step, record in enumerate(history):
        assert record.gradient_error <= 0.3 * (step + 1) ** -0.5 * history[0].gradient_norm
    rates = [record.step_size for record in history]
    np.testing.assert_allclose(rates, 0.5 / (1 + np.arange(30) / 10), rtol=1e-6)
    # The first step, with nothing to start from, costs less than the last ten on an average.
    assert history[0].evaluations < (history[-1].evaluations - history[-11].evaluations) / 10
    assert history[0].products < (history[-1].products - history[-11].products) / 10
    # Against the exact derivative for the images of the step, drawn without replacement.
    for step in (0, 1, 29):
        order = np.random.default_rng((0, step // 2)).permutation(4)
        part = level.of(order[:2] if step % 2 == 0 else order[2:])
        assign(level, history[step].weights)
        exact = part.hypergradient(part.solve(1e-12), 1e-12)
        difference = abs(float(exact.norm) - history[step].gradient_norm)
        assert difference <= history[step].gradient_error + float(exact.error)


def test_it_comes_near_where_the_loss_of_all_images_is_stationary(level, learned):
    found = []
    for weights in (START, learned[-1].weights):
        assign(level, weights)
        # Two images at a time, as they were traced; the loss of all is the mean.
        halves = [level.of(rows) for rows in ([0, 1], [2, 3])]
        solved = [half.solve(1e-10) for half in halves]
        slopes = [
            half.hypergradient(s, 1e-10).value for half, s in zip(halves, solved, strict=True)
        ]
        found.append((np.mean([s.loss for s in solved]), np.linalg.norm(np.mean(slopes, axis=0))))
    (begun, steep), (reached, flat) = found
    assert reached < begun
    assert flat < 0.1 * steep


def test_a_descent_is_the_same_each_time_and_survives_its_configuration(level):
    first, histories = method(), []
    for each in (first, bilevel.ISGD.from_config(first.get_config()), first):
        assign(level, START)
        histories.append(each.minimize(level, 3).history)
    for records in zip(*histories, strict=True):
        assert len({record._replace(seconds=0, weights=()) for record in records}) == 1


def test_it_ends_where_nothing_more_can_be_certified(level):
    assign(level, START)
    found = method(accuracy=1e-9, least=1e-3).minimize(level, 3)
    assert (found.reason, len(found.history)) == ("accuracy", 0)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"batch_size": 5}, "at least batch_size=5 images. Received 4"),
        ({"accuracy": 0.0}, "`accuracy`"),
        ({"decay": -1.0}, "`decay`"),
        ({"loosen": 0.5}, "`loosen` >= 1"),
        ({"least": 1.0}, "`least`"),
    ],
)
def test_wrong_arguments(options, match, level):
    with pytest.raises(ValueError, match=match):
        method(**options).minimize(level, 1)

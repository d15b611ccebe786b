"""Minus the mean PSNR as a loss."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import losses, metrics, testing


def _images(seed, dtype="float64"):
    return tf.constant(np.random.default_rng(seed).uniform(size=(3, 5, 6, 2)), dtype)


@pytest.mark.parametrize("max_value", [1.0, 255.0])
def test_it_is_the_mean_of_the_metric(max_value):
    truth, estimate = max_value * _images(0), max_value * _images(1)
    found = losses.NegativePSNR(max_value, dtype="float64")(truth, estimate)
    expected = -metrics.psnr(truth, estimate, max_value).numpy().mean()
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_weights_of_images():
    truth, estimate = _images(0), _images(1)
    weights = np.array([1.0, 0.0, 2.0])
    found = losses.NegativePSNR(dtype="float64")(truth, estimate, sample_weight=weights)
    expected = -(weights * metrics.psnr(truth, estimate)).numpy().sum() / 3
    assert float(found) == pytest.approx(expected, rel=1e-6)


def test_gradient():
    truth, loss = _images(0), losses.NegativePSNR(dtype="float64")

    def gradient(estimate):
        with tf.GradientTape() as tape:
            tape.watch(estimate)
            value = loss(truth, estimate)
        return tape.gradient(value, estimate)

    x, h = _images(1), 1e-6
    d = _images(2) - 0.5
    slope = (float(loss(truth, x + h * d)) - float(loss(truth, x - h * d))) / (2 * h)
    assert float(tf.reduce_sum(gradient(x) * d)) == pytest.approx(slope, rel=1e-6)
    testing.gradient_test(lambda u: u - gradient(u), x)
    # Of identical images it is finite.
    np.testing.assert_array_equal(gradient(truth), np.zeros(truth.shape))
    assert float(loss(truth, truth)) == pytest.approx(-80.0)


def test_configuration_and_training():
    loss = losses.NegativePSNR(255.0, 60.0)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    assert again.get_config() == loss.get_config()
    model = keras.Sequential([keras.Input((None, None, 2)), keras.layers.Conv2D(2, 1)])
    model.compile(keras.optimizers.Adam(0.05), losses.NegativePSNR(), metrics=[metrics.PSNR()])
    model.optimizer.build(model.trainable_variables)  # so that `fit` traces its step once
    x = _images(0, "float32")
    logs = model.fit(x, x, epochs=15, verbose=0).history
    assert logs["loss"][-1] < logs["loss"][0] - 3.0
    # The highest PSNR alone tells the two apart.
    np.testing.assert_allclose(logs["loss"], -np.array(logs["psnr"]), rtol=1e-4)


@pytest.mark.parametrize("argument", [{"max_value": 0.0}, {"highest": -1.0}])
def test_wrong_arguments(argument):
    (name,) = argument
    with pytest.raises(ValueError, match=f"Expected `{name}` to be a finite number > 0"):
        losses.NegativePSNR(**argument)


def test_wrong_images():
    with pytest.raises(ValueError, match="NegativePSNR expects images"):
        losses.NegativePSNR()(tf.zeros((3, 4)), tf.zeros((3, 4)))

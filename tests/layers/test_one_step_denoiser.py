"""One gradient step as a denoiser, which pretrains a prior without a solve."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import denoisers, layers, operators, priors, testing

IMAGES = tf.constant(np.random.default_rng(0).uniform(size=(2, 12, 11, 1)))


def _fields(**kwargs):
    options = {"filters": 3, "kernel_size": 3, "sharpness": 20.0, "dtype": "float64"}
    return priors.FieldsOfExperts(**{**options, **kwargs})


def test_it_is_one_gradient_step():
    prior = _fields()
    layer = layers.OneStepDenoiser(prior, weight=0.03)
    expected = IMAGES - 0.03 * prior.gradient(IMAGES)
    np.testing.assert_allclose(layer(IMAGES), expected, atol=1e-14)
    # That of a layer that solves, from the measurement and of length one.
    operator = operators.Identity(dtype="float64")
    cell = layers.GradientStep(operator, prior, 0.03, step_size=1.0, dtype="float64")
    np.testing.assert_allclose(cell(IMAGES, IMAGES), expected, atol=1e-14)


def test_of_the_energy_of_a_denoiser_it_is_the_denoiser():
    unet = denoisers.UNet((4,), 1, dtype="float64")
    layer = layers.OneStepDenoiser(priors.DenoiserEnergy(unet), 0.3, train_weight=False)
    np.testing.assert_array_equal(layer(IMAGES), unet(IMAGES))


def test_it_is_a_keras_layer():
    testing.layer_test(
        layers.OneStepDenoiser(_fields(padding="zero"), 0.1), input_shape=(2, 9, 8, 1)
    )


def test_noise_levels_come_beside_the_images(tmp_path):
    prior = priors.RidgeRegularizer((2, 3), 3, 0.5, noise_levels=(0.05, 0.2))
    inputs = keras.Input((None, None, 1)), keras.Input(())
    model = keras.Model(inputs, layers.OneStepDenoiser(prior, 0.1)(inputs))
    y, levels = tf.cast(IMAGES, tf.float32), tf.constant([0.05, 0.1])
    expected = y - 0.1 * prior.gradient(y, levels)
    np.testing.assert_allclose(model((y, levels)), expected, atol=1e-6)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded((y, levels)), expected, atol=1e-6)
    with pytest.raises(ValueError, match=r"a pair \(measurement, noise level\)"):
        layers.OneStepDenoiser(prior)(y)


@pytest.mark.slow
def test_training_it_trains_a_prior_for_a_solve():
    """On noise alone, whose best denoiser is a constant factor, which one step can learn."""
    rng = np.random.default_rng(0)
    noise = tf.constant(0.1 * rng.normal(size=(4, 9, 8, 1)))
    prior = _fields(activation="identity", sharpness=1.0)
    layer = layers.OneStepDenoiser(prior, weight=0.1)
    model = keras.Sequential([keras.Input((None, None, 1), dtype="float64"), layer])
    model.compile(keras.optimizers.Adam(0.1), "mse", jit_compile=False)
    logs = model.fit(noise, 0.0 * noise, epochs=30, batch_size=4, verbose=0).history["loss"]
    assert logs[-1] < 0.5 * logs[0]
    variational = layers.Variational(
        operators.Identity(dtype="float64"), prior, float(tf.exp(layer.log_weight)), dtype="float64"
    )
    assert tf.reduce_mean(variational(noise) ** 2) < 0.7 * tf.reduce_mean(noise**2)


def test_what_is_no_prior_is_refused():
    with pytest.raises(ValueError, match="`prior` to be a `priors.Prior`"):
        layers.OneStepDenoiser(denoisers.UNet())

"""Critics: the loss is its formula, and training makes the prior know clean from noisy images."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import layers, losses, metrics, priors

RNG = np.random.default_rng(3)
CLEAN = tf.constant(np.cumsum(RNG.normal(size=(4, 10, 9, 1)), axis=1) / 10 + 0.5)
NOISY = CLEAN + 0.1 * RNG.normal(size=CLEAN.shape)


def made(prior, weight=0.05, **options):
    inputs = keras.Input((None, None, 1), dtype="float64")
    layer = layers.OneStepDenoiser(prior, weight)
    return losses.Adversarial(inputs, layer(inputs), **options), layer


def fields():
    return priors.FieldsOfExperts(4, 3, sharpness=30.0, padding="circular", dtype="float64")


@pytest.mark.parametrize("weight", [0.02, 2.0])
def test_the_loss_is_its_formula(weight):
    model, layer = made(fields(), weight, penalty=3.0)
    prior, pixels = layer.prior, 90
    for i, value in enumerate(model.values(NOISY, CLEAN)):
        u, y = CLEAN[i : i + 1], NOISY[i : i + 1]
        s = np.linalg.norm(y - u) / np.sqrt(pixels)
        z = u + (i + 0.5) / 4 * (y - u)
        slope = weight * np.linalg.norm(prior.gradient(z)) / np.sqrt(pixels) / s
        gap = weight * float(prior.energy(u)[0] - prior.energy(y)[0]) / (pixels * s**2)
        expected = gap + 3.0 * max(slope - 1.0, 0.0) ** 2
        np.testing.assert_allclose(value, expected, rtol=1e-10)
        assert (slope > 1) == (weight > 1)


def test_a_perfect_critic_has_the_loss_minus_one():
    """Of one pair: the distance from the clean image, with slope one along the way."""

    @keras.saving.register_keras_serializable(package="test")
    class Distance(priors.Prior):
        def energy(self, u):
            return tf.norm(tf.reshape(u - CLEAN[:1], (tf.shape(u)[0], -1)), axis=1)

    distance = float(tf.norm(NOISY[:1] - CLEAN[:1]))
    model, layer = made(Distance(dtype="float64"), weight=distance)
    np.testing.assert_allclose(model.values(NOISY[:1], CLEAN[:1]), [-1.0], rtol=1e-10)
    # And one step on it is the clean image.
    np.testing.assert_allclose(layer(NOISY[:1]), CLEAN[:1], atol=1e-12)


def test_training_and_files(tmp_path):
    model, layer = made(fields(), penalty=5.0)
    model.compile(keras.optimizers.Adam(0.2), metrics=[metrics.PSNR()], run_eagerly=True)
    history = model.fit(NOISY, CLEAN, epochs=12, batch_size=4, verbose=0).history
    assert history["loss"][-1] < min(-0.3, 2 * history["loss"][0])
    assert history["psnr"][-1] > 20.5
    assert (layer.prior.energy(NOISY) > layer.prior.energy(CLEAN)).numpy().all()
    model.save(tmp_path / "critic.keras")
    again = keras.models.load_model(tmp_path / "critic.keras")
    assert again.penalty == 5.0
    np.testing.assert_array_equal(again.values(NOISY, CLEAN), model.values(NOISY, CLEAN))


def test_a_noise_level_is_passed_on():
    prior = priors.RidgeRegularizer((2, 3), 3, noise_levels=(0.05, 0.2), dtype="float64")
    inputs = [keras.Input((None, None, 1), dtype="float64"), keras.Input((), dtype="float64")]
    model = losses.Adversarial(inputs, layers.OneStepDenoiser(prior, 0.1)(inputs))
    loud, quiet = (model.values([NOISY, tf.fill((4,), s)], CLEAN) for s in (0.2, 0.05))
    assert np.abs(loud - quiet).min() > 1e-6


def test_what_cannot_be_a_critic():
    inputs = keras.Input((None, None, 1))
    with pytest.raises(ValueError, match="one `deq_keras.layers.OneStepDenoiser`"):
        losses.Adversarial(inputs, layers.Conv2D(1, 3, padding="same")(inputs))
    untied = priors.UntiedFieldsOfExperts(4, 3)
    with pytest.raises(ValueError, match="prior has an energy"):
        losses.Adversarial(inputs, layers.OneStepDenoiser(untied)(inputs))
    with pytest.raises(ValueError, match="a loss of its own"):
        made(fields())[0].compile("adam", "mse")

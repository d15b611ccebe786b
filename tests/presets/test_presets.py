"""Presets: what is written is what is read, and those of the package are what their cards say."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from skimage import data, metrics

from deq_keras import layers, operators, presets, priors
from tests.variants import marked

CARD = dict.fromkeys(
    ("description", "parameters", "weight", "noise", "data", "command", "results", "time"), 1
) | {"channels": 1, "licence": "none"}


def prior(**options):
    made = priors.RidgeRegularizer((2, 4), 3, **options)
    made.build((None, None, None, 1))
    for weight in made.trainable_variables:
        weight.assign_add(0.1 * tf.random.normal(weight.shape))
    return made


@pytest.mark.parametrize(
    "make",
    [
        lambda: prior(weak_convexity=0.9, activation="tanh", padding="zero"),
        lambda: prior(noise_levels=(0.02, 0.1)),
        lambda: priors.UntiedFieldsOfExperts(3, 3, hypomonotonicity=2.0),
    ],
)
def test_what_is_written_is_what_is_read(make, tmp_path):
    made = make()
    if not made.built:
        made.build((None, None, None, 1))
    presets.save(made, tmp_path / "new", CARD)
    again = presets.load(tmp_path / "new")
    assert type(again) is type(made)
    assert again.get_config() == made.get_config()
    for a, b in zip(made.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert presets.card(tmp_path / "new") == CARD


def test_keras_loads_the_others(tmp_path):
    made = prior()
    layer = layers.Variational(operators.Identity(), made)
    keras.Sequential([keras.Input((16, 16, 1)), layer]).save(tmp_path / "model.keras")
    again = presets.load(str(tmp_path / "model.keras"))
    for a, b in zip(made.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(ValueError, match="one prior in it. Received .*holds 0"):
        presets.load(str(tmp_path / "other.keras"))


def test_mistakes(tmp_path):
    with pytest.raises(ValueError, match="Unknown preset: 'wcrr_bsd'. Did you mean 'wcrr_bsd400'"):
        presets.load("wcrr_bsd")
    with pytest.raises(ValueError, match="a prior that was built"):
        presets.save(priors.TotalVariation(), tmp_path, CARD)
    with pytest.raises(ValueError, match="a card with the entries"):
        presets.save(prior(), tmp_path, {**CARD, "more": 1})
    assert not list(tmp_path.iterdir())


def noisy(level):
    """A part of a photograph that nobody trained on, and what is measured of it."""
    truth = data.camera()[100:228, 180:308] / 255.0
    noise = np.random.default_rng(0).normal(size=truth.shape)
    return truth, (truth + level * noise)[None, ..., None].astype("float32")


def best_psnr(prior, level, weights):
    """Of the weights, in dB."""
    truth, y = noisy(level)
    layer = layers.Equilibrium(layers.GradientStep(operators.Identity(), prior, 1.0))
    layer.build(y.shape)
    solve, values = tf.function(layer.solve, autograph=False), []
    for weight in weights:
        layer.cell.log_weight.assign(np.log(weight))
        solution = solve(y)
        assert solution.converged.numpy().all()
        value = solution.value.numpy()[0, ..., 0]
        values.append(metrics.peak_signal_noise_ratio(truth, value, data_range=1.0))
    return max(values)


@functools.cache
def total_variation(level):
    return best_psnr(priors.TotalVariation(), level, [0.05, 0.07, 0.1])


@pytest.mark.parametrize("name", marked(presets.names(), ["foe_bsd400", "unet_bsd400"]))
def test_those_of_the_package(name):
    """The card's facts, and on a photograph that nobody trained on more than total variation."""
    card, made = presets.card(name), presets.load(name)
    assert card["parameters"] == sum(np.prod(v.shape) for v in made.trainable_variables)
    assert "FOLDER" in card["command"]
    if isinstance(made, priors.DenoiserEnergy):  # its denoiser was trained, and not the energy
        truth, y = noisy(card["noise"])
        image = made.denoiser(y).numpy()[0, ..., 0]
        found = metrics.peak_signal_noise_ratio(truth, image, data_range=1.0)
    else:
        found = best_psnr(made, card["noise"], [card["weight"]])
    assert found > total_variation(card["noise"]) + 0.2

"""The U-Net: any size of image, any number of channels, no bias, and files that keep it all."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import testing
from deq_keras.denoisers import DenoiserAtNoiseLevel, UNet

SMALL = {"filters": (4, 6), "blocks": 1, "dtype": "float64"}


def images(shape, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(size=shape))


def test_it_is_a_keras_layer():
    testing.layer_test(UNet, SMALL, (2, 9, 14, 1))


@pytest.mark.parametrize(("size", "channels"), [((33, 45), 3), ((8, 16), 1), ((2, 3), 1)])
def test_sizes_and_channels(size, channels):
    u = images((2, *size, channels))
    assert UNet(**SMALL)(u).shape == u.shape


def test_beyond_its_border_an_image_is_mirrored():
    unet, u = UNet(**SMALL), images((1, 9, 14, 1))
    larger = tf.pad(u, [[0, 0], [0, 3], [0, 2], [0, 0]], "SYMMETRIC")
    np.testing.assert_allclose(unet(larger)[:, :9, :14], unet(u), atol=1e-14)


def test_without_biases_a_brighter_image_has_a_brighter_result():
    unet, u = UNet(**SMALL, activation="relu"), images((1, 8, 8, 1))
    assert np.abs(unet(u) - u).max() > 0.01
    np.testing.assert_allclose(unet(3.0 * u), 3.0 * unet(u), rtol=1e-12)
    np.testing.assert_array_equal(unet(0.0 * u), 0.0 * u)


def test_each_image_has_its_noise_level(tmp_path):
    inputs = keras.Input((None, None, 1), dtype="float64"), keras.Input((), dtype="float64")
    unet = UNet(**SMALL, noise_map=True)
    model = keras.Model(inputs, unet(inputs))
    u, levels = images((2, 10, 9, 1)), tf.constant([0.02, 0.3], tf.float64)
    both = model([u, levels])
    np.testing.assert_allclose(unet([u[1:], levels[1:]])[0], both[1], atol=1e-14)
    assert np.abs(unet([u[1:], levels[:1]])[0] - both[1]).max() > 1e-3
    model.save(tmp_path / "unet.keras")
    loaded = keras.models.load_model(tmp_path / "unet.keras")
    np.testing.assert_array_equal(loaded([u, levels]), both)


def test_at_one_noise_level():
    unet = UNet(**SMALL, noise_map=True)
    layer, u = DenoiserAtNoiseLevel(unet, 0.07), images((2, 10, 9, 1))
    np.testing.assert_allclose(layer(u), unet([u, tf.constant([0.07] * 2, tf.float64)]), rtol=1e-12)
    assert len(layer.trainable_variables) == 1 + len(unet.trainable_variables)
    fixed = DenoiserAtNoiseLevel(UNet(**SMALL, noise_map=True), 0.07, train_noise_level=False)
    testing.layer_test(fixed, input_shape=(2, 8, 9, 1))
    assert fixed.non_trainable_variables


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filters": 8}, "`filters` to be a tuple"),
        ({"filters": ()}, "`filters` to be a tuple"),
        ({"filters": (4, 0)}, "`filters` to be an integer >= 1"),
        ({"blocks": 0}, "`blocks` to be an integer >= 1"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNet(**{**SMALL, **arguments})


def test_images_that_are_too_small_or_no_images():
    with pytest.raises(ValueError, match=r"2 levels expected images of at least 2 pixels.*\(1, 1"):
        UNet(**SMALL)(images((1, 1, 8, 1)))
    with pytest.raises(ValueError, match="known number of channels"):
        UNet(**SMALL).build((None, 8, 8))
    with pytest.raises(ValueError, match="`noise_level` to be a finite number > 0"):
        DenoiserAtNoiseLevel(UNet(**SMALL, noise_map=True), 0.0)

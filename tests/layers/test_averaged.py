"""The mean of an image and of what layers make of it, and what is certified of it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import layers, testing
from deq_keras.layers.averaged import certified_lipschitz

IMAGES = tf.constant(np.random.default_rng(0).uniform(size=(2, 7, 6, 1)))


def _convolution(filters=1, norm=0.6, **kwargs):
    options = {"always": True, "dtype": "float64", **kwargs}
    return layers.NormalizedConv2D(filters, 3, norm=norm, **options)


def test_it_is_the_mean_that_it_says():
    inner = [_convolution(3, activation="relu"), _convolution()]
    layer = layers.Averaged(inner, 0.3, dtype="float64")
    expected = 0.7 * IMAGES + 0.3 * inner[1](inner[0](IMAGES))
    np.testing.assert_allclose(layer(IMAGES), expected, atol=1e-15)
    assert float(certified_lipschitz(layer)) == pytest.approx(0.7 + 0.3 * 0.36)
    testing.layer_test(layer, input_shape=(2, 7, 6, 1))


def test_layers_learn_of_training():
    layer = layers.Averaged([keras.layers.Dropout(0.5, seed=1, dtype="float64")], dtype="float64")
    np.testing.assert_array_equal(layer(IMAGES), IMAGES)
    assert np.abs(layer(IMAGES, training=True) - IMAGES).max() > 0.1


def test_what_is_not_known_is_not_certified():
    unknown = layers.Averaged(
        [_convolution(), keras.layers.Conv2D(1, 3, padding="same")], dtype="float64"
    )
    steep = _convolution(activation=lambda x: 3.0 * x)
    for network in (unknown, steep):
        network.build(IMAGES.shape)
    for network in (unknown, steep, keras.Sequential([])):
        assert certified_lipschitz(network) is None


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan")])
def test_wrong_shares(share):
    with pytest.raises(ValueError, match="`share`"):
        layers.Averaged([_convolution()], share)


def test_wrong_layers():
    for wrong in ([], ["relu"], None):
        with pytest.raises(ValueError, match="`layers` to be Keras layers"):
            layers.Averaged(wrong)
    with pytest.raises(ValueError, match="return 1 channels, as many as their images have"):
        layers.Averaged([_convolution(2)], dtype="float64")(IMAGES)

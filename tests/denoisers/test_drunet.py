"""DRUNet: any size of image, its noise level, and files that keep it all."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import testing
from deq_keras.denoisers import DRUNet

SMALL = {"filters": (4, 6), "blocks": 1, "dtype": "float64"}


def images(shape, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(size=shape))


def test_it_is_a_keras_layer():
    testing.layer_test(DRUNet, {**SMALL, "noise_map": False, "activation": "elu"}, (2, 9, 14, 1))


def test_sizes_channels_and_levels(tmp_path):
    inputs = keras.Input((None, None, 3), dtype="float64"), keras.Input((), dtype="float64")
    denoiser = DRUNet(**{**SMALL, "filters": (3, 4, 5)})
    model = keras.Model(inputs, denoiser(inputs))
    u, levels = images((2, 11, 14, 3)), tf.constant([0.02, 0.3], tf.float64)
    both = model([u, levels])
    assert both.shape == u.shape
    np.testing.assert_allclose(denoiser([u[1:], levels[1:]])[0], both[1], atol=1e-14)
    assert np.abs(denoiser([u[1:], levels[:1]])[0] - both[1]).max() > 1e-3
    larger = tf.pad(u, [[0, 0], [0, 1], [0, 2], [0, 0]], "SYMMETRIC")
    np.testing.assert_allclose(model([larger, levels])[:, :11, :14], both, atol=1e-14)
    np.testing.assert_allclose(model([3.0 * u, 3.0 * levels]), 3.0 * both, rtol=1e-10, atol=1e-12)
    model.save(tmp_path / "drunet.keras")
    loaded = keras.models.load_model(tmp_path / "drunet.keras")
    np.testing.assert_array_equal(loaded([u, levels]), both)


def test_images_that_are_too_small_and_wrong_arguments():
    with pytest.raises(ValueError, match="DRUNet of 3 levels expected images of at least 2"):
        DRUNet((2, 2, 2), 1, noise_map=False)(images((1, 1, 8, 1)))
    with pytest.raises(ValueError, match="`filters` to be a tuple"):
        DRUNet(8)

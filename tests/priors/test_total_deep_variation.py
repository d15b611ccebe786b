"""Total deep variation: its parameters, and what its blocks pass on."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import priors


def _prior(**kwargs):
    prior = priors.TotalDeepVariation(**{"filters": 3, "dtype": "float64", **kwargs})
    prior.build((None, None, None, 1))
    return prior


def test_number_of_parameters():
    prior = priors.TotalDeepVariation()
    prior.build((None, None, None, 1))
    assert prior.count_params() == 387392


def test_without_blocks_that_do_anything_it_is_linear_in_the_image():
    """Then each scale passes on what it was given."""
    prior = _prior(blocks=2, scales=1)
    prior.residual.assign(tf.zeros_like(prior.residual))
    first = prior.first - tf.reduce_mean(prior.first, axis=(0, 1), keepdims=True)
    u = tf.constant(np.random.default_rng(0).uniform(size=(1, 6, 5, 1)))
    padded = tf.pad(u, [[0, 0], [1, 1], [1, 1], [0, 0]], "REFLECT")
    features = tf.nn.conv2d(padded, first, 1, "VALID")
    expected = tf.reduce_sum(features * prior.last)
    np.testing.assert_allclose(prior.energy(u)[0], expected, rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("weight", ["residual", "down", "up"])
def test_every_filter_of_every_block_and_scale_matters(weight):
    prior = _prior(blocks=2, scales=3)
    u = tf.constant(np.random.default_rng(0).uniform(size=(1, 13, 10, 1)))
    variable = getattr(prior, weight)
    with tf.GradientTape() as tape:
        energy = prior.energy(u)
    slopes = tape.gradient(energy, variable.value).numpy()
    each = np.abs(slopes).max(axis=tuple(range(-4, 0)))
    assert np.all(each > 0)


def test_first_filters_are_shown_without_their_means():
    pictures = _prior().pictures()["analysis"]
    assert pictures.shape == (3, 3, 3, 1)
    np.testing.assert_allclose(tf.reduce_sum(pictures, axis=(1, 2, 3)), 0.0, atol=1e-14)


@pytest.mark.parametrize("name", ["filters", "blocks", "scales", "log_factor"])
def test_wrong_arguments(name):
    with pytest.raises(ValueError, match=f"`{name}`"):
        priors.TotalDeepVariation(**{name: 0})


def test_images_of_other_channels_are_refused():
    with pytest.raises(ValueError, match="was built for 1 channels"):
        _prior().energy(tf.zeros((1, 8, 8, 3), tf.float64))

"""Convolutions one after the other are one convolution with the composed filters."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import convolution, testing

SHAPES = ((3, 2, 2, 4), (2, 5, 4, 3), (4, 3, 3, 6))


def _chain():
    rng = np.random.default_rng(0)
    return [tf.constant(rng.normal(size=shape)) for shape in SHAPES]


def _composed(layers):
    first, *others = layers
    for one in others:
        first = convolution.compose(first, one)
    return first


def _images(size):
    return tf.constant(np.random.default_rng(1).normal(size=(2, *size, 2)))


@pytest.mark.parametrize("size", [(9, 11), (7, 8)])
def test_of_valid_correlations(size):
    u = v = _images(size)
    for layer in _chain():
        v = convolution.correlate(v, layer, "valid")
    composed = _composed(_chain())
    assert composed.shape == (7, 8, 2, 6)
    np.testing.assert_allclose(convolution.correlate(u, composed, "valid"), v, atol=1e-12)


@pytest.mark.parametrize("padding", ["zero", "reflect", "circular"])
def test_other_paddings_are_one_padding_for_all_layers(padding):
    u, composed = _images((9, 10)), _composed(_chain())
    v = convolution.pad(u, convolution.same_sizes(composed), padding)
    for layer in _chain():
        v = convolution.correlate(v, layer, "valid")
    np.testing.assert_allclose(convolution.correlate(u, composed, padding), v, atol=1e-12)
    # Padded before each layer it is another map.
    w = u
    for layer in _chain():
        w = convolution.correlate(w, layer, padding)
    if padding != "circular":
        assert np.abs(w - v).max() > 0.1


def test_it_is_associative():
    a, b, c = _chain()
    left = convolution.compose(convolution.compose(a, b), c)
    right = convolution.compose(a, convolution.compose(b, c))
    np.testing.assert_allclose(left, right, atol=1e-12)


def test_derivatives():
    a, b, _ = _chain()
    testing.gradient_test(lambda x: convolution.compose(x, b), a)
    testing.gradient_test(lambda x: convolution.compose(a, x), b)


def test_channels_that_do_not_fit():
    a, _, c = _chain()
    with pytest.raises(ValueError, match=r"`second` to take 4 channels.*\(4, 3, 3, 6\)"):
        convolution.compose(a, c)

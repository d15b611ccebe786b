"""The normalised convolution: its Lipschitz constant holds, and the gradient knows of it."""

from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import convolution, testing
from deq_keras.layers import NormalizedConv2D, normalized_convolution
from tests.variants import covering


def large(scale=3.0):
    return keras.initializers.RandomNormal(stddev=scale, seed=1)


def built(channels=2, **kwargs):
    layer = NormalizedConv2D(
        **{"filters": 3, "kernel_size": 3, "kernel_initializer": large(), "dtype": "float64"}
        | kwargs
    )
    layer.build((None, None, None, channels))
    return layer


@pytest.mark.parametrize(
    "arguments",
    [
        {"filters": 3, "kernel_size": 3},
        {"filters": 2, "kernel_size": (2, 3), "padding": "reflect", "activation": "tanh"},
        {"filters": 2, "kernel_size": 3, "padding": "valid", "always": True, "norm": 0.5},
        {"filters": 1, "kernel_size": 4, "padding": "circular", "use_bias": False},
        {"filters": 3, "kernel_size": 3, "kernel_initializer": large(), "dtype": "mixed_bfloat16"},
    ],
)
def test_it_is_a_keras_layer(arguments):
    """Of one channel, whose norm takes no eigenvalues, but for the defaults."""
    half = arguments.get("dtype") == "mixed_bfloat16"
    shape = (2, 9, 8, 2 if len(arguments) == 2 else 1)
    testing.layer_test(NormalizedConv2D, arguments, shape, **({"rtol": 1e-2} if half else {}))


@pytest.mark.parametrize("padding", convolution.PADDINGS)
@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("scale", [1e-2, 3.0])
def test_norm_at_several_sizes(padding, always, scale):
    """The matrix of the layer, from what it does to each pixel."""
    layer = built(
        padding=padding, always=always, norm=0.7, kernel_initializer=large(scale), use_bias=False
    )
    constant = float(layer.lipschitz())
    assert constant <= 0.7 * (1 + 1e-12)
    for size in ((3, 3), (4, 7), (6, 6)):
        pixels = tf.reshape(tf.eye(size[0] * size[1] * 2, dtype=tf.float64), (-1, *size, 2))
        matrix = layer(pixels).numpy().reshape(len(pixels), -1)
        assert np.linalg.norm(matrix, 2) <= constant * (1 + 1e-12)


def test_a_small_kernel_is_left_alone_unless_always():
    small = built(kernel_initializer=large(1e-2))
    np.testing.assert_array_equal(small.normalized_kernel(), small.kernel)
    scaled = built(kernel_initializer=large(1e-2), always=True)
    kernel = scaled.normalized_kernel()
    assert float(convolution.norm_bound(kernel, "zero")) == pytest.approx(1, rel=1e-12)
    assert float(scaled.lipschitz()) == 1
    np.testing.assert_allclose(
        kernel, built(kernel_initializer=large(5.0), always=True).normalized_kernel(), rtol=1e-12
    )


@pytest.mark.parametrize("always", [False, True])
def test_a_zero_kernel(always):
    layer = built(kernel_initializer="zeros", always=always)
    x = tf.ones((1, 5, 5, 2), tf.float64)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x))
    assert float(loss) == float(layer.lipschitz()) == 0
    assert np.isfinite(tape.gradient(loss, layer.kernel.value)).all()


@pytest.mark.parametrize(
    ("always", "scale", "padding"),
    covering(
        (*how, padding)
        for how, padding in product(
            [(False, 0.05), (False, 3.0), (True, 0.05)], convolution.PADDINGS
        )
    ),
)
def test_gradient_flows_through_the_norm(padding, always, scale):
    layer = built(
        padding=padding, always=always, kernel_initializer=large(scale), activation="tanh"
    )
    x = np.random.default_rng(0).uniform(size=(2, 6, 5, 2))
    testing.gradient_test(layer, x, variables=[layer.kernel, layer.bias])


def test_gradient_is_orthogonal_to_a_kernel_that_is_divided():
    """Scaling it changes nothing: a gradient that ignored the norm would not know."""
    layer = built(use_bias=False)
    x = tf.constant(np.random.default_rng(0).uniform(size=(2, 6, 5, 2)))
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(x) ** 2)
    gradient = tape.gradient(loss, layer.kernel.value)
    slope = float(tf.reduce_sum(gradient * layer.kernel))
    assert abs(slope) < 1e-12 * float(tf.norm(gradient) * tf.norm(layer.kernel))


def test_keras_spectral_normalization_is_not_a_bound_of_the_convolution():
    """The mean filter: its reshaped kernel has norm 1/3, the convolution norm 1."""
    kernel = np.full((3, 3, 1, 1), 1 / 9, "float32")
    theirs = keras.layers.SpectralNormalization(
        keras.layers.Conv2D(1, 3, padding="same", use_bias=False), power_iterations=20
    )
    ours = NormalizedConv2D(1, 3, use_bias=False, always=True)
    x = tf.ones((1, 16, 16, 1))
    for layer, inner in ((theirs, theirs.layer), (ours, ours)):
        layer.build(x.shape)
        inner.kernel.assign(kernel)
    theirs(x, training=True)  # it normalises in training, and assigns the kernel
    gain = [float(tf.norm(layer(x)) / tf.norm(x)) for layer in (theirs, ours)]
    assert gain[0] > 2.5
    assert 0.9 < gain[1] <= 1 + 1e-6
    np.testing.assert_array_equal(ours.kernel, kernel)


@pytest.mark.parametrize("name", sorted(normalized_convolution._SLOPES))
def test_slopes_of_activations(name):
    """Against difference quotients on a fine grid: never below, and not far above."""
    x = np.linspace(-8, 8, 320001)
    slopes = abs(np.diff(keras.activations.get(name)(tf.constant(x)).numpy()) / np.diff(x))
    slope = normalized_convolution._SLOPES[name]
    assert slopes.max() <= slope * (1 + 1e-9)
    assert slope <= 1.01 * slopes.max()
    layer = built(activation=name)
    assert float(layer.lipschitz()) == pytest.approx(slope, rel=1e-12)


def test_a_call_changes_no_state():
    layer = built()
    before = layer.get_weights()
    for _ in range(2):
        layer(tf.ones((1, 5, 5, 2), tf.float64), training=True)
    assert len(layer.weights) == len(layer.trainable_weights) == 2
    for a, b in zip(before, layer.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_errors():
    for arguments, message in (
        ({"filters": 0}, "filters"),
        ({"kernel_size": (3, 3, 3)}, "a pair of them"),
        ({"norm": 0}, "norm"),
        ({"padding": "same"}, "padding"),
    ):
        with pytest.raises(ValueError, match=message):
            NormalizedConv2D(**{"filters": 2, "kernel_size": 3} | arguments)
    with pytest.raises(ValueError, match="channels"):
        NormalizedConv2D(2, 3).build((None, 8, 8, None))
    for activation in ("softmax", tf.math.square):
        with pytest.raises(ValueError, match="known slope"):
            built(activation=activation).lipschitz()
    layer = built()
    with pytest.raises(ValueError, match="axis -1"):
        layer(tf.ones((1, 8, 8, 4), tf.float64))

"""The layers in place of Keras's convolutions: the same functions, files and derivatives."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import layers, testing
from deq_keras.convolution.correlation import arithmetic

PAIRS = (
    (layers.Conv2D, keras.layers.Conv2D),
    (layers.Conv2DTranspose, keras.layers.Conv2DTranspose),
)
BOTH = pytest.mark.parametrize(("own", "theirs"), PAIRS, ids=["Conv2D", "Conv2DTranspose"])
KERNELS = (1, 3, 4, (5, 2))
CHANNELS = ((20, 1), (1, 20), (8, 8))


def images(seed, shape, dtype="float64"):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape), dtype)


def twins(own, theirs, shape, *args, **kwargs):
    """A layer of each kind, with the same random weights."""
    first = own(*args, **{"dtype": "float64"} | kwargs)
    second = theirs.from_config(first.get_config())
    for layer in (first, second):
        layer.build(shape)
    weights = [np.random.default_rng(2).standard_normal(w.shape) for w in first.weights]
    first.set_weights(weights)
    second.set_weights(weights)
    return first, second


def close(a, b, tolerance=1e-11):
    scale = float(tf.reduce_max(tf.abs(b))) + 1e-300
    np.testing.assert_allclose(a / scale, b / scale, atol=tolerance)


@BOTH
@pytest.mark.parametrize("padding", ["same", "valid"])
def test_values_and_first_derivatives(own, theirs, padding):
    for kernel, (channels, filters) in itertools.product(KERNELS, CHANNELS):
        u = images(0, (2, 7, 9, channels))
        results = []
        for layer in twins(own, theirs, u.shape, filters, kernel, padding=padding):
            with tf.GradientTape() as tape:
                tape.watch(u)
                value = layer(u)
                loss = tf.reduce_sum(tf.sin(value))
            results.append([value, *tape.gradient(loss, [u, *layer.trainable_variables])])
        for a, b in zip(*results, strict=True):
            close(a, b)


@BOTH
@pytest.mark.parametrize(
    ("channels", "filters", "in_graph"),
    [(*counts, number % 2 == 1) for number, counts in enumerate(CHANNELS)],
)
def test_forward_mode_and_second_derivatives(own, theirs, in_graph, channels, filters):
    u, direction = images(0, (2, 7, 6, channels)), images(1, (2, 7, 6, channels))
    results = []
    for layer in twins(own, theirs, u.shape, filters, (4, 5), padding="same", activation="tanh"):

        def everything(layer=layer):
            with tf.autodiff.ForwardAccumulator(u, direction) as forward:
                value = layer(u)
            variables = [u, *layer.trainable_variables]
            with tf.GradientTape() as outer:
                outer.watch(u)
                with tf.GradientTape() as tape:
                    tape.watch(u)
                    loss = tf.reduce_sum(layer(u) ** 2)
                slope = tf.reduce_sum(direction * tape.gradient(loss, u))
            with tf.autodiff.ForwardAccumulator(u, direction) as mixed:
                with tf.GradientTape() as tape:
                    tape.watch(u)
                    loss = tf.reduce_sum(layer(u) ** 2)
                gradient = tape.gradient(loss, u)
            return [forward.jvp(value), mixed.jvp(gradient), *outer.gradient(slope, variables)]

        if in_graph:
            everything = tf.function(everything, autograph=False)
        results.append(everything())
    for a, b in zip(*results, strict=True):
        close(a, b)


@pytest.mark.parametrize(
    "arguments",
    [
        {"strides": 2, "padding": "same"},
        {"strides": (1, 2)},
        {"dilation_rate": 2, "padding": "same"},
        {"groups": 2},
        {"use_bias": False, "activation": "relu"},
    ],
)
def test_other_convolutions_are_those_of_keras(arguments):
    u = images(0, (2, 9, 10, 6))
    for own, theirs in PAIRS:
        if own is layers.Conv2DTranspose and not {"groups", "dilation_rate"}.isdisjoint(arguments):
            continue  # Keras has no groups there, and TensorFlow no dilation on a CPU
        first, second = twins(own, theirs, u.shape, 4, 3, **arguments)
        close(first(u), second(u))


def test_output_padding_is_that_of_keras():
    u = images(0, (2, 5, 6, 6))
    for arguments in ({"strides": 2, "output_padding": 1}, {"output_padding": 0}):
        first, second = twins(*PAIRS[1], u.shape, 4, 3, padding="same", **arguments)
        assert first(u).shape == second(u).shape
        close(first(u), second(u))


@BOTH
def test_channels_first(own, theirs):
    layer, other = twins(own, theirs, (2, 6, 9, 9), 4, 3, data_format="channels_first")
    shape = layer.compute_output_shape((2, 6, 9, 9))
    assert shape == other.compute_output_shape((2, 6, 9, 9))
    # TensorFlow has no such convolution on a CPU: the error is the same one.
    with pytest.raises(tf.errors.OpError):
        layer(images(0, (2, 6, 9, 9)))


@BOTH
@pytest.mark.parametrize(
    "arguments",
    [
        {"filters": 1, "kernel_size": 5, "padding": "same", "activation": "tanh"},
        {"filters": 3, "kernel_size": (2, 3), "kernel_regularizer": "l2", "use_bias": False},
        {"filters": 2, "kernel_size": 3, "strides": 2, "bias_initializer": "ones"},
        {"filters": 1, "kernel_size": 3, "dtype": "mixed_bfloat16", "padding": "same"},
    ],
)
def test_it_is_a_keras_layer(own, theirs, arguments):
    half = arguments.get("dtype") == "mixed_bfloat16"
    tolerance = {"rtol": 1e-2} if half else {}
    testing.layer_test(own, arguments, (2, 9, 8, 20), **tolerance)


@BOTH
def test_weights_are_those_of_keras(own, theirs, tmp_path):
    """Files of weights of one kind are read by the other, and models by their names."""
    first, second = twins(own, theirs, (None, None, None, 20), 1, 5, padding="same")
    assert [(w.path, w.shape) for w in first.weights] == [(w.path, w.shape) for w in second.weights]

    def model(kind):
        return keras.Sequential([keras.Input((None, None, 20)), kind(1, 5, padding="same")])

    old, new = model(theirs), model(own)
    for source, target in ((old, new), (new, old)):
        source.set_weights([np.random.default_rng(3).normal(size=w.shape) for w in source.weights])
        source.save_weights(tmp_path / "some.weights.h5")
        target.load_weights(tmp_path / "some.weights.h5")
        u = images(0, (2, 8, 8, 20), "float32")
        close(target(u), source(u), 1e-5)
    new.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[0]) is own
    np.testing.assert_array_equal(loaded(u), new(u))


@BOTH
def test_a_saved_model_takes_any_size(own, theirs, tmp_path):
    model = keras.Sequential([keras.Input((None, None, 20)), own(1, 5, padding="same")])
    model.export(tmp_path / "model", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "model")
    for shape in ((2, 8, 9, 20), (1, 17, 6, 20)):
        u = images(0, shape, "float32")
        close(loaded.serve(u), model(u), 1e-6)


@BOTH
def test_sizes_that_are_not_known(own, theirs):
    for padding in ("same", "valid"):
        layer, other = twins(own, theirs, (None, None, None, 20), 1, (4, 5), padding=padding)
        signature = [tf.TensorSpec((None, None, None, 20), "double")]
        function = tf.function(layer, input_signature=signature, autograph=False)
        for size in ((7, 9), (8, 6)):
            u = images(0, (3, *size, 20))
            close(function(u), other(u))


def test_half_precision_follows_the_policy():
    for own, theirs in PAIRS:
        u = images(0, (2, 8, 8, 20), "float32")
        layer, other = twins(own, theirs, u.shape, 1, 3, padding="same", dtype="mixed_bfloat16")
        assert layer(u).dtype == other(u).dtype == tf.bfloat16
        np.testing.assert_array_equal(layer(u), other(u))


@BOTH
def test_an_empty_batch(own, theirs):
    for channels, filters in CHANNELS:
        layer = own(filters, 5, padding="same")
        assert layer(tf.zeros((0, 8, 8, channels))).shape == (0, 8, 8, filters)


def test_an_image_smaller_than_the_kernel_is_refused_like_by_keras():
    layer, other = twins(*PAIRS[0], (None, None, None, 20), 1, 5)
    u = images(0, (2, 4, 9, 20))
    for one in (layer, other):
        with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
            one(u)


def convolved_channels(function, *arguments):
    """The output channels of each convolution in the graph of a function."""
    graph = tf.function(function, autograph=False).get_concrete_function(*arguments).graph
    kinds = ("Conv2D", "Conv2DBackpropInput", "Conv2DBackpropFilter")
    return [(op.type, op.outputs[0].shape[-1]) for op in graph.get_operations() if op.type in kinds]


@BOTH
@pytest.mark.parametrize(("channels", "filters"), [(32, 1), (1, 32)])
def test_none_is_to_one_channel(own, theirs, channels, filters):
    """In evaluation, products with the Jacobian and derivatives by the kernel."""
    u = images(0, (1, 9, 9, channels), "float32")
    layer = own(filters, 5, padding="same")
    layer.build(u.shape)

    def derivatives(u):
        with tf.GradientTape() as tape:
            tape.watch(u)
            value = tf.tanh(layer(u))
        return tape.gradient(value, [u, layer.kernel])

    found = convolved_channels(derivatives, u)
    assert len(found) == 3
    assert all(count >= 16 for _, count in found)


def test_arithmetic_of_both_forms():
    assert arithmetic((5, 5, 1, 32)) == (50, 50)
    assert arithmetic((5, 5, 32, 32)) == (1600, 1600)
    plain, fast = arithmetic((7, 7, 48, 1))
    assert plain == 49 * 48
    assert fast == pytest.approx(100 / 16 * 48)  # blocks of 4 x 4: filters of 10 x 10, once

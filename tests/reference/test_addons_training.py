"""Layers and optimizers of Keras 3 against those of tensorflow-addons, and what docs/ say of it."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import deq_keras
from tests.reference.addons_data import VERSIONS, U, case, cases, inputs

ROOT = Path(__file__).resolve().parents[2]
STEPS = len(inputs("noise_vector"))
# A step of an optimizer rounds about 8 times numbers of the size of the weights, which are about 1.
ALONG_THE_WAY = 8 * STEPS * U
# Adam's old form takes 1 - beta_2 of the rounded beta_2 = 0.999, the new one does not: each step,
# at most as long as the rate, differs by half of the relative difference, 6e-6.
ADAM = STEPS * abs((1 - np.float32(0.999)) / 0.001 - 1) / 2


def test_versions():
    assert VERSIONS["tensorflow_addons"] == "0.23.0"
    assert VERSIONS["tensorflow"] == "2.15.1"


@cases("spectral_normalization")
def test_spectral_normalization(name):
    arguments, expected = case("spectral_normalization", name)
    kind, iterations = arguments["layer"], arguments["power_iterations"]
    inner = keras.layers.Conv2D(4, (3, 2)) if kind == "conv2d" else keras.layers.Dense(5)
    layer = keras.layers.SpectralNormalization(inner, power_iterations=iterations)
    x = inputs(f"{kind}_x")
    layer.build(x.shape)
    inner.kernel.assign(inputs(f"{kind}_kernel"))
    layer.vector_u.assign(inputs(f"{kind}_u"))
    # A call takes sums over the rows and over the columns of the kernel in each iteration, and
    # two more for sigma. After the first one the kernel has about norm 1, the vector always has.
    sums = inner.kernel.shape[-1] + np.prod(inner.kernel.shape[:-1])
    scale = np.linalg.norm(x)  # an output is the scalar product of a part of x and the kernel
    for call in range(len(expected["kernels"])):
        tolerance = 2 * sums * (iterations + 1) * (call + 1) * U
        output = layer(x, training=True)
        for result, key, size in (
            (layer.vector_u, "vectors", 1),
            (inner.kernel, "kernels", 1),
            (output, "outputs", scale),
        ):
            value = expected[key][call]
            np.testing.assert_allclose(result, value, rtol=0, atol=size * tolerance)
    before = inner.kernel.numpy()
    output = layer(x, training=False)
    np.testing.assert_allclose(output, expected["inference"], rtol=0, atol=scale * tolerance)
    np.testing.assert_array_equal(inner.kernel.numpy(), before)


@cases("group_normalization")
def test_group_normalization(name):
    """`InstanceNormalization` is `groups=-1`."""
    arguments, expected = case("group_normalization", name)
    layer = keras.layers.GroupNormalization(arguments["groups"], epsilon=arguments["epsilon"])
    x = inputs("features")
    layer.build(x.shape)
    layer.gamma.assign(inputs("gamma"))
    layer.beta.assign(inputs("beta"))
    # Means over the pixels of a group, and some more roundings of numbers up to the largest one.
    terms = x[0].size // (3 if name == "group" else x.shape[-1])
    tolerance = 2 * (terms + 8) * U * np.abs(expected["output"]).max()
    np.testing.assert_allclose(layer(x), expected["output"], rtol=0, atol=tolerance)


def test_activations():
    """With the default thresholds. Only `gelu` has another default."""
    names = {"hardshrink": "hard_shrink", "softshrink": "soft_shrink", "tanhshrink": "tanh_shrink"}
    x = inputs("activations")
    tolerance = 8 * U * np.abs(x).max()
    for name in ("mish", *names):
        result = getattr(keras.activations, names.get(name, name))(x)
        _, expected = case("activations", name)
        np.testing.assert_allclose(result, expected["output"], rtol=0, atol=tolerance)
    _, expected = case("activations", "gelu")
    approximate = keras.activations.gelu(x, approximate=True)
    np.testing.assert_allclose(approximate, expected["output"], rtol=0, atol=tolerance)
    assert np.abs(keras.activations.gelu(x) - expected["output"]).max() > 1e-4


def descend(optimizer, before=None, after=None):
    """The weights after each step down the quadratics of the reference, by variable."""
    variables = {k: keras.Variable(inputs(f"start_{k}"), name=k) for k in ("matrix", "vector")}
    optimizer.build(list(variables.values()))
    way = {key: [] for key in variables}
    for step in range(STEPS):
        if before is not None:
            before(step)
        gradients = [
            inputs(f"scale_{key}") * v.numpy() + inputs(f"noise_{key}")[step]
            for key, v in variables.items()
        ]
        optimizer.apply([tf.constant(g) for g in gradients])
        for key, variable in variables.items():
            if after is not None:
                after(step, variable)
            way[key].append(variable.numpy())
    way = {key: np.stack(values) for key, values in way.items()}
    optimizer.finalize_variable_values(list(variables.values()))  # the averages, if there are any
    return way, {key: variable.numpy() for key, variable in variables.items()}


def distance(one, other):
    return max(np.abs(one[key] - other[key]).max() for key in ("matrix", "vector"))


def test_lamb():
    arguments, expected = case("optimizers", "lamb")
    way, _ = descend(keras.optimizers.Lamb(arguments["learning_rate"], epsilon=1e-6))
    assert distance(way, expected) < ALONG_THE_WAY


def test_lamb_decays_differently():
    """There the decay is part of the step whose length is set; in Keras it comes before it."""
    arguments, expected = case("optimizers", "lamb_decay")
    rate, decay = arguments["learning_rate"], arguments["weight_decay"]
    for value in (decay, decay / rate):
        way, _ = descend(keras.optimizers.Lamb(rate, epsilon=1e-6, weight_decay=value))
        assert distance(way, expected) > 1e-3


@pytest.mark.parametrize("name", ["adamw", "sgdw"])
def test_decoupled_weight_decay(name):
    """Keras multiplies the decay by the learning rate, tensorflow-addons does not."""
    arguments, expected = case("optimizers", name)
    rate, decay = arguments["learning_rate"], arguments["weight_decay"]

    def make(weight_decay):
        if name == "adamw":
            return keras.optimizers.AdamW(rate, weight_decay)
        momentum = arguments["momentum"]
        return keras.optimizers.SGD(rate, momentum=momentum, weight_decay=weight_decay)

    tolerance = ALONG_THE_WAY + (rate * ADAM if name == "adamw" else 0)
    assert distance(descend(make(decay / rate))[0], expected) < tolerance
    assert distance(descend(make(decay))[0], expected) > 1e-3


def averages(arrays):
    return {key: arrays[f"{key}_average"] for key in ("matrix", "vector")}


def test_moving_average():
    """`use_ema`; Keras starts from the weights after the first step, hence `start_step=1` there."""
    arguments, expected = case("optimizers", "moving_average")
    decay = arguments["average_decay"]
    way, average = descend(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=decay))
    assert distance(way, expected) < ALONG_THE_WAY
    assert distance(average, averages(expected)) < ALONG_THE_WAY
    assert distance(average, {key: value[-1] for key, value in way.items()}) > 1e-2


def test_moving_average_in_fit():
    """`SwapEMAWeights` evaluates, and shows other callbacks, the average; `fit` leaves it there."""
    arguments, expected = case("optimizers", "moving_average")
    scale, average = inputs("scale_vector"), expected["vector_average"]

    class Quadratic(keras.Model):
        def __init__(self):
            super().__init__()
            self.w = self.add_weight(shape=average.shape, initializer="zeros")

        def call(self, x):
            return keras.ops.sum(0.5 * scale * self.w**2 + x * self.w, axis=-1, keepdims=True)

    model = Quadratic()
    optimizer = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=arguments["average_decay"])
    model.compile(optimizer, loss=lambda y, value: value, run_eagerly=True)
    seen = []
    look = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: seen.append(model.w.numpy()))
    noise, zero = inputs("noise_vector"), np.zeros((1, average.size), np.float32)
    history = model.fit(
        noise,
        np.zeros(STEPS),
        batch_size=1,
        shuffle=False,
        validation_data=(zero, np.zeros(1)),
        callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True), look],
        verbose=0,
    )
    for weights in (model.w, *seen):
        np.testing.assert_allclose(weights, average, rtol=0, atol=ALONG_THE_WAY)
    energy = np.sum(0.5 * scale * average**2)
    np.testing.assert_allclose(history.history["val_loss"], [energy], atol=5 * ALONG_THE_WAY)
    last = expected["vector"][-1]
    assert abs(np.sum(0.5 * scale * last**2) - energy) > 1e-2


def test_stochastic_weight_averaging():
    """The plain mean of every second step from the fourth on: Keras has no such option."""
    arguments, expected = case("optimizers", "swa")
    way, _ = descend(keras.optimizers.Adam(0.1))
    tolerance = ALONG_THE_WAY + 0.1 * ADAM
    assert distance(way, expected) < tolerance
    chosen = slice(arguments["start_averaging"], None, arguments["average_period"])
    mean = {key: value[chosen].mean(0) for key, value in way.items()}
    assert distance(mean, averages(expected)) < tolerance


def test_stochastic_weight_averaging_of_all_steps():
    """`use_ema` with the momentum n / (n + 1) in step n is a plain mean, where it is not traced."""
    _, expected = case("optimizers", "swa_each_step")
    optimizer = keras.optimizers.SGD(0.1, use_ema=True)

    def set_momentum(step):
        optimizer.ema_momentum = step / (step + 1)

    way, average = descend(optimizer, before=set_momentum)
    assert distance(way, expected) < ALONG_THE_WAY
    assert distance(average, averages(expected)) < ALONG_THE_WAY


@pytest.mark.parametrize("inner", ["sgd", "adam"])
def test_lookahead(inner):
    """Keras has none. Its definition about a Keras optimizer is, every k steps, two lines."""
    arguments, expected = case("optimizers", f"lookahead_{inner}")
    period, share = arguments["sync_period"], arguments["slow_step_size"]
    slow = {key: inputs(f"start_{key}") for key in ("matrix", "vector")}

    def synchronise(step, fast):
        if (step + 1) % period == 0:
            slow[fast.name] = slow[fast.name] + np.float32(share) * (fast - slow[fast.name])
            fast.assign(slow[fast.name])

    optimizer = {"sgd": keras.optimizers.SGD, "adam": keras.optimizers.Adam}[inner]
    tolerance = ALONG_THE_WAY + (0.1 * ADAM if inner == "adam" else 0)
    assert distance(descend(optimizer(0.1), after=synchronise)[0], expected) < tolerance
    # Not this one: it averages in each step, Lookahead in those alone where it overwrites.
    ema = optimizer(0.1, use_ema=True, ema_momentum=1 - share, ema_overwrite_frequency=period)
    assert distance(descend(ema)[0], expected) > 1e-2


def test_docs_name_what_there_is():
    """Every part of Keras and of this package that the page recommends exists."""
    text = (ROOT / "docs" / "tensorflow-addons.md").read_text("utf-8")
    names = re.findall(r"`((?:deq_)?keras(?:\.\w+)+)", text)
    assert len(names) > 10
    for name in names:
        found = {"keras": keras, "deq_keras": deq_keras}[name.split(".")[0]]
        for part in name.split(".")[1:]:
            found = getattr(found, part)

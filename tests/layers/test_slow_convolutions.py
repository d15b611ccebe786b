"""What is said of slow convolutions in a cell, and what is not."""

import warnings

import keras
import pytest
import tensorflow as tf

import deq_keras as dk
from deq_keras.layers import slow_convolutions

SHAPE = (None, None, None, 1)


def network(first, last, filters=32, middle=0):
    hidden = [
        keras.layers.Conv2D(filters, 3, padding="same", activation="tanh") for _ in range(middle)
    ]
    return keras.Sequential(
        [
            first(filters, 3, padding="same", activation="tanh", name="widening"),
            *hidden,
            last(1, 3, padding="same", name="narrowing"),
        ]
    )


def model(first, last, **kwargs):
    z, y = keras.Input((None, None, 1)), keras.Input((None, None, 1))
    return keras.Model([z, y], y + 0.1 * network(first, last, **kwargs)(z))


class Own(dk.layers.Cell):
    """A cell without layers."""

    def __init__(self, correlate, back, **kwargs):
        super().__init__(symmetric=False, couples_batch=False, **kwargs)
        self.correlate, self.back = correlate, back

    def build(self, z_shape, y_shape=None):
        self.kernel = self.add_weight(shape=(5, 5, 1, 32), name="kernel")
        self.built = True

    def call(self, z, y):
        kernel = tf.convert_to_tensor(self.kernel)
        return y - 0.1 * self.back(tf.tanh(self.correlate(z, kernel)), kernel)


def said(cell, shape=SHAPE):
    layer = dk.layers.Equilibrium(cell)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        layer.build(shape)
    return [str(one.message) for one in found if "convolves" in str(one.message)]


KERAS, OWN = keras.layers.Conv2D, dk.layers.Conv2D


def test_each_slow_layer_is_named_once_with_the_remedy():
    lines = said(model(KERAS, KERAS))
    assert len(lines) == 2
    for name, line in zip(("widening", "narrowing"), lines, strict=True):
        assert f"'{name}'" in line
        assert "deq_keras.layers.Conv2D in place of a keras.layers.Conv2D" in line


def test_the_remedy_helps():
    (line,) = said(model(OWN, KERAS))
    assert "'narrowing'" in line
    assert said(model(OWN, OWN)) == []


def test_what_hardly_matters_is_not_said():
    assert said(model(KERAS, KERAS, middle=6)) == []
    assert said(model(KERAS, KERAS, filters=2)) == []


@pytest.mark.parametrize("kind", ["gradient", "proximal"])
def test_networks_inside_of_cells_of_the_library(kind):
    identity = dk.operators.Identity()
    if kind == "gradient":
        cells = [
            dk.layers.GradientStep(identity, dk.priors.LearnedGradient(network(first, first)))
            for first in (KERAS, OWN)
        ]
    else:
        cells = [dk.layers.ProximalStep(identity, network(first, first)) for first in (KERAS, OWN)]
    assert len(said(cells[0])) == 2
    assert said(cells[1]) == []


def test_a_transposed_layer():
    lines = said(model(OWN, keras.layers.Conv2DTranspose))
    assert len(lines) == 1
    assert "deq_keras.layers.Conv2DTranspose in place of a keras.layers" in lines[0]
    assert said(model(OWN, dk.layers.Conv2DTranspose)) == []


def test_a_cell_without_layers_is_told_the_line():
    def correlate(u, kernel):
        return tf.nn.conv2d(u, kernel, 1, "SAME")

    def back(v, kernel):
        return tf.nn.conv2d_transpose(v, kernel, tf.shape(v[..., :1]), 1, "SAME")

    lines = said(Own(correlate, back))
    assert len(lines) == 2
    assert all(f"{__file__}:" in line for line in lines)
    assert "deq_keras.convolution.correlate(images, filters, 'zero')" in lines[0]
    assert "deq_keras.convolution.correlate_adjoint(images, filters, 'zero')" in lines[1]
    ours = Own(
        lambda u, kernel: dk.convolution.correlate(u, kernel, "zero"),
        lambda v, kernel: dk.convolution.correlate_adjoint(v, kernel, "zero"),
    )
    assert said(ours) == []


def test_strides_and_groups_have_no_faster_form():
    def correlate(u, kernel):
        return tf.nn.conv2d(u, kernel, 2, "SAME")

    def back(v, kernel):
        size = tf.shape(v) * [1, 2, 2, 0] + [0, 0, 0, 1]
        return tf.nn.conv2d_transpose(v, kernel, size, 2, "SAME")

    assert said(Own(correlate, back), (None, 12, 12, 1)) == []


def test_nothing_is_said_with_an_accelerator(monkeypatch):
    monkeypatch.setattr("deq_keras.convolution.correlation.accelerated", lambda: True)
    assert said(model(KERAS, KERAS)) == []


def test_cells_of_the_library_are_not_traced(monkeypatch):
    monkeypatch.setattr(slow_convolutions, "_graph", None)
    prior = dk.priors.FieldsOfExperts(filters=4, kernel_size=3)
    assert said(dk.layers.GradientStep(dk.operators.Identity(), prior)) == []


def test_a_cell_that_cannot_be_traced_is_left_alone():
    class Restless(dk.layers.Cell):
        def call(self, z, y, training=None):
            raise ValueError("not now")

    cell = Restless(symmetric=True, couples_batch=False)
    cell.built = True
    assert slow_convolutions.find(cell, (None, 8, 8, 1), (None, 8, 8, 1), "float32") == []


def test_building_inside_of_a_graph():
    layer = dk.layers.Equilibrium(model(KERAS, KERAS))

    @tf.function
    def function(y):
        return layer(y)

    with pytest.warns(UserWarning, match="convolves"):
        function(tf.zeros((1, 8, 8, 1)))

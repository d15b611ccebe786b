"""Cells of every structure, shared by the tests of adjoints: contractions in float64."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras import layers, solvers

DTYPE = "float64"
IMAGES = tf.constant(np.random.default_rng(0).uniform(size=(3, 5, 4, 1)))
# Larger than what a graph takes for a constant.
CLOSED_OVER = tf.constant(0.3 * np.random.default_rng(1).uniform(size=(3, 5, 4, 3)))


def convolution(filters, size, seed, stddev=0.12, **kwargs):
    small = keras.initializers.RandomNormal(stddev=stddev, seed=seed)
    return keras.layers.Conv2D(
        filters, size, padding="same", kernel_initializer=small, dtype=DTYPE, **kwargs
    )


class Cell(keras.layers.Layer):
    """`y + convolution(middle(tanh(convolution(z))))`, with any layers in the middle."""

    def __init__(self, middle=(), closed_over=None):
        super().__init__(dtype=DTYPE)
        self.inner = convolution(3, 3, 1, 0.4, activation="tanh")
        self.middle = list(middle)
        self.outer = convolution(1, (2, 3), 2)
        self.closed_over = closed_over

    def call(self, z, y, training=None):
        hidden = self.inner(z)
        for layer in self.middle:
            hidden = layer(hidden, training=training)
        if self.closed_over is not None:
            hidden += self.closed_over * tf.sin(z)
        return y + self.outer(hidden) / 4


class OfDictionaries(layers.Cell):
    """Two images that depend on each other, one of them in a list."""

    def __init__(self):
        super().__init__(dtype=DTYPE)
        self.convolution = convolution(3, 3, 3)

    def initial_value(self, y):
        return {"image": tf.zeros_like(y), "edges": [tf.zeros_like(tf.concat([y, y], -1))]}

    def call(self, z, y):
        hidden = tf.tanh(self.convolution(tf.concat([z["image"], *z["edges"]], -1)))
        image = y + hidden[..., :1] / 3
        return {"image": image, "edges": [hidden[..., 1:] + z["image"] / 10]}


class Nested(keras.layers.Layer):
    """Each evaluation solves a fixed point of its own, of a map that depends on `z`."""

    def __init__(self, adjoint, solver):
        super().__init__(dtype=DTYPE)
        self.inside = layers.Equilibrium(Cell(), solver=solver, adjoint=adjoint, dtype=DTYPE)
        self.outside = convolution(1, 3, 4)

    def call(self, z, y):
        return y + tf.tanh(self.outside(self.inside(0.3 * z)))


def make(name, adjoint, exact):
    """A fresh cell, the same for the same name.

    Args:
        name: One of `NAMES`.
        adjoint: Of an equilibrium inside the cell, where there is one.
        exact: Its solver.
    """
    keras.utils.set_random_seed(0)
    norms = keras.layers
    if name == "nested":
        return Nested(adjoint, exact)
    if name == "dictionaries":
        return OfDictionaries()
    middle = {
        "closed_over": (),
        "dropout": lambda: (norms.Dropout(0.3, seed=3, dtype=DTYPE),),
        "layer_normalisation": lambda: (norms.LayerNormalization([1, 2, 3], dtype=DTYPE),),
        "batch_normalisation": lambda: (norms.BatchNormalization(dtype=DTYPE),),
        "spectral_normalisation": lambda: (
            norms.SpectralNormalization(convolution(3, 3, 5, 0.3), dtype=DTYPE),
        ),
    }[name]
    return Cell(middle() if middle else (), CLOSED_OVER if name == "closed_over" else None)


NAMES = [
    "closed_over",
    "dropout",
    "layer_normalisation",
    "batch_normalisation",
    "spectral_normalisation",
    "dictionaries",
    "nested",
]
PICARD = solvers.Picard(tolerance=1e-15)

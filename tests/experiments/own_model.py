"""A model of one's own for `experiments.train`: small, and compiled in a moment."""

import keras

import deq_keras as dk


def small(config):
    """The measurement and a convolution of it."""
    image = keras.Input((None, None, config.data.channels))
    learned = keras.layers.Conv2D(config.data.channels, 3, padding="same", use_bias=False)
    model = keras.Model(image, keras.layers.Add()([image, learned(image)]))
    optimizer = keras.optimizers.Adam(config.train.learning_rate)
    model.compile(optimizer, "mse", metrics=[dk.metrics.PSNR()])
    return model


def solving(config):
    """A solver behind another layer."""
    tv = dk.layers.Variational(dk.operators.Identity(), dk.priors.TotalVariation(), name="tv")
    image = keras.Input((None, None, config.data.channels))
    model = keras.Model(image, tv(keras.layers.Rescaling(0.9)(image)))
    model.compile(keras.optimizers.SGD(config.train.learning_rate), "mse")
    return model


def nothing(config):
    """No model."""


NOT_A_FUNCTION = 1

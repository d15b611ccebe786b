"""Weights of priors for tests."""

import numpy as np


def general(prior, channels=1, deviation=0.2):
    """The prior, built, with weights that are no special case: moved by random numbers."""
    prior.build((None, None, None, channels))
    rng = np.random.default_rng(7)
    for weight in prior.trainable_weights:
        weight.assign(weight + deviation * rng.normal(size=weight.shape))
    return prior

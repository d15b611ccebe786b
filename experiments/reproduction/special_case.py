"""The special case: a bilevel model is the equilibrium model with tied weights."""

import numpy as np
import tensorflow as tf

from experiments.reproduction import models, training


def special_case(settings, config, images):
    """How far a bilevel model is from the equilibrium model with the same tied weights.

    Both are solved exactly, in double precision.

    Returns:
        Relative differences of the reconstructions and of the gradients by the shared weights.
    """
    count = min(10, len(images.test))
    shape = images.test.shape[1:]
    measured = training.Measurements(settings, config, images).fixed("test")
    measurement, truth = (tf.cast(x[:count], tf.float64) for x in measured)
    found = []
    for model in ("bilevel", "equilibrium"):
        built = models.build({**settings, "model": model}, config, shape, "exact", "float64")
        found.append((built, models.layer_of(built).cell.prior))
    found[1][1].adopt(found[0][1])
    estimates, gradients = [], []
    for built, prior in found:

        @tf.function(autograph=False)
        def gradient(measurement, truth, built=built):
            with tf.GradientTape() as tape:
                estimate = built(measurement, training=True)
                loss = tf.reduce_mean(tf.square(estimate - truth))
            return estimate, tape.gradient(loss, built.trainable_variables)

        estimate, parts = gradient(measurement, truth)
        parts = {
            weight.name: part.numpy()
            for weight, part in zip(built.trainable_variables, parts, strict=True)
        }
        if not prior.tied:
            parts["analysis"] += parts.pop("synthesis")  # one weight in both places
        estimates.append(estimate.numpy())
        gradients.append(np.concatenate([parts[name].ravel() for name in sorted(parts)]))
    return tuple(
        float(np.linalg.norm(b - a) / np.linalg.norm(a)) for a, b in (estimates, gradients)
    )

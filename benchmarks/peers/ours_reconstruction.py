"""deq_keras on a `Reconstruction`: `Variational` with a preset."""

import functools

import numpy as np

FAMILIES = {
    "Variational, defaults": {"fixed": True},
    "Variational, NonmonotoneAPG": {"solver": "NonmonotoneAPG"},
    "Variational, L-BFGS": {"solver": "LBFGS"},
    "Variational, Nesterov": {"solver": "Nesterov"},
    "Variational, Anderson": {"solver": "Anderson"},
}
REQUIRES = ()


def presets():
    """The names of the presets that are ridge energies of grey images with one noise level."""
    import deq_keras as dk

    return [name for name in dk.presets.names() if _is_ridge(dk.presets.load(name))]


def _is_ridge(prior):
    import deq_keras as dk

    kinds = (dk.priors.FieldsOfExperts, dk.priors.RidgeRegularizer)
    return prior.has_energy and type(prior) in kinds and not prior.takes_noise_level


def problem(preset, measurement):
    """The `Reconstruction` of a preset, in arrays.

    Args:
        preset: Its name.
        measurement: `(batch, height, width, 1)`.
    """
    import tensorflow as tf

    import deq_keras as dk
    from benchmarks.reconstruction import Reconstruction

    prior = dk.presets.load(preset)
    coefficients = prior.coefficients(measurement.shape[1:3])
    if isinstance(prior, dk.priors.RidgeRegularizer):
        filters, potential = coefficients.filters, prior.activation
        layers = [tf.convert_to_tensor(layer) for layer in prior.convolutions]
        layers[0] -= tf.reduce_mean(layers[0], axis=(0, 1), keepdims=True)
        composed = functools.reduce(dk.convolution.compose, layers)
        layers[0] *= tf.norm(filters) / tf.norm(composed)
        scaling, weak_convexity = prior.scaling_at()[0], prior.weak_convexity
    else:
        filters, potential = coefficients.analysis, prior.activation
        layers, weak_convexity = [filters], 0.0
        scaling = tf.ones_like(coefficients.sharpness)
    return Reconstruction(
        preset=preset,
        layers=tuple(np.asarray(layer) for layer in layers),
        filters=np.asarray(filters),
        potential=potential,
        sharpness=np.asarray(coefficients.sharpness),
        scaling=np.asarray(scaling),
        weak_convexity=weak_convexity,
        weight=dk.presets.card(preset)["weight"],
        measurement=np.ascontiguousarray(measurement, np.float32),
    )


def build(problem, options):
    """One reconstruction.

    Args:
        problem: A `Reconstruction`.
        options: Perhaps `solver`, the name of a class of `deq_keras.solvers`, with its `tolerance`.
    """
    import tensorflow as tf

    import deq_keras as dk

    solver = "auto"
    if "solver" in options:
        limits = {"tolerance": options["tolerance"], "max_steps": 5000}
        solver = getattr(dk.solvers, options["solver"])(**limits)
    layer = dk.layers.Variational(
        dk.operators.Identity(),
        dk.presets.load(problem.preset),
        problem.weight,
        train_weight=False,
        solver=solver,
    )
    y = tf.constant(problem.measurement)
    layer.build(y.shape)
    compiled = tf.function(layer, autograph=False)

    def step():
        for metric in layer.metrics:
            metric.reset_state()
        u = compiled(y)
        u.numpy()  # waits for it
        return u

    def finish(u):
        steps = {m.name.removeprefix(f"{layer.name}_"): float(m.result()) for m in layer.metrics}
        steps = {name: value for name, value in steps.items() if np.isfinite(value)}
        return {"solution": u.numpy(), **steps}

    return step, finish

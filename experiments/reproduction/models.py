"""Keras models of a run: with the solvers of the paper, with ours, and solved exactly."""

import keras

import deq_keras as dk
from experiments.reproduction import digits, faces
from trainers.process.errors import ConfigurationError, unknown_name

EXPERIMENTS = {"mnist": digits, "faces": faces}
FIDELITIES = ("ours", "paper")

# What other results are compared with: in double precision, far below what is measured.
_EXACT, _EXACT_STEPS = 1e-9, 1000


def get(name):
    """The module of an experiment.

    Raises:
        ConfigurationError: If the name is unknown.
    """
    if name not in EXPERIMENTS:
        raise unknown_name("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def build(settings, config, image_shape, fidelity=None, dtype="float32"):
    """The model of a run, from measurements to reconstructions, with its first weights.

    Args:
        settings: Those of the run, see `experiments.reproduction.grid.Run`.
        config: The configuration of the experiment.
        image_shape: `(height, width, 1)`.
        fidelity: `"paper"`, `"ours"` or `"exact"`; by default that of the settings.
        dtype: Of weights, images and solves.
    """
    fidelity = fidelity or settings["fidelity"]
    experiment = get(config.experiment)
    cell = dk.layers.GradientStep(
        experiment.operator(settings, dtype),
        experiment.prior(settings, config.seed, dtype),
        experiment.weight(settings),
        train_weight=False,
        step_size=experiment.step_size(settings, fidelity),
        dtype=dtype,
    )
    solver, linear_solver = _solvers(experiment, settings, config, fidelity)
    layer = dk.layers.Equilibrium(
        cell, solver, dk.adjoints.Implicit(linear_solver), name="reconstruction", dtype=dtype
    )
    measurement = keras.Input(image_shape, dtype=dtype, name="measurement")
    start = experiment.start(measurement) if fidelity == "paper" else None
    return keras.Model(measurement, layer(measurement, initial_value=start))


def layer_of(model):
    """The equilibrium layer of a model that `build` has made."""
    return model.get_layer("reconstruction")


def _solvers(experiment, settings, config, fidelity):
    if fidelity == "paper":
        solver = experiment.published_solver(settings, config)
        return solver, dk.linear_solvers.FixedPoint(solver)
    if fidelity not in ("ours", "exact"):
        raise ConfigurationError(
            f"Expected fidelity to be one of {FIDELITIES}. Received {fidelity!r}."
        )
    if fidelity == "exact":
        tolerance, adjoint_tolerance, max_steps = _EXACT, _EXACT, _EXACT_STEPS
    else:
        own = config.ours
        tolerance, adjoint_tolerance = own.tolerance, own.adjoint_tolerance
        max_steps = own.max_steps
    limits = {"tolerance": tolerance, "max_steps": max_steps}
    adjoint_limits = {"tolerance": adjoint_tolerance, "max_steps": max_steps}
    if settings["model"] == "bilevel":
        return dk.solvers.LBFGS(**limits), dk.linear_solvers.ConjugateGradient(**adjoint_limits)
    return dk.solvers.Anderson(**limits), dk.linear_solvers.GMRES(**adjoint_limits)

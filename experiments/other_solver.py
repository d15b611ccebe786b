"""Solvers of an evaluation, where they are to differ from those of the training."""

import copy

from absl import flags

import deq_keras as dk
from deq_keras.checks import positive
from trainers.process.errors import ConfigurationError

SOLVER = flags.DEFINE_string(
    "solver", None, "Solver of the evaluation, such as newton_krylov; the training's if not given."
)
TOLERANCE = flags.DEFINE_float(
    "tolerance", None, "Residual at which it stops; the training's if not given."
)
MAX_STEPS = flags.DEFINE_integer("max_steps", None, "Most steps of it; its own if not given.", 1)


def check_flags():
    """Refuses a solver that there is not, with those that there are, before any work.

    Raises:
        ConfigurationError: If a flag is wrong.
    """
    try:
        if SOLVER.value is not None:
            dk.solvers.get(SOLVER.value)
        if TOLERANCE.value is not None:
            positive("--tolerance", TOLERANCE.value)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def apply(model, measurement):
    """Gives the layers of a model the solver that the flags ask for.

    Args:
        model: A Keras model.
        measurement: What it takes, a batch: the layers that are solved are found by it.

    Returns:
        For each of those layers, by its name, a record: the `solver`, its `tolerance` and
        `max_steps`, and the same of the `training` if they differ.

    Raises:
        ConfigurationError: If the model has no layer that is solved, or the solver does not fit.
    """
    asked = any(flag.value is not None for flag in (SOLVER, TOLERANCE, MAX_STEPS))
    records = {}
    for layer, problem in _solved(model, measurement):
        before = layer.choose_solver(problem)
        after = _chosen(before)
        records[layer.name] = record = _record(after)
        if record != _record(before):
            record["training"] = _record(before)
        if asked:
            layer.solver = _fitting(after, problem)
    if asked and not records:
        raise ConfigurationError(
            "Expected --solver, --tolerance and --max_steps for a model with a layer that is "
            "solved. This one has none: leave them out."
        )
    return records


def words(records):
    """The solvers, for the title of a table: empty if there is none."""
    said = []
    for record in records.values():
        text = _words(record)
        if "training" in record:
            text += f" (training: {_words(record['training'])})"
        if text not in said:
            said.append(text)
    return "; ".join(said)


def _words(record):
    return f"{record['solver']} to {record['tolerance']:g}, at most {record['max_steps']} steps"


def _solved(model, measurement):
    """The layers that a model solves, and a problem of each, from the first step of its solve."""
    with dk.layers.observe(max_steps=1) as observation:
        model(measurement, training=False)
    return [(seen.layer, seen.problem) for seen in observation]


def _chosen(before):
    after = copy.copy(before)
    if SOLVER.value is not None:
        after = dk.solvers.get(SOLVER.value)
        after.tolerance = before.tolerance
    if TOLERANCE.value is not None:
        after.tolerance = TOLERANCE.value
    if MAX_STEPS.value is not None:
        after.max_steps = MAX_STEPS.value
    return after


def _fitting(solver, problem):
    """The solver, if it can solve such a problem."""
    try:
        solver.solve(problem.frozen(), max_steps=1)
    except ValueError as error:
        raise ConfigurationError(f"--solver={SOLVER.value} does not fit: {error}") from None
    return solver


def _record(solver):
    return {
        "solver": type(solver).__name__,
        "tolerance": solver.tolerance,
        "max_steps": solver.max_steps,
    }

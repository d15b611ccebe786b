"""Phases of a training: looser solves or cheaper derivatives in its first epochs."""

from __future__ import annotations

import contextlib
from typing import NamedTuple

import keras

import deq_keras as dk
from deq_keras.checks import positive, positive_int
from trainers.callbacks.model_solver import solving_layers
from trainers.process.errors import ConfigurationError


class Phase(NamedTuple):
    """How the layers of a model are solved for some epochs.

    Attributes:
        epochs: How many.
        tolerance: Of forward solves; `None`: that of each layer's solver.
        adjoint: A name of `deq_keras.adjoints`, such as `"jacobian_free"`, or an `Adjoint`; `None`:
            each layer's own.
    """

    epochs: int
    tolerance: float | None = None
    adjoint: str | dk.adjoints.Adjoint | None = None


class Phases(keras.callbacks.Callback):
    """Gives the training steps of the first epochs other tolerances and adjoints.

    Early steps need no exact gradient: the weights are far from where they will be. When all
    phases are over the layers are solved as they were made, and validation always is. A step is
    traced anew at the beginning of each phase, a second or two.

    Args:
        phases: `Phase`s, or tuples in their order, one after the other.
        stepper: The `Trainer.stepper` of the model.

    Raises:
        ConfigurationError: If a phase is not possible, or the model solves nothing.

    Example:

    >>> phases = [Phase(epochs=5, tolerance=1e-2, adjoint="jacobian_free")]
    >>> trainer.fit(batches, epochs=20, callbacks=[Phases(phases, trainer.stepper)])

    Reference:
        Fung et al., JFB, AAAI 2022, for derivatives without an adjoint equation; Salehi et al.,
        An adaptively inexact first-order method for bilevel optimization, arXiv:2308.10098, for
        lower levels that become exact on the way.
    """

    def __init__(self, phases, stepper):
        super().__init__()
        self.phases = checked(phases)
        self._stepper, self._current = stepper, None
        self._layers = solving_layers(stepper.model)
        if not self._layers:
            raise ConfigurationError(
                "Expected a model with a layer that is solved, for phases of a training. Received "
                f"{stepper.model.name!r}, which has none: leave them out."
            )

    def phase_of(self, epoch: int) -> Phase | None:
        """The phase that an epoch, counted from 0, belongs to; `None` after the last one."""
        for phase in self.phases:
            if epoch < phase.epochs:
                return phase
            epoch -= phase.epochs
        return None

    def on_epoch_begin(self, epoch, logs=None):
        phase = self.phase_of(epoch)
        if phase is not self._current:
            self._current = phase
            self._stepper.train_within(None if phase is None else lambda: self._solved_as(phase))

    def get_state(self):
        """Nothing: the epoch alone says what phase it is."""
        return {}

    def set_state(self, state):
        """See `get_state`."""

    @contextlib.contextmanager
    def _solved_as(self, phase):
        before = [layer.adjoint for layer in self._layers]
        try:
            if phase.adjoint is not None:
                for layer in self._layers:
                    layer.adjoint = dk.adjoints.get(phase.adjoint)
            with dk.layers.observe(tolerance=phase.tolerance):
                yield
        finally:
            for layer, adjoint in zip(self._layers, before, strict=True):
                layer.adjoint = adjoint


def checked(phases) -> list[Phase]:
    """Phases from tuples.

    Raises:
        ConfigurationError: If one is not possible: what was expected and received.

    Example:

    >>> checked([(5, 1e-2, "jacobian_free")])
    [Phase(epochs=5, tolerance=0.01, adjoint='jacobian_free')]
    """
    found = []
    for phase in phases:
        if not isinstance(phase, (tuple, list)) or not 1 <= len(phase) <= len(Phase._fields):
            raise ConfigurationError(
                "Expected each phase to be `(epochs, tolerance, adjoint)`, such as "
                f"(5, 1e-2, 'jacobian_free'). Received {phase!r}."
            )
        found.append(Phase(*phase))
        try:
            positive_int("epochs", found[-1].epochs)
            if found[-1].tolerance is not None:
                positive("tolerance", found[-1].tolerance)
            if found[-1].adjoint is not None:
                dk.adjoints.get(found[-1].adjoint)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"Of the phase {tuple(phase)!r}: {error}") from None
    return found

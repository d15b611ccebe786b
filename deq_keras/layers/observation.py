"""Observation of the solves of layers, wherever in a model they are."""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from deq_keras import certificates
from deq_keras.problems import Problem, Solution
from deq_keras.solvers import Solver


class Observed(NamedTuple):
    """What was seen of one call of a layer.

    Attributes:
        layer: The layer.
        problem: The `deq_keras.solvers.Problem` of its measurement.
        solution: The `deq_keras.solvers.Solution`.
        output: What the layer returned, the last of several, in the precision of its weights.

    Example:

    >>> layer = deq_keras.layers.Variational(
    ...     deq_keras.operators.Identity(), deq_keras.priors.TotalVariation())
    >>> with deq_keras.layers.observe() as observation:
    ...     image = layer(tf.random.uniform((2, 16, 16, 1)))
    >>> observation[0].error_bound().certified.numpy()
    array([ True,  True])
    """

    layer: Any
    problem: Problem
    solution: Solution
    output: Any

    def error_bound(self) -> certificates.ErrorBound:
        """How far the output is from the exact fixed point; see `Equilibrium.error_bound`."""
        value = tf.nest.map_structure(
            lambda out, z: tf.cast(out, z.dtype), self.output, self.solution.value
        )
        return certificates.solution_error(self.problem.frozen(), value)


class Observation(list):
    """The `Observed` calls, in the order in which the layers were called.

    Args:
        tolerance: In place of that of the layers' solvers, a number or a tensor `(batch,)`; where
            it is not positive, and for `None`, the solver's own holds.
        max_steps: In place of that of the layers' solvers, in the same way.
        precondition: `False`: the solvers do without the preconditioners of their problems.

    Example:

    >>> solver = deq_keras.solvers.Picard()
    >>> deq_keras.layers.Observation(max_steps=7).limited(solver)
    Picard(damping=1.0, divergence=10000.0, tolerance=1e-05, max_steps=7, ...)
    """

    def __init__(self, tolerance=None, max_steps=None, precondition=True):
        super().__init__()
        self._tolerance, self._max_steps = tolerance, max_steps
        self._precondition = precondition

    def limited(self, solver: Solver) -> Solver:
        """The solver with the limits of this observation in place of its own."""
        if self._tolerance is None and self._max_steps is None and self._precondition:
            return solver
        return solver.within(
            _chosen(self._tolerance, solver.tolerance),
            _chosen(self._max_steps, solver.max_steps),
            self._precondition,
        )

    def solution(self, value) -> Solution:
        """What the solves say of a model's result: a row for each image.

        Args:
            value: The result of the model.

        Returns:
            A `deq_keras.solvers.Solution` with the total of steps, the worst residual, and whether
            all converged; `None` in their place where no layer was observed.
        """
        if not self:
            return Solution(value, None, None, None)
        found = [seen.solution for seen in self]
        return Solution(
            value,
            tf.reduce_max([solution.residual for solution in found], axis=0),
            tf.reduce_sum([solution.steps for solution in found], axis=0),
            tf.reduce_all([solution.converged for solution in found], axis=0),
        )


@contextlib.contextmanager
def observe(tolerance=None, max_steps=None, precondition=True) -> Iterator[Observation]:
    """Collects what the solvers of all layers find that are called within, in models as well.

    A model's call returns images alone. Within this context it says for each `Equilibrium`,
    `Variational` or `CorrectedEquilibrium` that it goes through how well it solved, and solves no
    more than once. Use it within the same `tf.function` as the call, or out of graphs.

    Args:
        tolerance: Relative residual at which an image stops, in place of that of the solvers: a
            number, or a tensor `(batch,)`, in which a number <= 0 stands for the solver's own.
        max_steps: Largest number of evaluations of the map, in the same way.
        precondition: `False`: the solvers do without the preconditioners of their problems, which
            may take Fourier transforms.

    Yields:
        An `Observation`, a list of `Observed`.

    Example:

    >>> layer = deq_keras.layers.Variational(
    ...     deq_keras.operators.Identity(), deq_keras.priors.TotalVariation())
    >>> model = keras.Sequential([keras.Input((None, None, 1)), layer])
    >>> with deq_keras.layers.observe(tolerance=1e-3) as observation:
    ...     image = model(tf.random.uniform((2, 16, 16, 1)))
    >>> observation.solution(image).converged.numpy()
    array([ True,  True])
    >>> observation[0].layer is layer
    True
    """
    observation = Observation(tolerance, max_steps, precondition)
    token = _CURRENT.set(observation)
    try:
        yield observation
    finally:
        _CURRENT.reset(token)


_CURRENT = contextvars.ContextVar("observation", default=None)


def current() -> Observation | None:
    """The innermost observation, if there is one."""
    return _CURRENT.get()


def _chosen(limit, own):
    if limit is None or not tf.is_tensor(limit):
        return own if limit is None or not limit > 0 else limit
    return tf.where(limit > 0, limit, tf.cast(own, limit.dtype))

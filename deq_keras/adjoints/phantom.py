"""Phantom gradients."""

import keras
import tensorflow as tf

from deq_keras.adjoints.base import Adjoint, solve_off_tape
from deq_keras.checks import positive, positive_int


@keras.saving.register_keras_serializable(package="deq_keras")
class Phantom(Adjoint):
    """Back-propagates through `steps` damped steps `z <- z + damping (f(z) - z)` from the solution.

    An approximate gradient: `damping` times the first `steps` terms of Neumann's series of the
    damped map, at the solution. `steps=1, damping=1` is `JacobianFree`. Memory grows with `steps`.
    Derivatives of the result are those of these steps, of every order.

    Args:
        steps: Number of recorded evaluations of the map.
        damping: Number in (0, 1].

    Reference:
        Geng, Zhang, Bai, Wang and Lin, On training implicit models, NeurIPS 2021 (unrolled form).

    Example:

    >>> y = tf.constant([[3.0]])
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(y)
    ...     problem = deq_keras.solvers.Problem(lambda z: 0.5 * z + y, tf.zeros_like(y))
    ...     adjoint = deq_keras.adjoints.Phantom(steps=2, damping=0.5)
    ...     z, solution = adjoint.solve(problem, deq_keras.solvers.Picard())
    >>> tape.gradient(z, y).numpy().round(3)  # the exact one is 2
    array([[0.875]], dtype=float32)
    """

    def __init__(self, steps=5, damping=0.5):
        self.steps = positive_int("steps", steps)
        self.damping = positive("damping", damping, upper=1.0)

    def solve(self, problem, solver, report=None):
        _, solution = solve_off_tape(problem, solver)
        z, record = solution.value, problem.record or problem.f
        for i in range(self.steps):
            f = problem.f if i < self.steps - 1 else record  # state changes once
            z = tf.nest.map_structure(lambda old, new: old + self.damping * (new - old), z, f(z))
        return z, solution

    def get_config(self):
        return {"steps": self.steps, "damping": self.damping}

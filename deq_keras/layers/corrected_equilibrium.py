"""The equilibrium layer whose iterates are supervised as well."""

import keras
import tensorflow as tf

from deq_keras.checks import positive_int
from deq_keras.layers.equilibrium import Equilibrium


@keras.saving.register_keras_serializable(package="deq_keras")
class CorrectedEquilibrium(Equilibrium):
    """An `Equilibrium` with several outputs: iterates of its solver, and the solution last.

    In training, output `i` is a step of the cell from the iterate after `corrections[i]` steps,
    with the Jacobian-free gradient: supervised as the solution is, it keeps the path to it short.
    Outside of training all outputs are the solution.

    Args:
        cell: As in `Equilibrium`.
        corrections: Numbers of steps, integers >= 1.
        **kwargs: Further arguments of `Equilibrium`.

    Returns:
        A list of `len(corrections) + 1` reconstructions.

    Reference:
        Bai, Geng, Savani and Kolter, Deep equilibrium optical flow estimation, CVPR 2022.

    Example:

    >>> prior = deq_keras.priors.UntiedFieldsOfExperts(filters=8, kernel_size=5)
    >>> cell = deq_keras.layers.GradientStep(deq_keras.operators.Identity(), prior)
    >>> layer = deq_keras.layers.CorrectedEquilibrium(cell, corrections=(5, 10))
    >>> len(layer(tf.random.uniform((2, 32, 32, 1))))
    3
    """

    def __init__(self, cell: keras.layers.Layer, corrections: tuple[int, ...] = (5,), **kwargs):
        super().__init__(cell, **kwargs)
        self.corrections = tuple(positive_int("corrections", steps) for steps in corrections)

    def _outputs(self, problem, output, training):
        if not training:
            return [output] * (len(self.corrections) + 1)
        frozen = problem.frozen()
        solver = self.choose_solver(frozen)
        iterates = (solver.solve(frozen, max_steps=n).value for n in self.corrections)
        steps = [problem.f(tf.nest.map_structure(tf.stop_gradient, z)) for z in iterates]
        return [*steps, output]

    def compute_output_shape(self, input_shape, initial_value_shape=None):
        shape = super().compute_output_shape(input_shape, initial_value_shape)
        return [shape] * (len(self.corrections) + 1)

    def get_config(self):
        return {**super().get_config(), "corrections": self.corrections}

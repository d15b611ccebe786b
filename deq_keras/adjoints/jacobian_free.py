"""Jacobian-free back-propagation, and the first terms of Neumann's series."""

import keras
import tensorflow as tf

from deq_keras.adjoints.base import (
    Adjoint,
    at_solution,
    attach,
    solve_off_tape,
)
from deq_keras.checks import positive_int
from deq_keras.numerics.jacobian import transposed_product


@keras.saving.register_keras_serializable(package="deq_keras")
class JacobianFree(Adjoint):
    """Takes `(I - J^T)^{-1}` for the identity: no adjoint equation, and not the exact gradient.

    A descent direction if `f` is contractive enough and well conditioned.

    Reference:
        Fung et al., JFB: Jacobian-free backpropagation for implicit networks, AAAI 2022.

    Example:

    >>> y = tf.constant([[3.0]])
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(y)
    ...     problem = deq_keras.solvers.Problem(lambda z: 0.5 * z + y, tf.zeros_like(y))
    ...     adjoint = deq_keras.adjoints.JacobianFree()
    ...     z, solution = adjoint.solve(problem, deq_keras.solvers.Picard())
    >>> tape.gradient(z, y).numpy().round(3)  # the exact one is 2
    array([[1.]], dtype=float32)
    """

    def solve(self, problem, solver, report=None):
        _, solution = solve_off_tape(problem, solver)
        return attach(at_solution(problem)(solution.value), lambda z, d: d), solution


@keras.saving.register_keras_serializable(package="deq_keras")
class TruncatedNeumann(Adjoint):
    """Takes `(I - J^T)^{-1}` for `I + J^T + ... + (J^T)^steps`: so many products, whatever comes.

    Between `JacobianFree` (no step) and `Implicit("neumann")` (as many as it takes), with an error
    of `q^(steps + 1)` relative to the exact one for a map with contraction factor `q`.

    Args:
        steps: Number of products with `J^T`, and of terms beyond the first.

    Reference:
        Lorraine, Vicol and Duvenaud, Optimizing millions of hyperparameters by implicit
        differentiation, AISTATS 2020.

    Example:

    >>> y = tf.constant([[3.0]])
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(y)
    ...     problem = deq_keras.solvers.Problem(lambda z: 0.5 * z + y, tf.zeros_like(y))
    ...     adjoint = deq_keras.adjoints.TruncatedNeumann(steps=2)
    ...     z, solution = adjoint.solve(problem, deq_keras.solvers.Picard())
    >>> tape.gradient(z, y).numpy().round(3)  # the exact one is 2
    array([[1.75]], dtype=float32)
    """

    def __init__(self, steps=5):
        self.steps = positive_int("steps", steps)

    def solve(self, problem, solver, report=None):
        frozen, solution = solve_off_tape(problem, solver)

        def correct(z, d):
            product, w = transposed_product(frozen.f, z), d
            for _ in range(self.steps):
                w = tf.nest.map_structure(tf.add, d, product(w))
            return w

        return attach(at_solution(problem)(solution.value), correct), solution

    def get_config(self):
        return {"steps": self.steps}

"""Back-propagation through the solver's own steps."""

import keras
import tensorflow as tf

from deq_keras.adjoints.base import Adjoint, explicit
from deq_keras.checks import positive_int
from deq_keras.numerics import partial

_CLOSED_OVER = (
    "Unrolled(recompute=True) has derivatives by the measurement and the weights of the cell only, "
    "and this cell closes over a tensor. Use recompute=False, or pass the tensor with the "
    "measurement."
)


@keras.saving.register_keras_serializable(package="deq_keras")
class Unrolled(Adjoint):
    """Back-propagates through a fixed number of the solver's own steps, with no early stop.

    The exact gradient of what is computed, converged or not, and derivatives of every order.
    Memory grows with `steps`.

    Args:
        steps: Number of evaluations of the map, the one that gives the output included.
        recompute: Keep the iterates only and evaluate the map again in the backward pass: a
            fraction of the memory for about a third more time. Derivatives then go to the
            measurement and the weights alone. A cell that closes over a tensor is refused in
            graphs; elsewhere asking for a derivative by that tensor is an error (if it has more
            than 128 entries: smaller ones look like constants, and get that of the last step).
        hold_coefficients: Take what an accelerated step is combined with (the weights of Anderson,
            the estimate of a quasi-Newton method, searched lengths) for constants in the backward
            pass. That is not the derivative of what is computed, but it approaches that of the
            solution about as fast as the iterates do, where the exact one lags behind: after 80
            steps of Anderson in single precision the gradient of a problem of condition 50, whose
            output is right to 2e-4, is wrong by 5e-3 in place of 9e-2, and with `period=1` in place
            of 1.2. Broyden's, wrong by 2e-1 in place of 130, wants `Implicit`. First derivatives
            only. (Measured by tests/adjoints/test_unrolled_at_rest.py.)

    Reference:
        Domke, Generic methods for optimization-based modeling, AISTATS 2012; Chen et al., Training
        deep nets with sublinear memory cost, 2016 (recomputation); Griewank et al., Derivative
        convergence for iterative equation solvers, Optimization Methods and Software 1993 (held
        coefficients).

    Example:

    >>> y = tf.constant([[3.0]])
    >>> with tf.GradientTape() as tape:
    ...     tape.watch(y)
    ...     problem = deq_keras.solvers.Problem(lambda z: 0.5 * z + y, tf.zeros_like(y))
    ...     adjoint = deq_keras.adjoints.Unrolled(steps=5)
    ...     z, solution = adjoint.solve(problem, deq_keras.solvers.Picard())
    >>> tape.gradient(z, y).numpy().round(3)  # the exact one is 2
    array([[1.875]], dtype=float32)
    """

    def __init__(self, steps: int = 20, recompute: bool = False, hold_coefficients: bool = False):
        self.steps = positive_int("steps", steps)
        if self.steps < 2:
            raise ValueError(f"Expected `steps` >= 2. Received steps={steps!r}.")
        self.recompute = bool(recompute)
        self.hold_coefficients = bool(hold_coefficients)

    def solve(self, problem, solver, report=None):
        pure, start = problem, problem.initial_value
        if self.recompute:
            f, sources = explicit(problem, "Unrolled(recompute=True)")
            pure = problem._replace(f=_recomputed(f, sources, start))
        solution = solver.unroll(pure, self.steps - 1, hold_coefficients=self.hold_coefficients)
        z = solution.value
        if self.recompute:
            z = _guarded(z, _closed_over(f, sources, z))
        return (problem.record or problem.f)(z), partial.stopped(solution)

    def get_config(self):
        return {
            "steps": self.steps,
            "recompute": self.recompute,
            "hold_coefficients": self.hold_coefficients,
        }


def _recomputed(f, sources, like):
    """`f` as a function of all its tensors, which the backward pass evaluates again."""
    count = len(tf.nest.flatten(like))

    @tf.recompute_grad
    def step(*tensors):
        z = tf.nest.pack_sequence_as(like, tensors[:count])
        return tf.nest.flatten(f(z, list(tensors[count:])))

    return lambda z: tf.nest.pack_sequence_as(like, step(*tf.nest.flatten(z), *sources))


def _closed_over(f, sources, z):
    """The floating-point tensors that `f` depends on and that are not among its sources."""
    traced = tf.function(f, autograph=False).get_concrete_function(z, sources)
    found = [tensor for tensor in traced.captured_inputs if tensor.dtype.is_floating]
    if not tf.executing_eagerly() and any(hasattr(tensor, "numpy") for tensor in found):
        raise ValueError(_CLOSED_OVER)  # TensorFlow cannot differentiate its loop then
    return found


def _guarded(z, tensors):
    """`z`, with an error where it is differentiated by one of the tensors."""
    nothing = 0.0
    for tensor in tensors:
        guard = tf.reduce_sum(tf.raw_ops.PreventGradient(input=tensor, message=_CLOSED_OVER))
        nothing += tf.math.multiply_no_nan(guard, tf.zeros_like(guard))
    return tf.nest.map_structure(lambda leaf: leaf + tf.cast(nothing, leaf.dtype), z)

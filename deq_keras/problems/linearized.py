"""A problem at a point: its residual, and products with the derivative of it."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deq_keras.numerics.jacobian import linearize, linearize_forward
from deq_keras.numerics.rows import column, first, norm
from deq_keras.problems.problem import step_length


class Linearized(NamedTuple):
    """What `linearized` gives of a problem of rows at `z`.

    Attributes:
        fz: `f(z)`.
        residual: `f(z) - z`, with all its digits where `f` is a step along a known gradient.
        noise: `(batch,)`, the rounding of the residual if it is a difference, else zero.
        product: `w -> (I - J) w` with the Jacobian `J` of `f` at `z`.
    """

    fz: tf.Tensor
    residual: tf.Tensor
    noise: tf.Tensor
    product: Callable


def is_symmetric(problem) -> bool:
    """Whether the Jacobian is known to be symmetric: declared so, or of a step on an energy."""
    return bool(problem.symmetric) or has_smooth_energy(problem)


def has_smooth_energy(problem) -> bool:
    """Whether `f` is a gradient step on an energy that is known, without a proximal map."""
    step = problem.step
    return step is not None and step.energy is not None and step.proximal is None


def linearized(problem, z) -> Linearized:
    """The problem of rows at `z`, from one evaluation of `f` or of its gradient.

    Products are derivatives of that evaluation. Where the Jacobian is symmetric they are those with
    the transposed one.
    """
    linearize_ = linearize if is_symmetric(problem) else linearize_forward
    step = problem.step
    if step is None or step.gradient is None or step.proximal is not None:
        fz, product = linearize_(problem.f, z)
        eps = float(np.finfo(z.dtype.as_numpy_dtype).eps)
        return Linearized(fz, fz - z, 2.0 * eps * norm(z), lambda w: w - product(w))
    gradient, product = linearize_(step.gradient, z)
    length = column(step_length(problem, z))
    residual = -length * gradient
    zero = tf.zeros_like(first(residual))
    return Linearized(z + residual, residual, zero, lambda w: length * product(w))

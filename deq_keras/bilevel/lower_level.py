"""The lower level for a fixed batch: loss and hypergradient as exactly as is asked, with bounds."""

from __future__ import annotations

import copy
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deq_keras import certificates
from deq_keras.adjoints.base import adjoint_operator
from deq_keras.layers import Variational, hypergradients
from deq_keras.numerics.rows import norm, to_rows


class Solved(NamedTuple):
    """Minimisers of the energies of a batch, and what is certain of the loss.

    Attributes:
        value: Images `(batch, height, width, channels)`.
        lower: The loss at the exact minimisers is at least this, a scalar tensor.
        upper: And at most this.
        error: `(batch,)`, certified bounds on the distance to the exact minimisers.
        evaluations: How often the map was evaluated, the mean over the images.
    """

    value: tf.Tensor
    lower: tf.Tensor
    upper: tf.Tensor
    error: tf.Tensor
    evaluations: tf.Tensor

    @property
    def loss(self) -> tf.Tensor:
        """The middle of the interval in which the loss lies."""
        return 0.5 * (self.lower + self.upper)


class Hypergradient(NamedTuple):
    """The derivative of the loss by the trainable variables, and how wrong it may be.

    Attributes:
        value: A tensor for each variable.
        norm: Its Euclidean norm over all variables.
        error: Certified bound on the distance to the exact one, in the same norm.
        of_solution: The part of that which is there even if the adjoint equation is solved exactly.
        state: Solution of the adjoint equation, images: where to start the next time.
        products: Products with the Hessian, the mean over the images.
    """

    value: list[tf.Tensor]
    norm: tf.Tensor
    error: tf.Tensor
    of_solution: tf.Tensor
    state: tf.Tensor
    products: tf.Tensor


class LowerLevel:
    """Bilevel learning of a layer on a fixed batch: the mean squared error, by its weights.

    Everything is computed to a tolerance that is given each time, and comes with bounds that follow
    from the residuals and from what the layer certifies of its energy.

    Args:
        layer: A `deq_keras.layers.Variational` that certifies strong convexity and all that a bound
            on the hypergradient needs: denoising (or a mask without zeros) by `TotalVariation` or
            `FieldsOfExperts` with a smooth activation, say. Take float64: of single precision
            rounding leaves few digits to certify.
        measurement: As the layer is given it.
        truth: Images `(batch, height, width, channels)`.

    Raises:
        ValueError: If the bounds are not certified, or not for all trainable variables.

    Reference:
        Ehrhardt and Roberts, Analyzing inexact hypergradients for bilevel learning, IMA J. Appl.
        Math. 2024.

    Example:

    >>> prior = deq_keras.priors.TotalVariation(0.1, dtype="float64")
    >>> operator = deq_keras.operators.Identity(dtype="float64")
    >>> layer = deq_keras.layers.Variational(operator, prior, dtype="float64")
    >>> truth = tf.random.uniform((1, 8, 8, 1), dtype="float64")
    >>> level = deq_keras.bilevel.LowerLevel(layer, truth + 0.1, truth)
    >>> solved = level.solve(tolerance=1e-2)
    >>> bool(solved.lower < solved.upper), bool(level.solve(1e-8).upper < solved.upper)
    (True, True)
    """

    def __init__(self, layer: Variational, measurement, truth):
        if not isinstance(layer, Variational):
            raise ValueError(
                "Expected `layer` to be a `deq_keras.layers.Variational`, whose energy has a lower "
                f"level. Received {layer!r}."
            )
        self.layer = layer
        layer._ensure_built(measurement)
        self.measurement, self.truth = layer._cast(measurement), layer._cast(truth)
        hypergradients.check(layer)
        self.variables = layer.trainable_variables
        self._solve = tf.function(self._solve_to, autograph=False)
        self._differentiate = tf.function(self._differentiate_to, autograph=False)
        self._names = self._certified_names()

    def of(self, rows) -> LowerLevel:
        """The lower level of some of the images, which shares what was traced.

        Args:
            rows: Integers, which of the batch.
        """
        found = copy.copy(self)
        found.measurement, found.truth = tf.nest.map_structure(
            lambda part: tf.gather(part, rows), (self.measurement, self.truth)
        )
        return found

    def solve(self, tolerance, initial_value=None) -> Solved:
        """The minimisers for the current weights.

        Args:
            tolerance: Relative residual of the solver of the layer.
            initial_value: Images to start from, `None` for the layer's own.
        """
        if initial_value is None:
            initial_value = self.layer.cell.initial_value(self.measurement)
        tolerance = tf.constant(tolerance, self.layer.variable_dtype)
        return self._solve(self.measurement, self.truth, tolerance, initial_value)

    def hypergradient(self, solved: Solved, tolerance, state=None) -> Hypergradient:
        """The derivative of the loss at the current weights.

        Args:
            solved: What `solve` has found for them.
            tolerance: Relative residual of the adjoint equation.
            state: Where to start, of an earlier `Hypergradient`; `None` for zero.
        """
        state = tf.zeros_like(solved.value) if state is None else state
        tolerance = tf.constant(tolerance, self.layer.variable_dtype)
        data = self.measurement, self.truth
        return self._differentiate(*data, solved.value, solved.error, tolerance, state)

    def _solve_to(self, y, truth, tolerance, initial_value):
        problem = self.layer.cell.bind(y, initial_value).frozen()
        solver = self.layer.choose_solver(problem).within(tolerance=tolerance)
        found = solver.solve(problem)
        rows = to_rows(found.value - truth)[0]
        scale = _scale(truth)
        distance, pixels = norm(rows), tf.cast(tf.shape(rows)[1], rows.dtype)
        error = certificates.root_mean_square_bound(problem, found) * tf.sqrt(pixels)
        return Solved(
            found.value,
            scale * tf.reduce_sum(tf.maximum(distance - error, 0.0) ** 2),
            scale * tf.reduce_sum((distance + error) ** 2),
            error,
            tf.reduce_mean(tf.cast(found.steps, tolerance.dtype)),
        )

    def _differentiate_to(self, y, truth, u, error, tolerance, state):
        layer = self.layer
        problem = layer.cell.bind(y, u).frozen()
        tau, adjoint = problem.step.length, layer.adjoint
        solver = adjoint.choose(problem).within(tolerance)
        right_side = u - truth
        # I - J is tau Hess E, so the state of the energy is tau times that of the map.
        found = solver.solve(
            adjoint_operator(problem, u),
            right_side,
            adjoint.preconditioner(problem, u),
            state / _column(tau),
        )
        state = _column(tau) * found.value
        with tf.GradientTape() as tape:
            slope = layer.cell.bind(y, u).step.gradient(u)
        gradient = tape.gradient(
            slope,
            self.variables,
            -2.0 * _scale(truth) * state,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        gradient = [tf.convert_to_tensor(g) for g in gradient]
        residual = found.residual * norm(to_rows(right_side)[0])
        bounds = [
            2.0 * _scale(truth) * self._bound(problem, y, u, error, state, r)
            for r in (residual, tf.zeros_like(residual))
        ]
        size = tf.linalg.global_norm(gradient)
        products = tf.reduce_mean(tf.cast(found.steps, size.dtype))
        return Hypergradient(gradient, size, *bounds, state, products)

    def _bound(self, problem, y, u, error, state, residual):
        """Of the derivative of half of the squares by all variables, summed over the images."""
        cell = self.layer.cell
        known = hypergradients.sensitivities(cell, u, y, error)
        squares = [
            certificates.hypergradient_error(
                error,
                norm(to_rows(state)[0]),
                residual,
                problem.strong_convexity / problem.step.length,
                hypergradients.hessian_variation(cell, state),
                known[name],
            ).value
            ** 2
            for name in self._names
        ]
        return tf.reduce_sum(tf.sqrt(tf.add_n(squares)))

    def _certified_names(self):
        """The names by which `sensitivities` knows the trainable variables."""
        cell, u = self.layer.cell, self.truth
        problem = cell.bind(self.measurement, u).frozen()
        modulus = problem.strong_convexity
        if modulus is None or not bool(tf.reduce_all(modulus > 0)):
            raise ValueError(
                "Expected an energy that is certified to be strongly convex: denoising, or a mask "
                f"without zeros, with a convex prior. Received {cell.operator!r} and "
                f"{cell.prior!r}: train with another optimizer, by `fit`."
            )
        zero = tf.zeros(tf.shape(u)[:1], u.dtype)
        known = hypergradients.sensitivities(cell, u, self.measurement, zero)
        owned = {"log_weight": cell.log_weight}
        owned |= {
            n: getattr(cell.prior, n) for n in known if n not in ("measurement", "log_weight")
        }
        varying = hypergradients.hessian_variation(cell, u - tf.reduce_mean(u))
        names = []
        for variable in self.variables:
            found = [name for name, one in owned.items() if one is variable]
            finite = found and np.isfinite([*known[found[0]].lipschitz, *varying]).all()
            if not finite:
                raise ValueError(
                    f"Expected bounds on the derivatives by all trainable variables. Nothing is "
                    f"certified of {variable.path!r}: take a prior with a smooth activation "
                    "(`'tanh'`, say), or set `trainable = False` there."
                )
            names += found
        return names


def _scale(truth):
    """Of `||u - truth||^2` of an image, in the mean squared error."""
    return 1.0 / truth.shape.num_elements()


def _column(tau):
    """A length of steps, one or one for each image, to multiply images with."""
    return tf.reshape(tau, (-1, 1, 1, 1))

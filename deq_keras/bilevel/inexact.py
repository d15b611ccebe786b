"""What methods of the upper level share: minimisers and hypergradients as exact as is needed."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np

from deq_keras.bilevel.lower_level import Solved


class Record(NamedTuple):
    """What was known when a step began; the last one, when the descent ended.

    Attributes:
        loss: The middle of the interval in which the mean squared error lies.
        lower: At least this, for certain.
        upper: At most this.
        gradient_norm: Norm of the computed hypergradient; NaN at an end where none was computed.
        gradient_error: Certified bound on its error, likewise.
        step_size: Of the step that was then taken; 0 if there was none.
        tolerance: Of the solver, when it found these minimisers.
        adjoint_tolerance: Of the adjoint equation.
        evaluations: Of the map so far, a mean over the images.
        products: With the Hessian so far.
        seconds: So far.
        weights: The trainable variables at which the step began, arrays.
    """

    loss: float
    lower: float
    upper: float
    gradient_norm: float
    gradient_error: float
    step_size: float
    tolerance: float
    adjoint_tolerance: float
    evaluations: float
    products: float
    seconds: float
    weights: list[np.ndarray]


class Learned(NamedTuple):
    """What a descent came to.

    Attributes:
        history: A `Record` for each step, and one for the end.
        reason: Why it ended: `"steps"`, `"stationary"` (the exact derivative is certified to be
            small enough) or `"accuracy"` (nothing more can be certified in this precision).
    """

    history: list[Record]
    reason: str


class Halt(Exception):
    """Nothing more can be certified."""


class Inexact:
    """Minimisers and a hypergradient of the current weights, which can be sharpened.

    Args:
        method: With the first `tolerance` and `adjoint_tolerance`, and the `least` of both.
        level: A `LowerLevel`.
    """

    def __init__(self, method, level):
        self.method, self.level = method, level
        self.tolerance, self.adjoint_tolerance = method.tolerance, method.adjoint_tolerance
        self.evaluations = self.products = 0.0
        self.solved = self.solved_to = self.slope = None
        self.history, self.begin = [], time.perf_counter()
        self.is_old = True  # whether the hypergradient is that of earlier weights

    def solve(self, near) -> Solved:
        """The minimisers of the current weights, to the current tolerance."""
        found = self.level.solve(self.tolerance, near)
        self.evaluations += float(found.evaluations)
        return found

    def refine(self, near):
        """Those minimisers as the ones that are differentiated; `near` is where to start."""
        self.solved, self.solved_to = self.solve(near), self.tolerance

    def differentiate(self, state):
        """The hypergradient at the minimisers; `state` is where to start."""
        self.slope = self.level.hypergradient(self.solved, self.adjoint_tolerance, state)
        self.products += float(self.slope.products)
        self.is_old = False

    def sharpen(self, allowed):
        """Another hypergradient, with tolerances that make each part of its error about this.

        Raises:
            Halt: If they are the smallest already.
        """
        of_solution = float(self.slope.of_solution)
        of_adjoint = float(self.slope.error) - of_solution
        if of_solution > allowed:
            # What was found may be better than was asked for.
            self.tolerance = min(self.tolerance, self.solved_to)
            self.tolerance = self.tightened(self.tolerance, allowed / of_solution)
            self.refine(self.solved.value)
        if of_adjoint > allowed:
            self.adjoint_tolerance = self.tightened(self.adjoint_tolerance, allowed / of_adjoint)
        self.differentiate(self.slope.state)

    def tightened(self, tolerance, factor):
        """A smaller tolerance, by a factor that is kept within reason.

        Raises:
            Halt: If it is the smallest already.
        """
        if tolerance <= self.method.least:
            raise Halt
        return max(tolerance * min(max(factor, 1e-3), 0.5), self.method.least)

    def note(self, size, weights):
        """Keeps a `Record` of a step of a size from some weights."""
        solved, unknown = self.solved, float("nan")
        slope = (unknown, unknown) if self.is_old else (self.slope.norm, self.slope.error)
        numbers = (solved.loss, solved.lower, solved.upper, *slope, size)
        numbers += (self.solved_to, self.adjoint_tolerance, self.evaluations, self.products)
        numbers += (time.perf_counter() - self.begin,)
        weights = [weight.numpy() for weight in weights]
        self.history.append(Record(*(float(number) for number in numbers), weights))

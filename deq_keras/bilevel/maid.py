"""The method of adaptive inexact descent, with certified bounds."""

from __future__ import annotations

import keras
import tensorflow as tf

from deq_keras.bilevel.inexact import Halt, Inexact, Learned
from deq_keras.bilevel.lower_level import LowerLevel
from deq_keras.checks import positive, positive_int
from deq_keras.config import Configurable


@keras.saving.register_keras_serializable(package="deq_keras")
class MAID(Configurable):
    """Descent on the loss of bilevel learning, as inexact as its progress allows: MAID.

    Minimisers and their derivatives cost the more the more exactly they are wanted. A step of this
    method computes them just exactly enough to know

    - that it goes down: the hypergradient `z` is solved for until its certified error is at most
      `(1 - descent) ||z||`. So minus `z` is a direction of descent of the exact loss;
    - that it went down enough: with the certified interval `[lower, upper]` of the exact loss at
      both ends of a step of size `a`, it is taken if

          upper(new) <= lower(old) - decrease ||new - old||^2 / a

      and a shorter one is tried if the exact losses certainly do not fulfil this. Where the
      intervals are too wide to tell, both are computed again, more exactly.

    So the exact loss falls in every step. After a step the tolerances are loosened and the step
    size grows. The published method counts backtrackings to find out whether the step or the
    accuracy is to blame, and takes bounds with constants that are estimated. The minimisers of the
    last weights, and the last state of the adjoint equation, are where the next solves start.

    Trainable variables with a constraint of Keras are projected.

    Args:
        first_step: Length of the first step that is tried, in the space of all variables.
        descent: In (0, 1): how much of the hypergradient is certain; the larger, the more exact.
        decrease: In (0, `descent`): the share of the decrease that a straight line promises.
        growth: Factor > 1 of the step size after a step.
        shrink: Factor in (0, 1) of a step that is too long.
        tolerance: Relative residual of the solver at first, and the largest ever.
        adjoint_tolerance: The same of the adjoint equation.
        loosen: Factor >= 1 of both after a step.
        least: The smallest tolerance; where it does not do, the descent ends.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Salehi, Mukherjee, Roberts and Ehrhardt, An adaptively inexact first-order method for
        bilevel optimization with application to hyperparameter learning, SIAM J. Math. Data Sci.
        2025, arXiv:2308.10098.

    Example:

    >>> prior = deq_keras.priors.TotalVariation(0.1, train_smoothing=True, dtype="float64")
    >>> operator = deq_keras.operators.Identity(dtype="float64")
    >>> layer = deq_keras.layers.Variational(operator, prior, dtype="float64")
    >>> truth = tf.cast(tf.range(64) % 8 > 3, "float64")
    >>> truth = tf.reshape(truth, (1, 8, 8, 1))
    >>> noisy = truth + 0.1 * tf.random.stateless_normal(truth.shape, (0, 0), dtype="float64")
    >>> level = deq_keras.bilevel.LowerLevel(layer, noisy, truth)
    >>> learned = deq_keras.bilevel.MAID().minimize(level, steps=3)
    >>> [record.upper < before.lower  # for certain
    ...  for before, record in zip(learned.history, learned.history[1:])]
    [True, True, True]
    """

    def __init__(
        self,
        first_step: float = 0.1,
        descent: float = 0.5,
        decrease: float = 1e-2,
        growth: float = 2.0,
        shrink: float = 0.5,
        tolerance: float = 1e-1,
        adjoint_tolerance: float = 1e-1,
        loosen: float = 4.0,
        least: float = 1e-13,
    ):
        self.first_step = positive("first_step", first_step)
        self.descent = _between("descent", descent, 0.0, 1.0)
        self.decrease = _between("decrease", decrease, 0.0, self.descent)
        self.growth = _between("growth", growth, 1.0, float("inf"))
        self.shrink = _between("shrink", shrink, 0.0, 1.0)
        self.tolerance = positive("tolerance", tolerance)
        self.adjoint_tolerance = positive("adjoint_tolerance", adjoint_tolerance)
        self.loosen = positive("loosen", loosen)
        self.least = positive("least", least, upper=min(tolerance, adjoint_tolerance))

    def minimize(
        self, level: LowerLevel, steps: int = 100, gradient_tolerance: float = 0.0
    ) -> Learned:
        """Trains the variables of a layer on a fixed batch; it keeps the last ones.

        Args:
            level: A `LowerLevel`, of layer and batch.
            steps: The largest number of steps.
            gradient_tolerance: The descent ends when the norm of the exact derivative is certainly
                at most this.
        """
        steps = positive_int("steps", steps)
        gradient_tolerance = positive("gradient_tolerance", gradient_tolerance, zero=True)
        run = _Run(self, level)
        reason = "steps"
        try:
            for _ in range(steps):
                run.find_direction(gradient_tolerance)
                if run.slope.norm + run.slope.error <= gradient_tolerance:
                    reason = "stationary"
                    break
                run.search()
        except Halt:
            reason = "accuracy"
        run.note(0.0, run.level.variables)
        return Learned(run.history, reason)

    def get_config(self):
        names = ("first_step", "descent", "decrease", "growth", "shrink", "tolerance")
        names += ("adjoint_tolerance", "loosen", "least")
        return {name: getattr(self, name) for name in names}


class _Run(Inexact):
    """The state of a descent."""

    def __init__(self, method, level):
        super().__init__(method, level)
        self.size = None
        self.refine(None)

    def find_direction(self, enough):
        """A hypergradient that certainly points upwards, or is certainly small enough."""
        self.differentiate(None if self.slope is None else self.slope.state)
        while True:
            size, error = float(self.slope.norm), float(self.slope.error)
            allowed = (1.0 - self.method.descent) * size
            if error <= allowed or size + error <= enough:
                return
            # Half for each of the two that are to blame, and a little less than that.
            self.sharpen(max(0.45 * allowed, 0.1 * enough))

    def search(self):
        """A step that certainly goes down enough; the weights are then the new ones."""
        method, variables = self.method, self.level.variables
        old = [tf.identity(variable) for variable in variables]
        if self.size is None:
            self.size = method.first_step / float(self.slope.norm)
        undecided = 0
        while True:
            here, square = self.solved, self.move(old)
            if square == 0.0:  # within rounding, or by a constraint
                raise Halt
            trial, trial_to = self.solve(here.value), self.tolerance
            demand = method.decrease * square / self.size
            if float(trial.upper) <= float(here.lower) - demand:
                break
            surplus = float(trial.lower) - float(here.upper) + demand
            if surplus > 0.0 or undecided == 2:
                self.size *= method.shrink
                undecided = 0
                continue
            undecided += 1
            self.assign(old)  # where the descent ends if no more can be certified
            gap = abs(float(trial.loss - here.loss) + demand)
            width = 0.5 * float(trial.upper - trial.lower + here.upper - here.lower)
            self.tolerance = self.tightened(self.tolerance, 0.5 * gap / width)
            if self.solved_to > self.tolerance:
                self.refine(self.solved.value)
        self.note(self.size, old)
        self.solved, self.solved_to, self.is_old = trial, trial_to, True
        self.size *= method.growth
        self.tolerance = min(self.tolerance * method.loosen, method.tolerance)
        self.adjoint_tolerance = min(
            self.adjoint_tolerance * method.loosen, method.adjoint_tolerance
        )

    def assign(self, values):
        for variable, value in zip(self.level.variables, values, strict=True):
            variable.assign(value)

    def move(self, old) -> float:
        """Takes a step from the old weights, and returns its squared length."""
        square = 0.0
        for variable, value, slope in zip(self.level.variables, old, self.slope.value, strict=True):
            new = value - self.size * slope
            variable.assign(new if variable.constraint is None else variable.constraint(new))
            square += float(tf.reduce_sum((variable - value) ** 2))
        return square


def _between(name, value, low, high):
    """`value` as a float if it lies between two numbers, else a `ValueError`."""
    if not low < positive(name, value) < high:
        raise ValueError(f"Expected {low} < `{name}` < {high}. Received {name}={value!r}.")
    return float(value)

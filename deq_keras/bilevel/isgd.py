"""Inexact stochastic gradient descent, with certified bounds."""

from __future__ import annotations

import keras
import numpy as np

from deq_keras.bilevel.inexact import Halt, Inexact, Learned
from deq_keras.bilevel.lower_level import LowerLevel
from deq_keras.checks import positive, positive_int
from deq_keras.config import Configurable


@keras.saving.register_keras_serializable(package="deq_keras")
class ISGD(Configurable):
    """Stochastic descent on the loss of bilevel learning, with errors that are certified: ISGD.

    Step `k = 0, 1, ...` draws some of the images, and solves for their minimisers and the adjoint
    equation until the hypergradient `z` of their loss is certified to be within

        error of z <= accuracy (k + 1)^(-decay) ||z_0||

    with the norm of the first one. An optimizer of Keras then takes a step along it. So early steps
    are cheap, and errors vanish on the way: for the rate of the published theory take a learning
    rate that falls like `k^(-1/2)`, and `decay=0.25`. The published method controls the residuals
    of the solves in place of the error of `z`; the bounds of this one follow from what the layer
    certifies (`LowerLevel`).

    Each image is drawn once an epoch, in an order of its own, and its solves start where those of
    the epoch before ended.

    Args:
        optimizer: A `keras.optimizers.Optimizer`, or its name or configuration; each descent takes
            a fresh one like it. It applies the constraints of variables.
        batch_size: How many images a step draws.
        accuracy: Allowed error of the first hypergradients, relative to their norm, > 0.
        decay: How fast it falls, >= 0.
        tolerance: Relative residual of the solver at first, and the largest ever.
        adjoint_tolerance: The same of the adjoint equation.
        loosen: Factor >= 1 of both after a step whose error was below half of what is allowed.
        least: The smallest tolerance; where it does not do, the descent ends.
        seed: Of the draws.

    Raises:
        ValueError: If an argument is out of its range.

    Reference:
        Salehi, Mukherjee, Roberts and Ehrhardt, Bilevel learning with inexact stochastic gradients,
        arXiv:2412.12049; Bilevel learning via inexact stochastic gradient descent,
        arXiv:2511.06774.

    Example:

    >>> prior = deq_keras.priors.TotalVariation(0.1, train_smoothing=True, dtype="float64")
    >>> operator = deq_keras.operators.Identity(dtype="float64")
    >>> layer = deq_keras.layers.Variational(operator, prior, dtype="float64")
    >>> truth = tf.random.stateless_uniform((4, 8, 8, 1), (0, 0), dtype="float64")
    >>> level = deq_keras.bilevel.LowerLevel(layer, truth + 0.1, truth)
    >>> method = deq_keras.bilevel.ISGD(keras.optimizers.SGD(0.1), batch_size=2)
    >>> learned = method.minimize(level, steps=3)
    >>> [record.gradient_error < record.gradient_norm for record in learned.history]
    [True, True, True]
    """

    def __init__(
        self,
        optimizer="adam",
        batch_size: int = 4,
        accuracy: float = 0.5,
        decay: float = 0.25,
        tolerance: float = 1e-1,
        adjoint_tolerance: float = 1e-1,
        loosen: float = 2.0,
        least: float = 1e-13,
        seed: int = 0,
    ):
        self.optimizer = keras.optimizers.get(optimizer)
        self.batch_size = positive_int("batch_size", batch_size)
        self.accuracy = positive("accuracy", accuracy)
        self.decay = positive("decay", decay, zero=True)
        self.tolerance = positive("tolerance", tolerance)
        self.adjoint_tolerance = positive("adjoint_tolerance", adjoint_tolerance)
        self.loosen = positive("loosen", loosen)
        if self.loosen < 1:
            raise ValueError(f"Expected `loosen` >= 1. Received loosen={loosen!r}.")
        self.least = positive("least", least, upper=min(tolerance, adjoint_tolerance))
        self.seed = int(seed)

    def minimize(self, level: LowerLevel, steps: int = 100) -> Learned:
        """Trains the variables of a layer; they keep the last values.

        Args:
            level: A `LowerLevel` of the layer and all images.
            steps: The number of steps.

        Returns:
            A `Learned` with a `Record` for each step, whose loss is that of the images drawn.

        Raises:
            ValueError: If there are fewer images than a step draws.
        """
        steps, count = positive_int("steps", steps), len(level.truth)
        if count < self.batch_size:
            raise ValueError(
                f"Expected at least batch_size={self.batch_size} images. Received {count}."
            )
        run, reason = _Run(self, level), "steps"
        try:
            for step in range(steps):
                run.advance(step)
        except Halt:
            reason = "accuracy"
        return Learned(run.history, reason)

    def get_config(self):
        names = ("batch_size", "accuracy", "decay", "tolerance", "adjoint_tolerance")
        names += ("loosen", "least", "seed")
        own = {name: getattr(self, name) for name in names}
        return {"optimizer": keras.optimizers.serialize(self.optimizer), **own}


class _Run(Inexact):
    """The state of a descent."""

    def __init__(self, method, level):
        super().__init__(method, level)
        self.all, self.first = level, None
        # Where the solves for each image ended, and its adjoint equations.
        self.minimisers = level.layer.cell.initial_value(level.measurement).numpy()
        self.states = np.zeros_like(self.minimisers)
        # One of this descent alone: it has a state.
        self.optimizer = type(method.optimizer).from_config(method.optimizer.get_config())

    def draw(self, step):
        """The numbers of the images of a step."""
        size = self.method.batch_size
        epoch, part = divmod(step, len(self.minimisers) // size)
        order = np.random.default_rng((self.method.seed, epoch)).permutation(len(self.minimisers))
        return order[part * size : (part + 1) * size]

    def advance(self, step):
        """A step."""
        rows, method = self.draw(step), self.method
        self.level = self.all.of(rows)
        self.refine(self.minimisers[rows])
        self.differentiate(self.states[rows])
        allowed = self.allowed(step)
        while float(self.slope.error) > allowed:
            # Half for each of the two that are to blame, and a little less than that.
            self.sharpen(0.45 * allowed)
            allowed = self.allowed(step)
        self.minimisers[rows], self.states[rows] = self.solved.value, self.slope.state
        if self.first is None:
            self.first = float(self.slope.norm)
        self.note(self.optimizer.learning_rate, self.level.variables)
        self.optimizer.apply(self.slope.value, self.level.variables)
        if float(self.slope.error) < 0.5 * allowed:
            self.tolerance = min(self.tolerance * method.loosen, method.tolerance)
            self.adjoint_tolerance = min(
                self.adjoint_tolerance * method.loosen, method.adjoint_tolerance
            )

    def allowed(self, step):
        """The error that a hypergradient may have."""
        reference = float(self.slope.norm) if self.first is None else self.first
        return self.method.accuracy * (step + 1) ** -self.method.decay * reference

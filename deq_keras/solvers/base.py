"""The contract of a fixed-point solver, and the only loop of the forward pass.

A solver finds `z = f(z)`. It knows nothing of derivatives, images or layers: it sees a map of
rows (`deq_keras.numerics.rows`), each a problem of its own with its own residual and verdict. The
loop, the stopping rule and the choice of the best iterate are here; a subclass says how one
iterate leads to the next.
"""

from __future__ import annotations

import copy

import numpy as np
import tensorflow as tf

from deq_keras.checks import one_of, positive, positive_int
from deq_keras.config import Configurable
from deq_keras.numerics.rows import norm, to_rows, where
from deq_keras.problems import Solution, as_problem
from deq_keras.solvers import loop


class Solver(Configurable):
    """Base class of fixed-point solvers.

    A subclass defines a `NamedTuple` state with at least the fields `z` and `fz = f(z)`, every
    tensor of which has a row per image, and

    - `init(problem, z) -> state`, which evaluates `problem.f` once;
    - `step(problem, state) -> state`, which evaluates it once, at the new `z`;
    - `needs_energy = True` if it uses `problem.step.energy`;
    - `keeps_best = False` if the answer is to be its last finite iterate and not its best one;
    - `adapts = True` if steps are made of differences of iterates, which are rounding errors at a
      solution; their coefficients then go through `self.coefficients`.

    A line search fits in as well: a step is then one trial, and each image accepts or rejects its
    own, so that no image waits for the search of another one.

    A step that takes products with the Jacobian too is defined as `advance`, by a solver with
    `takes_products = True`: they count as steps, and `max_steps` holds for both together.

    **Stopping.** Image `i` stops when `||f(z) - z|| <= tolerance * scale[i]`. The default scale is
    `||f(z)||`. A problem may have a better one: for a gradient step of length `tau` the layers take
    `tau ||K^T y||`, so the criterion is `||grad E(u)|| <= tolerance ||K^T y||` for every step size.
    The tolerance is never below a unit of rounding, nor the residual below half a unit of
    `||f(z)||`, or a quarter if the state has a field `residual` that is no difference of near
    numbers.

    **One residual for the batch.** With `stopping="batch"` there is one residual of all images,
    `||f(Z) - Z|| / ||f(Z)||` with norms over the whole batch (of one replica) and without regard to
    the problem's scale, and all images stop at the same step. Many published codes stop so, and
    that is what it is for: comparison with their results. The answer for an image then depends on
    its companions, and a hard image hides behind easy ones. Of limits that differ between images
    (`within`) the strictest holds for all.

    **Compaction.** Without it an image that has stopped is still computed with, until the last one
    stops. With it, the rest moves to a smaller batch whenever half of the images have stopped:
    the answers are the same, up to rounding, and the time goes to those that need it. It pays
    where steps differ much between images, and its shapes are dynamic.

    Args:
        tolerance: Relative residual at which an image stops. Defaults to 1e-5.
        max_steps: Largest number of evaluations of the map (and products with its Jacobian).
        compact: Let images that have stopped leave the batch.
        stopping: `"image"`: each image stops by its own residual; or `"batch"`: all at once.

    Raises:
        ValueError: If `compact=True` is asked for together with `stopping="batch"`, where no image
            stops before another one.

    Example:

    >>> import collections
    >>> State = collections.namedtuple("State", "z fz")
    >>> class Plain(deq_keras.solvers.Solver):
    ...     def init(self, problem, z):
    ...         return State(z, problem.f(z))
    ...     def step(self, problem, state):
    ...         return State(state.fz, problem.f(state.fz))
    >>> Plain().solve(lambda z: 0.5 * z + 1.0, tf.zeros((3, 4))).converged.numpy()
    array([ True,  True,  True])
    """

    needs_energy = False
    keeps_best = True
    adapts = False
    takes_products = False
    precondition = False  # whether it uses the preconditioner of the problem
    holds_coefficients = False  # whether derivatives take those of its steps for constants
    # An image whose residual exceeds its best one by this factor is given up.
    divergence = float("inf")

    def __init__(
        self,
        tolerance: float = 1e-5,
        max_steps: int = 1000,
        compact: bool = False,
        stopping: str = "image",
    ):
        self.tolerance = positive("tolerance", tolerance)
        self.max_steps = positive_int("max_steps", max_steps)
        self.compact = bool(compact)
        self.stopping = one_of("stopping", stopping, ("image", "batch"))
        if self.compact and self.stopping == "batch":
            raise ValueError(
                "Expected `compact=False` with `stopping='batch'`: all images stop at the same "
                f"step, so none can leave the batch. Received compact={compact!r}. Leave it out, "
                "or take `stopping='image'`."
            )

    def init(self, problem, z):
        """The first state, at the rows `z`; evaluates `problem.f` once."""
        raise NotImplementedError

    def step(self, problem, state):
        """The next state; evaluates `problem.f` once."""
        raise NotImplementedError

    def advance(self, problem, state, allowance):
        """The next state, and the products that each image took for it, `(batch,)`.

        Args:
            problem: The problem, of rows.
            state: The last state.
            allowance: `deq_keras.solvers.loop.Allowance`: which images go on, and how far. An image
                that does not takes no products, and one that does, at most what is left to it.

        Returns:
            The state, and the numbers of products, `()` if the solver takes none.
        """
        return self.step(problem, state), ()

    def within(self, tolerance=None, max_steps=None, precondition=True) -> Solver:
        """The same solver with other limits, to use at once.

        Args:
            tolerance: A number, or a tensor, scalar or with a number for each image, `(batch,)`.
            max_steps: The same, of integers.
            precondition: `False`: without the preconditioner of the problem, if it would use it.

        Example:

        >>> loose = deq_keras.solvers.Picard().within(tolerance=tf.constant([0.5, 1e-3]))
        >>> loose.solve(lambda z: 0.5 * z + 1.0, tf.zeros((2, 4))).steps.numpy()
        array([ 2, 10], dtype=int32)
        """
        other = copy.copy(self)
        other.tolerance = self.tolerance if tolerance is None else tolerance
        other.max_steps = self.max_steps if max_steps is None else max_steps
        other.precondition = self.precondition if precondition else False
        return other

    def solve(
        self,
        problem,
        initial_value=None,
        max_steps: int | tf.Tensor | None = None,
        return_history: bool = False,
        return_state: bool = False,
        on_step=None,
    ) -> Solution:
        """Find `z = f(z)` for every image of a batch.

        Args:
            problem: The map `f`, or a `deq_keras.solvers.Problem` with what is known about it.
            initial_value: Tensor `(batch, ...)` or nested structure of them: where to start.
                `None`: at that of the problem.
            max_steps: In place of `self.max_steps`: an integer, or an integer tensor, scalar or
                with a number for each image, `(batch,)`.
            return_history: Whether the solution has a `history`.
            return_state: Whether the solution has the `state` of this solver.
            on_step: A function that is called after each step with its number, the residuals and
                which images go on, `(batch,)` each; outside of graphs only.

        Returns:
            A `Solution`. Nothing in it is differentiated here: see `deq_keras.adjoints`.

        Raises:
            ValueError: If there is no initial value, the solver needs an energy and the problem has
                none, or compaction needs to take rows of a problem that hides its tensors.
        """
        problem = self._check(problem)
        max_steps = self.max_steps if max_steps is None else max_steps
        if self.stopping == "batch" and tf.is_tensor(max_steps):
            max_steps = tf.reduce_min(max_steps)
        limits = loop.Limits(self.tolerance, max_steps)
        flat, ravel, unravel = to_rows(_start(problem, initial_value))
        lift = loop.Lift(problem, ravel, unravel)
        rows = lift()
        state = self.init(rows, flat)
        residual, done, absolute = self.assess(rows, state, limits.tolerance)
        history = None
        if return_history:
            history = tf.TensorArray(flat.dtype, size=1, dynamic_size=True, clear_after_read=False)
            history = history.write(0, residual)
        progress = loop.Progress(
            # A diverged start leaves the initial value itself as the best there is.
            best=where(tf.math.is_finite(residual), state.z, flat),
            residual=residual,
            steps=tf.ones_like(residual, tf.int32),
            converged=done,
            active=~done & tf.math.is_finite(residual) & (limits.max_steps > 1),
            least=absolute,
            products=tf.zeros_like(residual, tf.int32) if self.takes_products else (),
        )
        loop.report(on_step, 1, residual, progress.active)
        run = loop.run_compact if self.compact else loop.run
        options = limits, history, return_state, on_step
        state, progress, history = run(self, lift, state, progress, *options)
        return Solution(
            unravel(progress.best),
            *progress[1:4],
            history=history.stack() if return_history else None,
            state=state if return_state else None,
            products=progress.products if self.takes_products else None,
        )

    def coefficients(self, values):
        """What a step is combined with, a constant to derivatives if they are held."""
        held = self.holds_coefficients
        return tf.nest.map_structure(tf.stop_gradient, values) if held else values

    def unroll(self, problem, steps, initial_value=None, hold_coefficients=False) -> Solution:
        """Take `steps` steps with no stopping, so that a tape can go through them.

        With a solver that `adapts` an image stops where further steps would be made of rounding
        errors, as would their derivatives. `hold_coefficients`: see `deq_keras.adjoints.Unrolled`;
        all else is as in `solve`. `value` is the last iterate.
        """
        problem = self._check(problem, compact=False)
        flat, ravel, unravel = to_rows(_start(problem, initial_value))
        rows = problem.in_rows(ravel, unravel)
        solver = copy.copy(self)
        solver.holds_coefficients = hold_coefficients
        state, count = loop.unroll(solver, rows, self.init(rows, flat), steps)
        last = tf.nest.map_structure(tf.stop_gradient, state)
        residual, done, _ = self.assess(rows, last, self.tolerance)
        return Solution(unravel(state.z), residual, count, done)

    def preconditions(self, problem) -> bool:
        """Whether this solver uses the preconditioner of a problem."""
        return False

    def _check(self, problem, compact=None):
        problem = as_problem(problem)
        name = type(self).__name__
        compact = self.compact if compact is None else compact
        if self.needs_energy and (problem.step is None or problem.step.energy is None):
            raise ValueError(
                f"{name} searches along an energy and expected a problem with one. Received a "
                "map that has none. Use it in `deq_keras.layers.Variational`, or take "
                "`solver='anderson'`, which needs nothing but the map."
            )
        if compact and not problem.can_take:
            raise ValueError(
                f"{name}(compact=True) expected a problem whose rows it can take. Received one "
                "with functions that hide their tensors. Make `f` a `deq_keras.numerics.Partial` "
                "with its per-image tensors in `rows`, or leave `compact=False`."
            )
        if compact and self.preconditions(problem) and not problem.can_take_preconditioner:
            raise ValueError(
                f"{name}(compact=True) expected a preconditioner whose rows it can take, prepared "
                "by a `deq_keras.numerics.Partial`. Received another function. Take "
                "precondition=False."
            )
        return problem

    def assess(self, problem, state, tolerance):
        """Relative residual `(batch,)` of the state, which images may stop, and its size."""
        limits = np.finfo(state.z.dtype.as_numpy_dtype)
        exact = hasattr(state, "residual")  # f(z) - z with more digits than its difference has
        difference = state.residual if exact else state.fz - state.z
        absolute = norm(difference)
        size = norm(state.fz)
        given = problem.scale
        if self.stopping == "batch":
            absolute, size, given = _of_batch(absolute), _of_batch(size), None
            tolerance = tf.reduce_min(tolerance) if tf.is_tensor(tolerance) else tolerance
        scale = size if given is None else tf.cast(given, size.dtype)
        # The rounding of z itself; the difference of z and f(z) has more.
        noise = float(limits.eps) * (0.25 if exact else 0.5)
        # With a zero scale (y = 0, say) an exact solution must still count as one.
        floor = tf.maximum(noise * size, float(limits.tiny))
        # Norms that overflow belong to an image that diverges.
        finite = tf.math.is_finite(absolute) & tf.math.is_finite(size)
        # Where the map gives exactly zero the ratio overflows, and that is no divergence.
        ratio = tf.minimum(absolute / tf.maximum(scale, floor), float(limits.max))
        # Infinity comes of a division: tf.debugging.enable_check_numerics finds constants, too.
        ratio = tf.where(finite, ratio, float(limits.max))
        residual = ratio / tf.cast(finite, ratio.dtype)
        if tf.is_tensor(tolerance):
            tolerance = tf.maximum(tf.cast(tolerance, residual.dtype), 2 * noise)
        else:
            tolerance = max(tolerance, 2 * noise)
        done = (residual <= tolerance) | (finite & (absolute <= floor))
        return residual, done, absolute

    def get_config(self):
        return {
            "tolerance": self.tolerance,
            "max_steps": self.max_steps,
            "compact": self.compact,
            "stopping": self.stopping,
        }


def _of_batch(norms):
    """The norm of all images together, for each image."""
    return tf.ones_like(norms) * tf.norm(norms)


def _start(problem, initial_value):
    if initial_value is None:
        initial_value = problem.initial_value
    if initial_value is None:
        raise ValueError(
            "Expected an initial value, of the problem or as an argument. Received none. Call "
            "`solver.solve(problem, initial_value)`."
        )
    return initial_value

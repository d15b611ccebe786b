"""The contract of a fixed-point solver, and the only loop of the forward pass.

A solver finds `z = f(z)`. It knows nothing of derivatives, images or layers: it sees a map of
rows (`deq_keras.numerics.rows`), each a problem of its own with its own residual and verdict. The
loop, the stopping rule and the choice of the best iterate are here; a subclass says how one
iterate leads to the next.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deq_keras.checks import positive, positive_int
from deq_keras.config import Configurable
from deq_keras.numerics.rows import column, norm, ranks_only, to_rows, where
from deq_keras.problems import Solution, as_problem


class Progress(NamedTuple):
    """What the loop knows of each image; all of it has a row per image."""

    best: tf.Tensor
    residual: tf.Tensor  # of `best`
    steps: tf.Tensor
    converged: tf.Tensor
    active: tf.Tensor  # neither converged nor given up
    least: tf.Tensor  # smallest ||f(z) - z||, to see divergence by: the scale may grow as well


class Solver(Configurable):
    """Base class of fixed-point solvers.

    A subclass defines a `NamedTuple` state with at least the fields `z` and `fz = f(z)`, every
    tensor of which has a row per image, and

    - `init(problem, z) -> state`, which evaluates `problem.f` once;
    - `step(problem, state) -> state`, which evaluates it once, at the new `z`;
    - `needs_energy = True` if it uses `problem.step.energy`.

    A line search fits in as well: a step is then one trial, and each image accepts or rejects its
    own, so that no image waits for the search of another one.

    **Stopping.** Image `i` stops when `||f(z) - z|| <= tolerance * scale[i]`. The default scale is
    `||f(z)||`; a caller who knows that of the problem passes a better one (the layers do: for a
    gradient step of length `tau` it is `tau ||K^T y||`, so the criterion is
    `||grad E(u)|| <= tolerance ||K^T y||`, whatever the step size). The tolerance is never taken
    below a unit of rounding, nor the residual below half a unit of `||f(z)||`; where the state has
    a field `residual` that is no difference of near numbers, below half of that.

    **Compaction.** Without it an image that has stopped is still computed with, until the last one
    stops. With it, the rest moves to a smaller batch whenever half of the images have stopped:
    the answers are the same, up to rounding, and the time goes to those that need it. It pays
    where steps differ much between images, and its shapes are dynamic.

    Args:
        tolerance: Relative residual at which an image stops. Defaults to 1e-5.
        max_steps: Largest number of evaluations of the map.
        compact: Let images that have stopped leave the batch.

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
    # An image whose residual exceeds its best one by this factor is given up.
    divergence = float("inf")

    def __init__(self, tolerance=1e-5, max_steps=1000, compact=False):
        self.tolerance = positive("tolerance", tolerance)
        self.max_steps = positive_int("max_steps", max_steps)
        self.compact = bool(compact)

    def init(self, problem, z):
        """The first state, at the rows `z`; evaluates `problem.f` once."""
        raise NotImplementedError

    def step(self, problem, state):
        """The next state; evaluates `problem.f` once."""
        raise NotImplementedError

    def solve(
        self, problem, initial_value=None, max_steps=None, return_history=False, return_state=False
    ):
        """Find `z = f(z)` for every image of a batch.

        Args:
            problem: The map `f`, or a `deq_keras.solvers.Problem` with what is known about it.
            initial_value: Tensor `(batch, ...)` or nested structure of them: where to start.
                `None`: at that of the problem.
            max_steps: Integer or integer tensor in place of `self.max_steps`.
            return_history: Whether the solution has a `history`.
            return_state: Whether the solution has the `state` of this solver.

        Returns:
            A `Solution`. Nothing in it is differentiated here: see `deq_keras.adjoints`.

        Raises:
            ValueError: If there is no initial value, the solver needs an energy and the problem has
                none, or compaction needs to take rows of a problem that hides its tensors.
        """
        problem = self._check(problem)
        limit = self.max_steps if max_steps is None else max_steps
        flat, ravel, unravel = to_rows(_start(problem, initial_value))
        lift = _Lift(problem, ravel, unravel)
        rows = lift()
        state = self.init(rows, flat)
        residual, done, absolute = self._assess(rows, state)
        history = None
        if return_history:
            history = tf.TensorArray(flat.dtype, size=1, dynamic_size=True, clear_after_read=False)
            history = history.write(0, residual)
        progress = Progress(
            # A diverged start leaves the initial value itself as the best there is.
            best=where(tf.math.is_finite(residual), state.z, flat),
            residual=residual,
            steps=tf.ones_like(residual, tf.int32),
            converged=done,
            active=~done & tf.math.is_finite(residual),
            least=absolute,
        )
        run = self._run_compact if self.compact else self._run
        state, progress, history = run(lift, state, progress, limit, history, return_state)
        return Solution(
            unravel(progress.best),
            *progress[1:4],
            history=history.stack() if return_history else None,
            state=state if return_state else None,
        )

    def _run(self, lift, state, progress, limit, history, freeze):
        """All images until the last one stops."""
        rows = lift()
        loop = (tf.constant(1), state, progress, () if history is None else history)

        def keep_going(k, state, progress, history):
            return (k < limit) & tf.reduce_any(progress.active)

        def body(k, state, progress, history):
            state, progress, now = self._advance(rows, state, progress, freeze)
            history = history.write(k, now) if history else history
            return k + 1, state, progress, history

        _, *result = tf.while_loop(keep_going, body, loop, shape_invariants=ranks_only(loop))
        return result

    def _run_compact(self, lift, state, progress, limit, history, freeze):
        """Rounds of the loop, each for the images that the one before has left."""
        index = tf.range(tf.shape(progress.residual)[0])
        # What is returned, for all images: gathered after each round, and history in each step.
        everything = (state, progress) if freeze else ((), progress)
        outer = (tf.constant(1), index, state, progress, everything, history or ())

        def more(k, index, state, progress, everything, history):
            return (k < limit) & tf.reduce_any(progress.active)

        def round_(k, index, state, progress, everything, history):
            part = lift(index)
            enough = tf.size(index) // 2

            def keep_going(k, state, progress, history):
                count = tf.reduce_sum(tf.cast(progress.active, tf.int32))
                return (k < limit) & (count > enough)

            def body(k, state, progress, history):
                state, progress, now = self._advance(part, state, progress, freeze)
                if history:
                    history = history.write(k, _scatter(everything[1].residual, index, now))
                return k + 1, state, progress, history

            loop = (k, state, progress, history)
            k, state, progress, history = tf.while_loop(
                keep_going, body, loop, shape_invariants=ranks_only(loop)
            )
            new = (state, progress) if freeze else ((), progress)
            everything = tf.nest.map_structure(
                lambda whole, rows: _scatter(whole, index, rows), everything, new
            )
            left = tf.where(progress.active)[:, 0]
            index, state, progress = tf.nest.map_structure(
                lambda rows: tf.gather(rows, left), (index, state, progress)
            )
            return k, index, state, progress, everything, history

        _, _, _, _, (state, progress), history = tf.while_loop(
            more, round_, outer, shape_invariants=ranks_only(outer)
        )
        return state, progress, history

    def _advance(self, rows, state, progress, freeze):
        """One step, and what it means for each image."""
        best, residual, steps, converged, active, least = progress
        new = self.step(rows, state)
        if freeze:
            new = tf.nest.map_structure(
                lambda a, b: tf.where(tf.reshape(active, [-1] + [1] * (a.shape.rank - 1)), a, b),
                new,
                state,
            )
        now, done, absolute = self._assess(rows, new)
        better = active & ((now < residual) | done)
        best = where(better, new.z, best)
        residual = tf.where(better, now, residual)
        steps += tf.cast(active, tf.int32)
        converged |= active & done
        active &= ~done & tf.math.is_finite(now) & (absolute <= self.divergence * least)
        least = tf.minimum(least, absolute)
        shown = tf.where(active, now, residual)
        return new, Progress(best, residual, steps, converged, active, least), shown

    def unroll(self, problem, steps, initial_value=None):
        """Take exactly `steps` steps with no stopping, so that a tape can go through them.

        Args and the returned `Solution` are those of `solve`; `value` is the last iterate.
        """
        problem = self._check(problem, compact=False)
        flat, ravel, unravel = to_rows(_start(problem, initial_value))
        rows = problem.in_rows(ravel, unravel)
        loop = (tf.constant(1), self.init(rows, flat))
        _, state = tf.while_loop(
            lambda k, state: k < steps,
            lambda k, state: (k + 1, self.step(rows, state)),
            loop,
            maximum_iterations=steps - 1,
            shape_invariants=ranks_only(loop),
        )
        residual, done, _ = self._assess(rows, tf.nest.map_structure(tf.stop_gradient, state))
        count = tf.fill(tf.shape(residual), steps)
        return Solution(unravel(state.z), residual, count, done)

    def _check(self, problem, compact=None):
        problem = as_problem(problem)
        name = type(self).__name__
        if self.needs_energy and (problem.step is None or problem.step.energy is None):
            raise ValueError(
                f"{name} searches along an energy and expected a problem with one. Received a "
                "map that has none. Use it in `deq_keras.layers.Variational`, or take "
                "`solver='anderson'`, which needs nothing but the map."
            )
        if (self.compact if compact is None else compact) and not problem.can_take:
            raise ValueError(
                f"{name}(compact=True) expected a problem whose rows it can take. Received one "
                "with functions that hide their tensors. Make `f` a `deq_keras.numerics.Partial` "
                "with its per-image tensors in `rows`, or leave `compact=False`."
            )
        return problem

    def _assess(self, problem, state):
        """Relative residual `(batch,)` of the state, which images may stop, and its size."""
        limits = np.finfo(state.z.dtype.as_numpy_dtype)
        exact = hasattr(state, "residual")  # f(z) - z with more digits than its difference has
        difference = state.residual if exact else state.fz - state.z
        absolute = norm(difference)
        size = norm(state.fz)
        scale = size if problem.scale is None else tf.cast(problem.scale, size.dtype)
        # The rounding of z itself; the difference of z and f(z) has more.
        noise = float(limits.eps) * (0.25 if exact else 0.5)
        # A zero scale (y = 0, say) must not make an exact solution look bad.
        floor = tf.maximum(noise * size, float(limits.tiny))
        # Norms that overflow belong to an image that diverges.
        finite = tf.math.is_finite(absolute) & tf.math.is_finite(size)
        residual = tf.where(finite, absolute / tf.maximum(scale, floor), float("inf"))
        done = (residual <= max(self.tolerance, 2 * noise)) | (finite & (absolute <= floor))
        return residual, done, absolute

    def get_config(self):
        return {
            "tolerance": self.tolerance,
            "max_steps": self.max_steps,
            "compact": self.compact,
        }


class _Lift(NamedTuple):
    """A problem, and how it becomes one of rows."""

    problem: NamedTuple
    ravel: Callable
    unravel: Callable

    def __call__(self, index=None):
        problem = self.problem if index is None else self.problem.take(index)
        return problem.in_rows(self.ravel, self.unravel)


def _start(problem, initial_value):
    if initial_value is None:
        initial_value = problem.initial_value
    if initial_value is None:
        raise ValueError(
            "Expected an initial value, of the problem or as an argument. Received none. Call "
            "`solver.solve(problem, initial_value)`."
        )
    return initial_value


def _scatter(whole, index, rows):
    return tf.tensor_scatter_nd_update(whole, column(index), rows)

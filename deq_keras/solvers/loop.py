"""The loops of a fixed-point solver: with all images until the last one stops, or with fewer."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from deq_keras.numerics.rows import column, first, ranks_only, where

_ROUNDING = 64.0  # units of rounding: relative residuals below may be made of these alone


class Limits(NamedTuple):
    """When a solver stops: numbers for all images, or tensors `(batch,)`."""

    tolerance: float | tf.Tensor
    max_steps: int | tf.Tensor

    def take(self, index):
        """The limits of the rows `index`."""
        return Limits(
            *(tf.gather(x, index) if tf.is_tensor(x) and x.shape.rank else x for x in self)
        )


class Allowance(NamedTuple):
    """What is left to each image before a step: numbers `(batch,)`, the tolerance perhaps one."""

    active: tf.Tensor  # neither converged nor given up
    steps: tf.Tensor  # evaluations and products that it may still take
    tolerance: float | tf.Tensor


class Progress(NamedTuple):
    """What the loop knows of each image; all of it has a row per image."""

    best: tf.Tensor  # or the last finite one, if the solver does not keep the best
    residual: tf.Tensor  # of `best`
    steps: tf.Tensor
    converged: tf.Tensor
    active: tf.Tensor  # neither converged nor given up
    least: tf.Tensor  # smallest ||f(z) - z||, to see divergence by: the scale may grow as well
    products: tf.Tensor  # how many of the steps were products; () of a solver that takes none


class Lift(NamedTuple):
    """A problem, and how it becomes one of rows."""

    problem: NamedTuple
    ravel: Callable
    unravel: Callable

    def __call__(self, index=None):
        problem = self.problem if index is None else self.problem.take(index)
        return problem.in_rows(self.ravel, self.unravel)


def report(on_step, number, residual, active):
    """Calls `on_step`, if there is one, with what is known after a step.

    Raises:
        ValueError: In a graph, whose steps Python does not see.
    """
    if on_step is None:
        return
    if not tf.executing_eagerly():
        raise ValueError(
            "Expected a solve outside of graphs, as its steps are to be shown while it runs. "
            "Received one in a tf.function. Leave out `verbose` (`on_step` of a solver) there; "
            "`return_history=True` has the residuals of all steps."
        )
    on_step(int(number), residual, active)


def run(solver, lift, state, progress, limits, history, freeze, on_step=None):
    """All images until the last one stops."""
    rows = lift()
    loop = (tf.constant(1), state, progress, () if history is None else history)

    def keep_going(k, state, progress, history):
        return tf.reduce_any(progress.active)

    def body(k, state, progress, history):
        state, progress, now = _advance(solver, rows, state, progress, limits, freeze)
        history = history.write(k, now) if history else history
        report(on_step, k + 1, now, progress.active)
        return k + 1, state, progress, history

    _, *result = tf.while_loop(keep_going, body, loop, shape_invariants=ranks_only(loop))
    return result


def run_compact(solver, lift, state, progress, limits, history, freeze, on_step=None):
    """Rounds of the loop, each for the images that the one before has left."""
    index = tf.range(tf.shape(progress.residual)[0])
    # What is returned, for all images: gathered after each round, and history in each step.
    everything = (state, progress) if freeze else ((), progress)
    outer = (tf.constant(1), index, state, progress, everything, history or ())

    def more(k, index, state, progress, everything, history):
        return tf.reduce_any(progress.active)

    def round_(k, index, state, progress, everything, history):
        part, own_limits = lift(index), limits.take(index)
        enough = tf.size(index) // 2

        def keep_going(k, state, progress, history):
            count = tf.reduce_sum(tf.cast(progress.active, tf.int32))
            return count > enough

        def body(k, state, progress, history):
            state, progress, now = _advance(solver, part, state, progress, own_limits, freeze)
            if history:
                history = history.write(k, _scatter(everything[1].residual, index, now))
            if on_step is not None:
                everyone = _scatter(everything[1].residual, index, now)
                report(on_step, k + 1, everyone, progress.active)
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


def unroll(solver, rows, state, steps):
    """The state after `steps` evaluations, the first included, and those that each image took.

    Where the solver adapts, an image stays where it is once its residual is of the size of rounding
    errors. No derivative passes through what is still computed for it.
    """
    count = tf.ones_like(first(state.z), tf.int32)

    def goes_on(state):
        if not solver.adapts:
            return count > 0
        level = _ROUNDING * float(np.finfo(state.z.dtype.as_numpy_dtype).eps)
        return ~solver.assess(rows, tf.nest.map_structure(tf.stop_gradient, state), level)[1]

    def body(k, state, count, active):
        if not solver.adapts:
            return k + 1, solver.step(rows, state), count + 1, active
        entering = tf.nest.map_structure(lambda t: where(active, t, tf.stop_gradient(t)), state)
        new = solver.step(rows.recorded_in(active), entering)
        state = tf.nest.map_structure(lambda a, b: where(active, a, b), new, state)
        return k + 1, state, count + tf.cast(active, tf.int32), active & goes_on(state)

    start = (tf.constant(1), state, count, goes_on(state))
    _, state, count, _ = tf.while_loop(
        lambda k, state, count, active: (k < steps) & tf.reduce_any(active),
        body,
        start,
        maximum_iterations=steps - 1,
        shape_invariants=ranks_only(start),
    )
    return state, count


def _advance(solver, rows, state, progress, limits, freeze):
    """One step, and what it means for each image."""
    best, residual, steps, converged, active, least, products = progress
    allowance = Allowance(active, limits.max_steps - steps, limits.tolerance)
    new, spent = solver.advance(rows, state, allowance)
    if freeze:
        new = tf.nest.map_structure(lambda a, b: where(active, a, b), new, state)
    now, done, absolute = solver.assess(rows, new, limits.tolerance)
    if solver.keeps_best:
        better = active & ((now < residual) | done)
    else:
        better = active & tf.math.is_finite(now)
    best = where(better, new.z, best)
    residual = tf.where(better, now, residual)
    steps += tf.cast(active, tf.int32)
    if solver.takes_products:  # an image that has stopped takes none
        steps, products = steps + spent, products + spent
    converged |= active & done
    active &= ~done & tf.math.is_finite(now)
    if solver.divergence < float("inf"):  # a constant that tf.debugging.enable_check_numerics finds
        active &= absolute <= solver.divergence * least
    least = tf.minimum(least, absolute)
    shown = tf.where(active, now, residual)
    active &= steps < limits.max_steps
    return new, Progress(best, residual, steps, converged, active, least, products), shown


def _scatter(whole, index, rows):
    return tf.tensor_scatter_nd_update(whole, column(index), rows)

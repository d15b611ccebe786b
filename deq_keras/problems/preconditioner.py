"""Preconditioners of a problem, in two parts: what is computed at a point, and what it does."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf


class Preconditioner(NamedTuple):
    """A linear map near the inverse of `I - df/dz` at a point, symmetric and positive definite.

    A solver may compute it at one point and go on with it: in a loop, a function cannot be carried
    from step to step, but tensors can.

    Attributes:
        prepare: From a point `z` to a tuple of tensors, each with a row per image or one for all;
            a `deq_keras.numerics.Partial`, so that rows can be taken.
        apply: `(w, *tensors)` to the product with `w`.
        is_cheap: Whether a product takes a small part of an evaluation of the map, so that a solver
            which can do without is faster with it.

    Example:

    >>> diagonal = deq_keras.problems.Preconditioner(
    ...     deq_keras.numerics.Partial(lambda z: (1.0 + z**2,)), lambda w, size: w / size)
    >>> diagonal(tf.ones((1, 2)))(tf.ones((1, 2))).numpy()
    array([[0.5, 0.5]], dtype=float32)
    """

    prepare: Callable
    apply: Callable
    is_cheap: bool = True

    def __call__(self, z) -> Callable:
        """The linear map that belongs to `z`."""
        tensors = self.prepare(z)
        return lambda w: self.apply(w, *tensors)

    def of_rows(self, z) -> tuple:
        """What `prepare` returns, with a row for each image."""
        count = tf.shape(tf.nest.flatten(z)[0])[:1]
        return tuple(
            tf.broadcast_to(tensor, tf.concat([count, tf.shape(tensor)[1:]], 0))
            for tensor in self.prepare(z)
        )

    def in_rows(self, ravel, unravel) -> Preconditioner:
        """The same for `(batch, n)` matrices of rows; see `deq_keras.numerics.rows`."""
        return Preconditioner(
            lambda rows: self.prepare(unravel(rows)),
            lambda rows, *tensors: ravel(self.apply(unravel(rows), *tensors)),
            self.is_cheap,
        )

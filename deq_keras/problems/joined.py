"""Batches whose images influence each other, as one problem."""

import tensorflow as tf

from deq_keras.numerics.partial import Partial
from deq_keras.numerics.rows import norm
from deq_keras.problems.problem import Problem


def joined(problem):
    """The `Problem` for states with one more axis in front: a batch of one batch.

    Solvers treat each row of a state as a problem of its own, with coefficients of its own. Where a
    cell couples the images of a batch (batch normalisation in training) that is wrong: the batch
    is one problem then, with one residual and one verdict. Only the map is kept, its residual
    scale and its convexity.
    """
    scale, modulus, record = problem.scale, problem.strong_convexity, problem.record
    return Problem(
        f=_of_batch(problem.f),
        initial_value=front(problem.initial_value),
        scale=None if scale is None else norm(scale[None]),
        strong_convexity=None if modulus is None else tf.reduce_min(modulus),
        symmetric=problem.symmetric,
        record=record and (lambda z: front(record(drop(z)))),
    )


def front(structure):
    """The structure with an axis in front of each tensor."""
    return tf.nest.map_structure(lambda leaf: leaf[None], structure)


def drop(structure):
    """The structure without the first axis of each tensor."""
    return tf.nest.map_structure(lambda leaf: leaf[0], structure)


def _of_batch(f):
    # This problem has one row, that of the batch: the rows of the images are no rows of it.
    inner = f._replace(shared=(*f.shared, *f.rows), rows=())
    return Partial(lambda z, f: front(f(drop(z))), (inner,))

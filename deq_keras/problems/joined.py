"""A batch whose images influence each other, seen as one problem."""

import tensorflow as tf

from deq_keras.numerics.rows import norm
from deq_keras.problems.problem import Problem


def joined(problem):
    """The `FixedPointProblem` for states with one more axis in front: a batch of one batch.

    Solvers treat each row of a state as a problem of its own, with coefficients of its own. Where a
    cell couples the images of a batch (batch normalisation in training) that is wrong: the batch
    is one problem then, with one residual and one verdict.
    """
    sources = problem.explicit and (lambda z, given: front(problem.explicit(drop(z), given)))

    def preconditioner(z):
        inner = problem.preconditioner(drop(z))
        return inner and (lambda w: front(inner(drop(w))))

    return problem._replace(
        call=lambda z: front(problem.call(drop(z))),
        pure=lambda: _join(problem.pure()),
        frozen=_join(problem.frozen),
        explicit=sources,
        preconditioner=problem.preconditioner and preconditioner,
    )


def front(structure):
    """The structure with an axis in front of each tensor."""
    return tf.nest.map_structure(lambda leaf: leaf[None], structure)


def drop(structure):
    """The structure without the first axis of each tensor."""
    return tf.nest.map_structure(lambda leaf: leaf[0], structure)


def _join(known):
    reference, modulus = known.reference, known.modulus
    problem = Problem(
        f=lambda z: front(known.f(drop(z))),
        reference=None if reference is None else norm(reference[None]),
        modulus=None if modulus is None else tf.reduce_min(modulus),
    )
    # There is one row, which stays until it has converged.
    return problem._replace(take=lambda index: problem)

"""Solutions: a value and, for each image, how well and how fast it was found."""

from typing import Any, NamedTuple


class Solution(NamedTuple):
    """The answer of a solver, with a row per image. Failure is a value, not an exception.

    Attributes:
        value: Tensor `(batch, ...)` or a nested structure of them: the best iterate found, or the
            last one of a solver that says so (`PlainAnderson`).
        residual: Tensor `(batch,)`, the relative residual of `value`. For a fixed point
            `||f(z) - z||` and for a linear system `||b - A w||`, each divided by the scale that
            the solver documents.
        steps: int32 tensor `(batch,)`: how often the map was evaluated for this image, and how many
            products with its Jacobian were taken.
        converged: Boolean tensor `(batch,)`: the residual reached the tolerance (or the level
            of the rounding errors of the dtype). An image whose iterates became infinite or
            NaN has `False` here and its last finite iterate in `value`.
        history: Tensor `(evaluations, batch)` of the relative residuals, if it was asked for; after
            an image has stopped, its column repeats its best value.
        state: The solver's own state of each image when it stopped, if it was asked for.
        products: int32 tensor `(batch,)`: how many of the `steps` of a fixed-point solver were
            products with the Jacobian; `None` of one that takes none.

    Example:

    >>> solver = deq_keras.solvers.Picard()
    >>> solution = solver.solve(lambda z: 2.0 * z + 1.0, tf.zeros((2, 4)), max_steps=20)
    >>> solution.converged.numpy()  # the map is no contraction
    array([False, False])
    """

    value: Any
    residual: Any
    steps: Any
    converged: Any
    history: Any = None
    state: Any = None
    products: Any = None

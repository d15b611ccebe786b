"""What an adjoint is told of a fixed-point problem."""

from collections.abc import Callable
from typing import Any, NamedTuple


class FixedPointProblem(NamedTuple):
    """A map `f`, in the forms that solving and differentiating need, and what is known about it.

    Attributes:
        call: `f`, recorded by tapes; may update state (it is called exactly once).
        pure: Makes `f` without changes of state, still differentiable with respect to everything: a
            function without arguments that returns a `deq_keras.solvers.Problem`.
        frozen: `f` without changes of state and cut off from tapes: what solvers iterate. A map, or
            a `deq_keras.solvers.Problem`.
        symmetric: Whether the Jacobian of `f` is symmetric everywhere.
        convex: Whether, in addition, `f` is a gradient step on a convex function.
        explicit: `(z, sources) -> f(z)`, which reads the measurement and the weights from a list
            of tensors like `sources`; `None` if nothing is known of what `f` depends on.
        sources: List of floating-point tensors: the measurement and the weights.
        preconditioner: From a fixed point `z` to a callable near `(I - J^T)^{-1}`, symmetric
            and positive definite, or to `None`; `None` if there is none.
    """

    call: Callable
    pure: Callable
    frozen: Any
    symmetric: bool = False
    convex: bool = False
    explicit: Callable | None = None
    sources: Any = ()
    preconditioner: Callable | None = None

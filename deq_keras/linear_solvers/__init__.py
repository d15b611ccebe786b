"""Matrix-free linear solvers for the adjoint equation: per image, stopping on the true residual."""

from deq_keras import registry as _registry
from deq_keras.linear_solvers.base import LinearSolver
from deq_keras.linear_solvers.conjugate_gradient import ConjugateGradient
from deq_keras.linear_solvers.gmres import GMRES
from deq_keras.linear_solvers.minres import MINRES
from deq_keras.linear_solvers.neumann import Neumann

__all__ = ["GMRES", "MINRES", "ConjugateGradient", "LinearSolver", "Neumann", "get"]

_BY_NAME = {
    "conjugate_gradient": ConjugateGradient,
    "gmres": GMRES,
    "minres": MINRES,
    "neumann": Neumann,
}


def get(identifier):
    """A `LinearSolver` from a name (`"conjugate_gradient"`, `"gmres"`, `"minres"`, `"neumann"`),
    a configuration or a solver."""
    return _registry.get(identifier, "linear solver", _BY_NAME, LinearSolver)

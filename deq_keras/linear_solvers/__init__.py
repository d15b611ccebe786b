"""Matrix-free linear solvers for the adjoint equation: per image, stopping on the true residual."""

from deq_keras import config as _config
from deq_keras.linear_solvers.anderson import AndersonLinear
from deq_keras.linear_solvers.base import LinearSolver
from deq_keras.linear_solvers.bicgstab import BiCGStab
from deq_keras.linear_solvers.conjugate_gradient import ConjugateGradient
from deq_keras.linear_solvers.fixed_point import FixedPoint
from deq_keras.linear_solvers.gmres import GMRES
from deq_keras.linear_solvers.minres import MINRES
from deq_keras.linear_solvers.neumann import Neumann
from deq_keras.linear_solvers.preconditioners import fourier_preconditioner

__all__ = [
    "GMRES",
    "MINRES",
    "AndersonLinear",
    "BiCGStab",
    "ConjugateGradient",
    "FixedPoint",
    "LinearSolver",
    "Neumann",
    "fourier_preconditioner",
    "get",
]

_BY_NAME = {
    "anderson": AndersonLinear,
    "bicgstab": BiCGStab,
    "conjugate_gradient": ConjugateGradient,
    "gmres": GMRES,
    "minres": MINRES,
    "neumann": Neumann,
}


def get(identifier) -> LinearSolver:
    """A `LinearSolver` from a name (`"anderson"`, `"bicgstab"`, `"conjugate_gradient"`, `"gmres"`,
    `"minres"`, `"neumann"`), a configuration or a solver.

    Example:

    >>> deq_keras.linear_solvers.get("conjugate_gradient")
    ConjugateGradient(tolerance=1e-05, max_steps=500)
    """
    return _config.get(identifier, "linear solver", _BY_NAME, LinearSolver)

"""Fixed-point solvers `z = f(z)`: one algorithm a file, one loop, a row per image."""

from deq_keras import registry as _registry
from deq_keras.solution import Solution
from deq_keras.solvers.anderson import Anderson
from deq_keras.solvers.base import Solver
from deq_keras.solvers.nesterov import Nesterov
from deq_keras.solvers.picard import Picard

__all__ = ["Anderson", "Nesterov", "Picard", "Solution", "Solver", "get"]

_BY_NAME = {"anderson": Anderson, "nesterov": Nesterov, "picard": Picard}


def get(identifier):
    """A `Solver` from a name (`"anderson"`, `"nesterov"`, `"picard"`), configuration or solver."""
    return _registry.get(identifier, "solver", _BY_NAME, Solver)

"""Fixed-point solvers `z = f(z)`: one algorithm a file, one loop, a row per image."""

from deq_keras import config as _config
from deq_keras.problems import Problem, Solution, Step
from deq_keras.solvers.anderson import Anderson
from deq_keras.solvers.base import Solver
from deq_keras.solvers.broyden import Broyden
from deq_keras.solvers.lbfgs import LBFGS
from deq_keras.solvers.nesterov import Nesterov
from deq_keras.solvers.newton_krylov import NewtonKrylov
from deq_keras.solvers.nonmonotone_apg import NonmonotoneAPG
from deq_keras.solvers.picard import Picard
from deq_keras.solvers.plain_anderson import PlainAnderson

__all__ = [
    "LBFGS",
    "Anderson",
    "Broyden",
    "Nesterov",
    "NewtonKrylov",
    "NonmonotoneAPG",
    "Step",
    "Picard",
    "PlainAnderson",
    "Problem",
    "Solution",
    "Solver",
    "get",
]

_BY_NAME = {
    "anderson": Anderson,
    "broyden": Broyden,
    "lbfgs": LBFGS,
    "nesterov": Nesterov,
    "newton_krylov": NewtonKrylov,
    "nonmonotone_apg": NonmonotoneAPG,
    "picard": Picard,
    "plain_anderson": PlainAnderson,
}


def get(identifier) -> Solver:
    """A `Solver` from a name, a configuration or a solver.

    The names: `"anderson"`, `"broyden"`, `"picard"` and, where these take hundreds of steps,
    `"newton_krylov"` for any map; `"nesterov"` for gradient steps on convex energies; `"lbfgs"` and
    `"nonmonotone_apg"` for steps on energies; `"plain_anderson"` for comparison with published
    results.

    Example:

    >>> deq_keras.solvers.get("picard")
    Picard(damping=1.0, ...)
    """
    return _config.get(identifier, "solver", _BY_NAME, Solver)

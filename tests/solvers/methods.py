"""The solvers that the tests run, and on which problems."""

from deq_keras import solvers
from tests.solvers.problems import COMPOSITE, OTHER, SMOOTH, double_wells

# For any map, for gradient steps on convex energies, and for steps on any smooth energy.
MAP = {
    "picard": solvers.Picard(tolerance=1e-9, max_steps=3000),
    "picard_damped": solvers.Picard(damping=0.7, tolerance=1e-9, max_steps=5000),
    "anderson": solvers.Anderson(tolerance=1e-9),
    "anderson_classical": solvers.Anderson(memory=3, period=1, tolerance=1e-9),
    "anderson_damped": solvers.Anderson(memory=3, damping=0.8, tolerance=1e-9),
    "broyden": solvers.Broyden(tolerance=1e-9),
    "broyden_damped": solvers.Broyden(memory=3, damping=0.8, tolerance=1e-9),
    "newton_krylov": solvers.NewtonKrylov(tolerance=1e-9),
    "newton_bicgstab": solvers.NewtonKrylov("bicgstab", forcing=0.1, shift=0.0, tolerance=1e-9),
}
# For comparison: for any map, but with nothing against bad luck where energies are not convex.
PUBLISHED = {"plain_anderson": solvers.PlainAnderson(tolerance=1e-9, max_steps=3000)}
CONVEX = {
    "nesterov": solvers.Nesterov(tolerance=1e-9),
    "nesterov_no_restart": solvers.Nesterov(restart=False, tolerance=1e-9),
}
ENERGY = {
    "lbfgs": solvers.LBFGS(memory=5, tolerance=1e-9),
    "nonmonotone_apg": solvers.NonmonotoneAPG(tolerance=1e-9),
    "monotone_apg": solvers.NonmonotoneAPG(averaging=0.0, tolerance=1e-9),
}
SOLVERS = {**MAP, **PUBLISHED, **CONVEX, **ENERGY}
DEFAULTS = (
    "picard",
    "anderson",
    "broyden",
    "nesterov",
    "lbfgs",
    "newton_krylov",
    "nonmonotone_apg",
    "plain_anderson",
)
PROXIMAL = ("picard", "anderson", "broyden", "newton_krylov", "nonmonotone_apg", "plain_anderson")

PROBLEMS = {**SMOOTH, **COMPOSITE, **OTHER, "double_wells": double_wells}
PAIRS = [
    *((solver, problem) for solver in SOLVERS for problem in SMOOTH),
    *((solver, problem) for solver in PROXIMAL for problem in COMPOSITE),
    *((solver, problem) for solver in (*MAP, *PUBLISHED) for problem in OTHER),
]


def with_arguments(name, **changes):
    """This solver with some arguments changed."""
    solver = SOLVERS[name]
    return type(solver)(**{**solver.get_config(), **changes})

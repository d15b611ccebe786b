"""jaxopt: fixed points and minimisers with implicit differentiation."""

import functools
import math

from benchmarks.peers.jax_map import JaxMap
from benchmarks.peers.torch_map import need
from benchmarks.problems import filters_norm

REQUIRES = ("jax", "jaxopt")
FAMILIES = {
    "Anderson + CG": {"solver": "AndersonAcceleration", "linear": "cg"},
    "Picard + normal CG, its default": {"solver": "FixedPointIteration", "linear": "normal_cg"},
    "Anderson + GMRES": {"solver": "AndersonAcceleration", "linear": "gmres"},
    "accelerated gradient descent + CG": {"solver": "GradientDescent", "linear": "cg"},
    "L-BFGS + CG": {"solver": "LBFGS", "linear": "cg"},
    "nonlinear CG + CG": {"solver": "NonlinearCG", "linear": "cg"},
}


def build(problem, options):
    """One training step; `options` are those of a family and `tolerance`."""
    need("jax")
    jaxopt = need("jaxopt")
    f = JaxMap(problem)
    tolerance = options["tolerance"]
    linear = getattr(need("jaxopt.linear_solve"), f"solve_{options['linear']}")
    # Its tolerances are absolute norms of the whole batch: of a step, or of the gradient.
    scale = problem.data_weight * math.sqrt(float((problem.measurement**2).sum()))
    common = {"implicit_diff_solve": functools.partial(linear, tol=tolerance, maxiter=1000)}
    name = options["solver"]
    if name == "FixedPointIteration":
        solver = jaxopt.FixedPointIteration(
            f, maxiter=1000, tol=tolerance * scale * problem.step, **common
        )
    elif name == "AndersonAcceleration":
        solver = jaxopt.AndersonAcceleration(
            f,
            history_size=5,
            ridge=1e-6,
            maxiter=1000,
            tol=tolerance * scale * problem.step,
            **common,
        )
    elif name == "GradientDescent":
        # It stops on the distance to the next iterate, over the step.
        curvature = problem.sharpness * filters_norm(problem.filters) ** 2
        lipschitz = problem.data_weight + curvature
        solver = jaxopt.GradientDescent(
            f.energy,
            stepsize=1.0 / lipschitz,
            acceleration=True,
            maxiter=1000,
            tol=tolerance * scale,
            **common,
        )
    else:
        solver = getattr(jaxopt, name)(f.energy, maxiter=1000, tol=tolerance * scale, **common)

    def solve(start, theta):
        found = solver.run(start, theta)
        return found.params, found.state.iter_num

    return f.training_step(solve)

"""optimistix: fixed points, roots and minimisers with its implicit adjoint."""

from benchmarks.peers.jax_map import JaxMap
from benchmarks.peers.torch_map import need

REQUIRES = ("jax", "optimistix", "lineax")
FAMILIES = {
    "Newton with CG to 0.1 + CG": {"solver": "newton", "linear": "CG", "inner": 0.1},
    "Picard + GMRES": {"solver": "fixed_point", "linear": "GMRES"},
    "Picard + CG": {"solver": "fixed_point", "linear": "CG"},
    "Newton with CG to 0.01 + CG": {"solver": "newton", "linear": "CG", "inner": 0.01},
    "nonlinear CG + CG": {"solver": "nonlinear_cg", "linear": "CG"},
    "L-BFGS + CG": {"solver": "lbfgs", "linear": "CG"},
}


def build(problem, options):
    """One training step; `options` are those of a family and `tolerance`."""
    need("jax")
    optx, lx = need("optimistix"), need("lineax")
    f = JaxMap(problem)
    tolerance = options["tolerance"]
    # Pixels are compared with `atol + rtol |b|` each: the root mean square makes that relative to
    # the whole right-hand side, whose size is about that of the noise.
    size = float(((problem.measurement - problem.target) ** 2).mean() ** 0.5)
    stop = {"rtol": 0.0, "atol": tolerance * size, "norm": optx.rms_norm, "max_steps": 1000}
    linear = getattr(lx, options["linear"])(**stop)
    adjoint = optx.ImplicitAdjoint(linear_solver=linear)
    symmetric = options["linear"] == "CG"
    scale = float((problem.measurement**2).mean() ** 0.5)
    # Steps are compared with `rtol |u|` pixel by pixel unless `rtol` is zero.
    common = {"rtol": 0.0, "norm": optx.rms_norm}
    settings = {"max_steps": 1000, "adjoint": adjoint, "throw": False}
    name = options["solver"]

    def solve(start, theta):
        if name == "fixed_point":
            solver = optx.FixedPointIteration(atol=tolerance * scale * problem.step, **common)
            tags = frozenset({lx.negative_semidefinite_tag} if symmetric else ())
            found = optx.fixed_point(f, solver, start, theta, tags=tags, **settings)
        elif name == "newton":
            inner = lx.CG(
                rtol=options["inner"], atol=options["inner"] * tolerance * scale, max_steps=1000
            )
            solver = optx.Newton(
                rtol=tolerance,
                atol=tolerance * scale,
                norm=optx.rms_norm,
                linear_solver=inner,
            )
            tags = frozenset({lx.positive_semidefinite_tag})
            found = optx.root_find(f.gradient, solver, start, theta, tags=tags, **settings)
        else:
            kind = optx.NonlinearCG if name == "nonlinear_cg" else optx.LBFGS
            tags = frozenset({lx.positive_semidefinite_tag})
            solver = kind(rtol=tolerance, atol=tolerance * scale, norm=optx.rms_norm)
            found = optx.minimise(f.energy, solver, start, theta, tags=tags, **settings)
        return found.value, found.stats["num_steps"]

    return f.training_step(solve)

"""torchdeq's solvers on the map of the suite `solvers`."""

from benchmarks.peers.torch_experts import fastest
from benchmarks.peers.torch_map import need

BROYDEN = 300  # its steps at most: it keeps all directions, and each step multiplies by them


def solvers(experts, cap):
    """`{label: (solve, count)}`; see `solvers_peers_worker`."""
    solver_module = need("torchdeq.solver")
    f = fastest(experts)

    def contestant(name, steps=cap, **options):
        method = solver_module.get_solver(name)

        def solve(tolerance):
            f.evaluations = 0
            # It compares the step with the iterate; ours, the gradient with that at zero.
            limit = tolerance * experts.step
            with f.torch.inference_mode():
                u, _, info = method(
                    f, f.start, max_iter=steps, tol=limit, stop_mode="rel", **options
                )
                return f.images(u), float(info["rel_lowest"].max()) < limit

        return solve, lambda: (f.evaluations, 0)

    return {
        "torchdeq Anderson": contestant("anderson"),
        "torchdeq Anderson, ridge 1e-9": contestant("anderson", lam=1e-9),
        "torchdeq Broyden": contestant("broyden", min(cap, BROYDEN)),
    }

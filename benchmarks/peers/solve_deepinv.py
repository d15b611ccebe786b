"""deepinv's gradient descent on the energy, or the map, of the suite `solvers`."""

from benchmarks.peers.torch_experts import fastest
from benchmarks.peers.torch_map import need


def solvers(experts, cap):
    """`{label: (solve, count)}`; see `solvers_peers_worker`."""
    deepinv = need("deepinv")
    f = fastest(experts)

    class Prior(deepinv.optim.Prior):
        """`S^T tanh(A u)` as the gradient of a prior."""

        def grad(self, x, *args, **kwargs):
            return f.prior_gradient(x)

    physics = deepinv.physics.LinearPhysics(
        A=lambda x, **_: f.blur(x), A_adjoint=lambda y, **_: f.blur(y, adjoint=True)
    )

    def contestant(anderson):
        model = deepinv.optim.GD(
            data_fidelity=deepinv.optim.data_fidelity.L2(),
            prior=Prior(),
            lambda_reg=1.0,
            stepsize=experts.step,
            g_param=0.0,
            max_iter=cap,
            early_stop=True,
            crit_conv="residual",
            anderson_acceleration=anderson,
        )
        model.eval()

        def solve(tolerance):
            f.evaluations, model.has_converged = 0, False
            model.thres_conv = tolerance * experts.step  # of a step over the iterate
            u = model(f.y, physics, init=f.start)
            return f.images(u), model.has_converged

        return solve, lambda: (f.evaluations, 0)

    options = {"history_size": 5, "beta": 1.0}
    anderson = deepinv.optim.AndersonAccelerationConfig
    return {
        "deepinv gradient descent": contestant(None),
        "deepinv Anderson": contestant(anderson(**options, eps=1e-4)),
        "deepinv Anderson, ridge 1e-9": contestant(anderson(**options, eps=1e-9)),
    }

"""torchdeq: `get_deq` with implicit differentiation and any of its solvers."""

import functools

from benchmarks.peers.torch_map import TorchMap, need

REQUIRES = ("torch", "torchdeq")
FAMILIES = {
    "Anderson + Anderson, ridge 1e-9": {
        "forward": "anderson",
        "backward": "anderson",
        "ridge": 1e-9,
        "hook_ift": True,
    },
    "Picard + Picard, default layout": {
        "forward": "fixed_point_iter",
        "backward": "fixed_point_iter",
        "layout": "default",
    },
    "Picard + Picard": {"forward": "fixed_point_iter", "backward": "fixed_point_iter"},
    "Picard + Picard, hook": {
        "forward": "fixed_point_iter",
        "backward": "fixed_point_iter",
        "hook_ift": True,
    },
    "Anderson + Anderson, its ridge 1e-4": {"forward": "anderson", "backward": "anderson"},
    "Broyden + Broyden": {"forward": "broyden", "backward": "broyden", "hook_ift": True},
}


def build(problem, options):
    """One training step; `options` are those of a family and `tolerance`."""
    need("torch")
    deq_module, solver_module = need("torchdeq"), need("torchdeq.solver")
    f = TorchMap(problem, options.get("layout", "channels_last"))
    names = {}
    for side in ("forward", "backward"):
        name = names[side] = options[side]
        if options.get("ridge") is not None and name == "anderson":
            # The library hands no options to the backward solver, but takes solvers of one's own.
            names[side] = "anderson_with_ridge"
            solver = functools.partial(solver_module.get_solver(name), lam=options["ridge"])
            solver_module.register_solver(names[side], solver)
    limit = 1000 if options["forward"] != "broyden" else 60  # Broyden keeps all its directions
    tolerances = {"f_tol": options["tolerance"], "b_tol": options["tolerance"]}
    hook = options.get("hook_ift", False)
    deq = deq_module.get_deq(
        f_solver=names["forward"],
        b_solver=names["backward"],
        f_max_iter=limit,
        b_max_iter=limit,
        f_stop_mode="rel",
        b_stop_mode="rel",
        ift=not hook,
        hook_ift=hook,
        **tolerances,
    )
    deq.train()
    backward = {}

    def step():
        outputs, info = deq(lambda u: f(u, f.y), f.y.detach(), backward_writer=backward.update)
        return f.backward(outputs[-1]), info

    def finish(raw):
        gradients, info = raw
        counts = {
            name: float(found["nstep"].max()) if "nstep" in found else None
            for name, found in (("forward_steps", info), ("backward_steps", backward))
        }
        return f.finish(gradients, **counts)

    return step, finish

"""deepinv: its gradient descent as a deep equilibrium model."""

from benchmarks.peers.torch_map import TorchMap, need

REQUIRES = ("torch", "deepinv")
FAMILIES = {
    "Anderson + Anderson, ridge 1e-9": {"ridge": 1e-9},
    "gradient descent + Picard, default layout": {"layout": "default"},
    "gradient descent + Picard": {},
    "Anderson + Anderson, ridge 1e-4": {"ridge": 1e-4},
}


def build(problem, options):
    """One training step; `options` are those of a family and `tolerance`."""
    torch, deepinv = need("torch"), need("deepinv")
    if problem.blur is not None:
        raise ValueError("This contestant knows denoising only.")
    f = TorchMap(problem, options.get("layout", "channels_last"))

    class Experts(deepinv.optim.Prior):
        """`A^T tanh(chi A u)` as the gradient of a prior."""

        def grad(self, x, *args, **kwargs):
            return f.prior_gradient(x)

    ridge, anderson = options.get("ridge"), None
    equilibrium = {"max_iter_backward": 1000}
    if ridge is not None:
        anderson = deepinv.optim.AndersonAccelerationConfig(history_size=5, beta=1.0, eps=ridge)
        equilibrium.update(anderson_acceleration_backward=True, eps_backward=ridge)
    model = deepinv.optim.GD(
        data_fidelity=deepinv.optim.data_fidelity.L2(sigma=problem.data_weight**-0.5),
        prior=Experts(),
        lambda_reg=1.0,
        stepsize=problem.step,
        g_param=0.0,
        max_iter=1000,
        early_stop=True,
        crit_conv="residual",
        thres_conv=options["tolerance"],
        DEQ=deepinv.optim.DEQConfig(**equilibrium),
        anderson_acceleration=anderson,
    )
    model.train()
    physics = deepinv.physics.Denoising(deepinv.physics.GaussianNoise(0.0))

    def step():
        with torch.enable_grad():
            return f.backward(model(f.y, physics, init=f.y.detach()))

    return step, f.finish

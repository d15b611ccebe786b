"""The map in JAX, for all contestants that are built on it."""

from benchmarks.peers.torch_map import need


class JaxMap:
    """`f(u, y)` and its energy; images are `(batch, height, width, 1)`.

    Args:
        problem: A `Problem` without a blur.
    """

    def __init__(self, problem):
        if problem.blur is not None:
            raise ValueError("This contestant knows denoising only.")
        self.jax, self.jnp = need("jax"), need("jax.numpy")
        self.problem = problem
        self.theta = (self.jnp.asarray(problem.filters), self.jnp.asarray(problem.measurement))
        self.x = self.jnp.asarray(problem.target)

    def analyse(self, u, filters):
        """`A u`."""
        return self.jax.lax.conv_general_dilated(
            u, filters, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def gradient(self, u, theta):
        """`grad E(u)` for `theta = (A, y)`."""
        filters, y = theta
        response = self.jnp.tanh(self.problem.sharpness * self.analyse(u, filters))
        # Odd filters: the adjoint of a zero-padded correlation is one with flipped filters.
        flipped = filters[::-1, ::-1].transpose(0, 1, 3, 2)
        return self.problem.data_weight * (u - y) + self.analyse(response, flipped)

    def __call__(self, u, theta):
        return u - self.problem.step * self.gradient(u, theta)

    def energy(self, u, theta):
        """`E(u)` of the whole batch."""
        filters, y = theta
        t = self.jnp.abs(self.problem.sharpness * self.analyse(u, filters))
        log_cosh = t + self.jnp.log1p(self.jnp.exp(-2 * t)) - self.jnp.log(2.0)
        misfit = 0.5 * self.problem.data_weight * self.jnp.sum((u - y) ** 2)
        return misfit + self.jnp.sum(log_cosh) / self.problem.sharpness

    def training_step(self, solve):
        """`(step, finish)` for a differentiable `solve(u0, theta) -> (u*, steps)`."""

        def loss(theta):
            start = self.jax.lax.stop_gradient(theta[1])
            u, steps = solve(start, theta)
            return 0.5 * self.jnp.sum((u - self.x) ** 2), steps

        compiled = self.jax.jit(self.jax.value_and_grad(loss, has_aux=True))

        def step():
            return self.jax.block_until_ready(compiled(self.theta))

        def finish(raw):
            (_, steps), (filters, measurement) = raw
            arrays = self.jax.device_get((filters, measurement))
            return {
                "filters": arrays[0],
                "measurement": arrays[1],
                "forward_steps": None if steps is None else float(steps),
            }

        return step, finish

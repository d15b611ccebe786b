"""optimistix on the map of the suite `solvers`, in JAX: Newton, L-BFGS, fixed points."""

import numpy as np

from benchmarks.peers.torch_map import need
from benchmarks.problems import transfer

INNER = 0.1  # to which Newton's linear systems are solved, relative to their right-hand sides
OUTER_STEPS, INNER_STEPS = 30, 300  # whole steps: where it has gone astray, more do not help


def solvers(experts, cap):
    """`{label: (solve, count)}`; see `solvers_peers_worker`."""
    kinds = ("CG",) if experts.tied else ("GMRES", "BiCGStab")
    found = {f"optimistix Newton, {name}": newton(experts, name) for name in kinds}
    if experts.tied:
        found["optimistix L-BFGS"] = lbfgs(experts, cap)
    return {**found, "optimistix fixed point": fixed_point(experts, cap)}


def parts_of(experts):
    """`(gradient, energy)`: `u -> K^T K u - K^T y + S^T tanh(A u)`, and what it is the gradient of
    if the experts are tied, but for a constant; images are `(batch, height, width, 1)`."""
    jax, jnp = need("jax"), need("jax.numpy")
    sides = experts.filters.shape[:2]
    edges = ((0, 0), *((side // 2, side // 2) for side in sides), (0, 0))
    full = tuple((side - 1, side - 1) for side in sides)
    filters = jnp.asarray(experts.filters)
    # The adjoint of a correlation is one with flipped filters.
    flipped = jnp.asarray(experts.synthesis[::-1, ::-1].transpose(0, 1, 3, 2).copy())
    size = experts.measurement.shape[1:3]
    spectrum = 1.0 if experts.blur is None else transfer(experts.blur, *size)[None, :, :, None]

    def correlate(u, filters, padding):
        numbers = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}
        return jax.lax.conv_general_dilated(u, filters, (1, 1), padding, **numbers)

    def mirror(u):
        return jnp.pad(u, edges, "reflect")

    def filtered(u, spectrum):
        if experts.blur is None:
            return u
        product = jnp.fft.rfft2(u, axes=(1, 2)) * jnp.asarray(spectrum, jnp.complex64)
        return jnp.fft.irfft2(product, size, axes=(1, 2))

    unmirror = jax.linear_transpose(mirror, jnp.asarray(experts.start))
    seen = filtered(jnp.asarray(experts.measurement), spectrum.conjugate())
    power = abs(spectrum) ** 2

    def gradient(u):
        response = jnp.tanh(correlate(mirror(u), filters, "VALID"))
        (prior,) = unmirror(correlate(response, flipped, full))
        return filtered(u, power) - seen + prior

    scale = float((experts.synthesis * experts.filters).sum() / (experts.filters**2).sum())

    def energy(u):
        t = jnp.abs(correlate(mirror(u), filters, "VALID"))
        data = jnp.sum(u * (0.5 * filtered(u, power) - seen))
        return data + scale * jnp.sum(t + jnp.log1p(jnp.exp(-2.0 * t)))

    return gradient, energy


def newton(experts, name):
    """Newton's method for a root of the gradient."""
    jax, jnp, optx, lx = (need(m) for m in ("jax", "jax.numpy", "optimistix", "lineax"))
    (gradient, _), start = parts_of(experts), jnp.asarray(experts.start)
    tags = frozenset({lx.positive_semidefinite_tag} if experts.tied else ())
    size = float((experts.start**2).mean() ** 0.5)
    counts = []

    # By hand: a step of CG is one product, of BiCGStab two, of GMRES up to twenty and one.
    @jax.custom_jvp
    def counted(u):
        return u

    @counted.defjvp
    def _(primals, tangents):
        jax.debug.callback(lambda _: counts.append(1), tangents[0].ravel()[0])
        return primals[0], tangents[0]

    def run(tolerance, said):
        inner = getattr(lx, name)(
            rtol=INNER, atol=INNER * tolerance * size, norm=optx.rms_norm, max_steps=INNER_STEPS
        )
        solver = optx.Newton(
            rtol=tolerance,
            atol=tolerance * size,
            norm=optx.rms_norm,
            linear_solver=inner,
        )
        options = {"max_steps": OUTER_STEPS, "throw": False, "tags": tags}
        found = optx.root_find(
            lambda u, _: gradient(counted(u) if said else u), solver, start, **options
        )
        return found.value, found.result == optx.RESULTS.successful, found.stats["num_steps"]

    return compiled(run, counts)


def lbfgs(experts, cap):
    """Its minimiser; it says steps, in each of which the energy is evaluated."""
    jnp, optx = need("jax.numpy"), need("optimistix")
    (_, energy), start = parts_of(experts), jnp.asarray(experts.start)
    size = float((experts.start**2).mean() ** 0.5)

    def run(tolerance, said):
        solver = optx.LBFGS(rtol=tolerance, atol=tolerance * size, norm=optx.rms_norm)
        found = optx.minimise(lambda u, _: energy(u), solver, start, max_steps=cap, throw=False)
        return found.value, found.result == optx.RESULTS.successful, found.stats["num_steps"]

    return compiled(run, [])


def fixed_point(experts, cap):
    """The iteration of `f`."""
    jnp, optx = need("jax.numpy"), need("optimistix")
    (gradient, _), start = parts_of(experts), jnp.asarray(experts.start)
    size = float((experts.start**2).mean() ** 0.5)

    def run(tolerance, said):
        solver = optx.FixedPointIteration(
            rtol=0.0, atol=tolerance * experts.step * size, norm=optx.rms_norm
        )
        found = optx.fixed_point(
            lambda u, _: u - experts.step * gradient(u), solver, start, max_steps=cap, throw=False
        )
        return found.value, found.result == optx.RESULTS.successful, found.stats["num_steps"]

    return compiled(run, [])


def compiled(run, products):
    """`(solve, count)` for a function of a tolerance and of whether it adds to `products`.

    That takes time: the run that counts is another one, of the same arithmetic.
    """
    jax, tolerances = need("jax"), [1.0]
    timed, counted = (jax.jit(lambda t, said=said: run(t, said)) for said in (False, True))

    def solve(tolerance):
        tolerances[0] = tolerance
        value, fine, _ = timed(tolerance)
        return np.asarray(value), bool(fine)

    def count():
        products.clear()
        steps = int(counted(tolerances[0])[2])
        jax.effects_barrier()
        return steps, len(products)

    return solve, count

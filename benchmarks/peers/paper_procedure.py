"""The training step of arXiv:2206.13193, written afresh in PyTorch from its description.

Picard iteration `u <- u - tau grad E(u)` from `y`, with an ordinary and a transposed convolution in
each step, until the relative step of the whole batch is below 1e-14 or 1000 iterations are done
(in float32 it is the latter); then the same iteration for the adjoint equation, with the Jacobian's
products by automatic differentiation.
"""

import time

from benchmarks.peers.torch_map import TorchMap

REQUIRES = ("torch",)
TOLERANCE = 1e-14
ITERATIONS = 1000


def build(problem, options):
    """One training step; `options`: `layout`, and `iterations` to do fewer of them."""
    f = TorchMap(problem, options["layout"])
    torch, limit = f.torch, options.get("iterations", ITERATIONS)

    def iterate(function, start):
        old, count, change = start, 0, float("inf")
        while count < limit and not change < TOLERANCE:
            new, count = function(old), count + 1
            change = (new - old).norm().item() / (1e-5 + new.norm().item())
            old = new
        return old, count

    def step():
        counts, begin = {}, time.perf_counter()
        with torch.no_grad():
            start = f.y.detach().clone()
            u, counts["forward_steps"] = iterate(lambda u: f(u, f.y), start)
        counts["forward_seconds"] = time.perf_counter() - begin
        u = f(u, f.y)
        point = u.detach().clone().requires_grad_()
        value = f(point, f.y)

        def adjoint(cotangent):
            begin = time.perf_counter()

            def product(w):
                (back,) = torch.autograd.grad(value, point, w, retain_graph=True)
                return back + cotangent

            w, counts["backward_steps"] = iterate(product, cotangent)
            counts["backward_seconds"] = time.perf_counter() - begin
            return w

        u.register_hook(adjoint)
        return f.backward(u), counts

    def finish(raw):
        gradients, counts = raw
        return f.finish(gradients, **counts)

    return step, finish


def once(problem, options):
    """`(seconds, result)` of one run that nothing precedes: whole runs need no warm-up."""
    step, finish = build(problem, options)
    begin = time.perf_counter()
    raw = step()
    return time.perf_counter() - begin, finish(raw)

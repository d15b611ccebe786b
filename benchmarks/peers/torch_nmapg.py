"""PyTorch on a `Reconstruction`: nonmonotone APG, as in the comparison LearnedRegularizers.

Written from algorithm 2 and the line search of Li and Lin (NeurIPS 2015): a step from the
extrapolated point with the length of Barzilai and Borwein, shortened until the energy is
sufficiently below an average of the past ones, and a second one from the iterate where that is not
enough. Every image has its own lengths, and those that have stopped leave the batch.
"""

import dataclasses

from benchmarks.peers.torch_map import need

FAMILIES = {
    "nmAPG, layers, channels_last": {"layers": True, "layout": "channels_last"},
    "nmAPG, layers": {"layers": True, "layout": "default"},
    "nmAPG, one convolution, channels_last": {"layers": False, "layout": "channels_last"},
    "nmAPG, one convolution": {"layers": False, "layout": "default"},
}
REQUIRES = ("torch",)
AVERAGING, SHRINK, SUFFICIENT, MAX_STEPS = 0.8, 0.5, 1e-4, 5000


def build(problem, options):
    """One reconstruction; `options` are those of a family and `tolerance`: of the gradient's norm,
    in terms of that of a black image."""
    energy = Energy(problem, **{name: options[name] for name in ("layers", "layout")})

    def step():
        with energy.torch.inference_mode():
            return solve(energy, options["tolerance"])

    def finish(raw):
        u, steps = raw
        return {"solution": u.permute(0, 2, 3, 1).contiguous().numpy(), "forward_steps": steps}

    return step, finish


class Energy:
    """`E` and its gradient for images `(batch, 1, height, width)`."""

    def __init__(self, problem, layers, layout):
        import os

        self.torch = torch = need("torch")
        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count())))
        formats = {"default": torch.contiguous_format, "channels_last": torch.channels_last}
        self.format, self.problem = formats[layout], problem
        filters = problem.layers if layers else (problem.filters,)
        self.filters = [self.tensor(layer.transpose(3, 2, 0, 1)) for layer in filters]
        self.mu, self.a = (
            torch.tensor(values).reshape(1, -1, 1, 1)
            for values in (problem.sharpness, problem.scaling)
        )
        self.y = self.tensor(problem.measurement.transpose(0, 3, 1, 2))

    def tensor(self, array):
        """An array as a tensor in the layout."""
        return self.torch.tensor(array.copy()).contiguous(memory_format=self.format)

    def analyse(self, u):
        """`A u`, times the scalings."""
        functional = self.torch.nn.functional
        (top, bottom), (left, right) = self.problem.padding
        u = functional.pad(u, (left, right, top, bottom), "reflect")
        u = u.contiguous(memory_format=self.format)
        for layer in self.filters:
            u = functional.conv2d(u, layer)
        return self.a * u

    def synthesise(self, responses):
        """`A^T`."""
        for layer in self.filters[::-1]:
            responses = self.torch.nn.functional.conv_transpose2d(responses, layer)
        rows, columns = self.problem.padding
        return unmirror(unmirror(responses, rows, 2), columns, 3)

    def of_responses(self, u, t, y):
        """`E(u)`, `(batch,)`, where `t` is `analyse(u)`."""
        p = self.problem
        psi = self._potential(self.mu * t) / self.mu
        if p.weak_convexity:
            psi = psi - p.weak_convexity * self._potential(t)
        psi = (psi / self.a**2).sum((1, 2, 3))
        return 0.5 * ((u - y) ** 2).sum((1, 2, 3)) + p.weight * psi

    def gradient(self, u, t, y):
        """`grad E(u)`, where `t` is `analyse(u)`."""
        p = self.problem
        psi = self._slope(self.mu * t)
        if p.weak_convexity:
            psi = psi - p.weak_convexity * self._slope(t)
        return u - y + p.weight * self.synthesise(psi / self.a)

    def _potential(self, t):
        if self.problem.potential == "smoothed_l1":
            return t * t / (1.0 + self.torch.sqrt(1.0 + t * t))
        size = t.abs()
        return size + self.torch.nn.functional.softplus(-2.0 * size) - 0.6931471805599453

    def _slope(self, t):
        if self.problem.potential == "smoothed_l1":
            return t * self.torch.rsqrt(1.0 + t * t)
        return self.torch.tanh(t)


def unmirror(v, sizes, dim):
    """The adjoint of mirroring about the border pixels along a dimension."""
    before, after = sizes
    size = v.shape[dim] - before - after
    inner = v.narrow(dim, before, size).clone()
    inner.narrow(dim, 1, before).add_(v.narrow(dim, 0, before).flip(dim))
    inner.narrow(dim, size - 1 - after, after).add_(v.narrow(dim, before + size, after).flip(dim))
    return inner


@dataclasses.dataclass
class State:
    """What `solve` keeps of each image that has not stopped, with the batch first.

    Attributes:
        index: Its place in the batch.
        y: Its measurement.
        x: The iterate.
        point, slope: The extrapolated iterate, and the gradient there.
        average, weight: Of the energies so far, and what it weighs.
        t: Of the extrapolation.
        length: Of the next step.
    """

    index: object
    y: object
    x: object
    point: object
    slope: object
    average: object
    weight: object
    t: object
    length: object

    def keep(self, rows):
        """The state of some images."""
        values = {f.name: getattr(self, f.name)[rows] for f in dataclasses.fields(self)}
        return State(**values)


def dot(a, b):
    """Of each image."""
    return (a * b).sum((1, 2, 3))


def image(values):
    """Numbers of images, to be multiplied with images."""
    return values[:, None, None, None]


def solve(energy, tolerance):
    """`(solutions, mean number of steps)`."""
    torch, y = energy.torch, energy.y
    black = torch.zeros_like(y)
    goal = tolerance * energy.gradient(black, energy.analyse(black), y).flatten(1).norm(dim=1)
    t = energy.analyse(y)
    value, slope = energy.of_responses(y, t, y), energy.gradient(y, t, y)
    one = torch.ones_like(value)
    length = one / (1.0 + energy.problem.weight * float(energy.mu.max()))
    s = State(torch.arange(len(y)), y, y, y, slope, value, one, one, length)
    result, steps = y.clone(), torch.zeros(len(y))
    for _ in range(MAX_STEPS):
        going = s.slope.flatten(1).norm(dim=1) > goal[s.index]
        if not bool(going.all()):
            result[s.index[~going]] = s.point[~going]
            s = s.keep(going)
        if not len(s.index):
            return result, float(steps.mean())
        steps[s.index] += 1
        advance(energy, s)
    result[s.index] = s.x
    return result, float(steps.mean())


def advance(energy, s):
    """One step of each image of a state."""
    torch = energy.torch
    z, value, s.length = search(energy, s.point, s.slope, s.length, s.average, s.y)
    x = z
    enough = value <= s.average - SUFFICIENT * dot(z - s.point, z - s.point)
    if not bool(enough.all()):  # the monitor: a step from the iterate itself
        slope = energy.gradient(s.x, energy.analyse(s.x), s.y)
        v, v_value, _ = search(energy, s.x, slope, s.length, s.average, s.y)
        better = enough | (value <= v_value)
        x = torch.where(image(better), z, v)
        value = torch.where(better, value, v_value)
    t = 0.5 * (1.0 + torch.sqrt(1.0 + 4.0 * s.t**2))
    point = x + image(s.t / t) * (z - x) + image((s.t - 1.0) / t) * (x - s.x)
    slope = energy.gradient(point, energy.analyse(point), s.y)
    moved, change = point - s.point, slope - s.slope
    curvature = dot(moved, change)
    length = curvature / dot(change, change)
    usable = (curvature > 0) & torch.isfinite(length)
    s.length = torch.where(usable, length, s.length)
    weight = AVERAGING * s.weight + 1.0
    s.average = (AVERAGING * s.weight * s.average + value) / weight
    s.x, s.point, s.slope, s.weight, s.t = x, point, slope, weight, t


def search(energy, u, slope, length, average, y):
    """`(point, its energy, length)` of a step against the slope, shortened until the energy is
    sufficiently below the average; images that are there wait."""
    torch, squared = energy.torch, dot(slope, slope)
    for _ in range(60):
        point = u - image(length) * slope
        value = energy.of_responses(point, energy.analyse(point), y)
        # Differences of energies in float32 are not known better than that.
        rounding = 1e-6 * average.abs()
        short = value > average - SUFFICIENT * length**2 * squared + rounding
        if not bool(short.any()):
            break
        length = torch.where(short, SHRINK * length, length)
    return point, value, length

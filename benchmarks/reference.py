"""The gradient in float64, by an implementation that shares nothing with any contestant.

NumPy only: convolutions are sums over the taps of the filters; the fixed point is found by a
primal-dual Newton method (Chan, Golub and Mulet, 1999), which converges in some 20 steps however
sharp the experts are, with conjugate gradients inside, and so is the adjoint equation. Solved far
below the errors that are measured with it.
"""

import dataclasses
import functools
import multiprocessing
from concurrent import futures

import numpy as np

from benchmarks.problems import apply_blur, transfer


@dataclasses.dataclass(frozen=True)
class Reference:
    """Solution and derivatives of the loss, float64.

    Attributes:
        solution: `u*`.
        filters: Derivative with respect to `A`.
        measurement: Derivative with respect to `y`.
        residual: `||grad E(u*)|| / ||a K^T y||`, reached.
        adjoint_residual: Relative residual of the adjoint equation, reached.
    """

    solution: np.ndarray
    filters: np.ndarray
    measurement: np.ndarray
    residual: float
    adjoint_residual: float


class Energy:
    """`E`, its gradient and its Hessian for a `Problem`, in float64."""

    def __init__(self, problem):
        self.problem = problem
        self.filters = problem.filters.astype(np.float64)
        self.y = problem.measurement.astype(np.float64)
        # Taps where all filters are zero cost nothing.
        used = np.abs(self.filters).max(axis=(2, 3)) > 0
        self.taps = [tuple(tap) for tap in np.argwhere(used)]
        self.weights = self.filters[used][:, 0, :]  # (taps, count)

    def analyse(self, u):
        """`A u`, `(batch, height, width, count)`."""
        return self._patches(u, self.taps) @ self.weights

    def synthesise(self, v):
        """`A^T v`, `(batch, height, width, 1)`."""
        height, width = self.filters.shape[:2]
        shape = v.shape[:1] + (v.shape[1] + height - 1, v.shape[2] + width - 1)
        padded = np.zeros(shape)
        parts = v @ self.weights.T
        for k, (i, j) in enumerate(self.taps):
            padded[:, i : i + v.shape[1], j : j + v.shape[2]] += parts[..., k]
        top, left = (height - 1) // 2, (width - 1) // 2
        return padded[:, top : top + v.shape[1], left : left + v.shape[2], None]

    def correlate(self, u, v):
        """The derivative of `<A u, v>` with respect to `A`, for all taps."""
        height, width = self.filters.shape[:2]
        total = np.zeros((height * width, v.shape[-1]))
        everywhere = [(i, j) for i in range(height) for j in range(width)]
        for one, values in zip(u, v, strict=True):  # one image at a time: patches are large
            patches = self._patches(one[None], everywhere)
            total += patches.reshape(-1, height * width).T @ values.reshape(-1, v.shape[-1])
        return total.reshape(self.filters.shape)

    def _patches(self, u, taps):
        height, width = self.filters.shape[:2]
        top, left = (height - 1) // 2, (width - 1) // 2
        pads = ((0, 0), (top, height - 1 - top), (left, width - 1 - left))
        padded = np.pad(u[..., 0], pads)
        rows, columns = u.shape[1:3]
        return np.stack([padded[:, i : i + rows, j : j + columns] for i, j in taps], axis=-1)

    def blur(self, u, adjoint=False):
        """`K u` or `K^T u`."""
        return u if self.problem.blur is None else apply_blur(u, self.problem.blur, adjoint)

    def value(self, u):
        """`E(u)`, a number."""
        t = self.problem.sharpness * self.analyse(u)
        log_cosh = np.abs(t) + np.log1p(np.exp(-2 * np.abs(t))) - np.log(2.0)
        misfit = np.sum((self.blur(u) - self.y) ** 2)
        return 0.5 * self.problem.data_weight * misfit + np.sum(log_cosh) / self.problem.sharpness

    def gradient(self, u):
        """`grad E(u)`."""
        data = self.problem.data_weight * self.blur(self.blur(u) - self.y, adjoint=True)
        return data + self.synthesise(np.tanh(self.problem.sharpness * self.analyse(u)))

    def hessian(self, u):
        """The function `v -> E''(u) v`."""
        return self.quadratic(self._slope(u))

    def quadratic(self, slope):
        """The function `v -> (a K^T K + A^T slope A) v`."""

        def product(v):
            data = self.problem.data_weight * self.blur(self.blur(v), adjoint=True)
            return data + self.synthesise(slope * self.analyse(v))

        return product

    def preconditioner(self, slope):
        """The inverse of `quadratic` if the slopes were all alike and the boundary periodic."""
        height, width = self.y.shape[1:3]
        spectra = np.fft.rfft2(self.filters[:, :, 0, :], (height, width), axes=(0, 1))
        symbol = np.median(slope) * (np.abs(spectra) ** 2).sum(-1)
        if self.problem.blur is None:
            symbol += self.problem.data_weight
        else:
            blur = np.abs(transfer(self.problem.blur, height, width)) ** 2
            symbol += self.problem.data_weight * blur
        symbol += 1e-9 * symbol.max()  # where neither sees anything

        def apply(r):
            spectrum = np.fft.rfft2(r[..., 0]) / symbol
            return np.fft.irfft2(spectrum, (height, width))[..., None]

        return apply

    def _slope(self, u):
        tanh = np.tanh(self.problem.sharpness * self.analyse(u))
        return self.problem.sharpness * (1.0 - tanh**2)

    def derivatives(self, u, w):
        """What the loss changes by with `A` and `y`, if `w = E''(u)^{-1} (u - x)`."""
        tanh = np.tanh(self.problem.sharpness * self.analyse(u))
        through = self._slope(u) * self.analyse(w)
        filters = -(self.correlate(w, tanh) + self.correlate(u, through))
        return filters, self.problem.data_weight * self.blur(w)


def solve(problem, tolerance=1e-12, max_newton=80, max_cg=5000, processes=1):
    """The `Reference` of a problem.

    Args:
        problem: A `Problem`.
        tolerance: Relative residual of both equations, for each image.
        max_newton, max_cg: Largest numbers of steps.
        processes: The images are divided among so many.

    Raises:
        RuntimeError: If the solution or the adjoint equation of an image did not reach
            `100 tolerance`: there is then nothing to measure errors with.
    """
    count = len(problem.measurement)
    images = [
        dataclasses.replace(problem, measurement=problem.measurement[i], target=problem.target[i])
        for i in (slice(k, k + 1) for k in range(count))
    ]
    solve_one = functools.partial(_solve, tolerance=tolerance, steps=(max_newton, max_cg))
    if processes == 1:
        parts = [solve_one(image) for image in images]
    else:
        context = multiprocessing.get_context("spawn")
        with futures.ProcessPoolExecutor(processes, context) as pool:
            parts = list(pool.map(solve_one, images))
    residual = max(part.residual for part in parts)
    adjoint_residual = max(part.adjoint_residual for part in parts)
    if max(residual, adjoint_residual) > 100 * tolerance:
        raise RuntimeError(
            f"The float64 reference did not converge: residuals {residual:.1e} and "
            f"{adjoint_residual:.1e}, expected at most {100 * tolerance:.0e}."
        )
    return Reference(
        np.concatenate([part.solution for part in parts]),
        np.sum([part.filters for part in parts], axis=0),
        np.concatenate([part.measurement for part in parts]),
        residual,
        adjoint_residual,
    )


def _solve(problem, tolerance, steps):
    """The part of the `Reference` that belongs to one image.

    With `v = tanh(chi A u)` as a second unknown, the equation `atanh(v) = chi A u` is linearised
    and `v` eliminated; it moves at most nine tenths of the way to +-1, pixel by pixel.
    """
    energy, (max_newton, max_cg) = Energy(problem), steps
    u, chi, a = energy.y.copy(), problem.sharpness, problem.data_weight
    v = np.zeros_like(energy.analyse(u))
    scale = np.linalg.norm(a * energy.blur(energy.y, adjoint=True))
    scale = scale if scale > 0 else 1.0
    for _ in range(max_newton):
        residual = np.linalg.norm(energy.gradient(u)) / scale
        if residual <= tolerance:
            break
        slope = 1.0 - v**2
        gap = slope * (chi * energy.analyse(u) - np.arctanh(v))
        data = a * energy.blur(energy.blur(u) - energy.y, adjoint=True)
        right = -(data + energy.synthesise(v + gap))
        accuracy = max(min(0.1, residual), 0.1 * tolerance)
        system = energy.quadratic(chi * slope)
        step, _ = conjugate_gradient(
            system, right, accuracy, max_cg, energy.preconditioner(chi * slope)
        )
        dual = gap + slope * chi * energy.analyse(step)
        room = np.where(dual > 0, 1.0 - v, 1.0 + v) / np.maximum(np.abs(dual), 1e-300)
        u = u + step
        v = np.clip(v + np.minimum(1.0, 0.9 * room) * dual, -1 + 1e-15, 1 - 1e-15)
    residual = np.linalg.norm(energy.gradient(u)) / scale
    tanh = np.tanh(chi * energy.analyse(u))
    adjoint, adjoint_residual = conjugate_gradient(
        energy.hessian(u),
        u - problem.target.astype(np.float64),
        tolerance,
        max_cg,
        energy.preconditioner(chi * (1.0 - tanh**2)),
    )
    filters, measurement = energy.derivatives(u, adjoint)
    return Reference(u, filters, measurement, float(residual), adjoint_residual)


def conjugate_gradient(product, b, tolerance, max_steps, precondition=lambda r: r):
    """`(x, relative residual)` with `product(x) = b`, for a positive definite product."""
    x, r = np.zeros_like(b), b.copy()
    p = z = precondition(r)
    rz, goal = np.sum(r * z), tolerance * np.linalg.norm(b)
    for _ in range(max_steps):
        if np.linalg.norm(r) <= goal:
            break
        q = product(p)
        alpha = rz / np.sum(p * q)
        x, r = x + alpha * p, r - alpha * q
        z = precondition(r)
        rz, old = np.sum(r * z), rz
        p = z + (rz / old) * p
    size = np.linalg.norm(b)
    return x, float(np.linalg.norm(b - product(x)) / size) if size else 0.0


def judge(reference):
    """`errors` against a `Reference`, as a function of the result alone."""
    return functools.partial(errors, reference)


def errors(reference, result):
    """Relative errors of the derivatives of a contestant, and the larger of the two."""
    found = {}
    for name in ("filters", "measurement"):
        true = getattr(reference, name)
        value = np.asarray(result[name], np.float64)
        if value.shape != true.shape:
            raise ValueError(f"Expected a gradient of shape {true.shape}. Received {value.shape}.")
        distance = np.linalg.norm(value - true) / np.linalg.norm(true)
        found[name] = float(distance) if np.isfinite(distance) else float("inf")
    found["gradient"] = max(found.values())
    return found

"""Denoising with a trained ridge prior: what contestants get as arrays, and who judges them."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Reconstruction:
    """Minimisation of `E(u) = ||u - y||^2 / 2 + weight R(u)`, for each image.

        R(u) = sum_i sum_x (s(mu_i a_i r) / mu_i - rho s(a_i r)) / a_i^2,    r = (A u)_i(x)

    `A` pads an image by mirroring about its border pixels, so that sizes stay, and correlates it
    with the filters.

    Attributes:
        preset: The preset of `deq_keras.presets` that this is.
        layers: `(height, width, channels, filters)` each; one after another they are `A`.
        filters: The same as one layer, `(height, width, 1, filters)`.
        potential: `s`: `"tanh"`, log cosh, or `"smoothed_l1"`, `sqrt(1 + t^2) - 1`.
        sharpness: `mu`, `(filters,)`.
        scaling: `a`, `(filters,)`.
        weak_convexity: `rho`.
        weight: `weight`.
        measurement: `y`, `(batch, height, width, 1)`.
    """

    preset: str
    layers: tuple
    filters: np.ndarray
    potential: str
    sharpness: np.ndarray
    scaling: np.ndarray
    weak_convexity: float
    weight: float
    measurement: np.ndarray

    @property
    def padding(self):
        """Pixels `((top, bottom), (left, right))` around an image."""
        return tuple(
            ((side - 1) // 2, side - 1 - (side - 1) // 2) for side in self.filters.shape[:2]
        )


def _log_cosh(t):
    return np.logaddexp(t, -t) - np.log(2.0)


# From names to s and s'.
POTENTIALS = {
    "tanh": (_log_cosh, np.tanh),
    "smoothed_l1": (lambda t: np.hypot(1.0, t) - 1.0, lambda t: t / np.hypot(1.0, t)),
}


class Judge:
    """Energies and gradients in float64, by NumPy's transforms; independent of all contestants.

    Args:
        problem: A `Reconstruction`.
    """

    def __init__(self, problem):
        self.problem = problem
        self._y = problem.measurement.astype(np.float64)[..., 0]
        size = np.add(self._y.shape[1:], [sum(sides) for sides in problem.padding])
        self._size = tuple(int(side) for side in size)
        filters = problem.filters.astype(np.float64)[:, :, 0].transpose(2, 0, 1)
        self._spectra = np.fft.rfft2(filters, self._size)
        self._scale = self._norms(np.zeros_like(problem.measurement))

    def energy(self, u):
        """`E(u)` of each image, `(batch,)`."""
        p, (value, _) = self.problem, POTENTIALS[self.problem.potential]
        total = 0.5 * np.sum((u.astype(np.float64)[..., 0] - self._y) ** 2, axis=(1, 2))
        for response, mu, a, _ in self._experts(u):
            psi = (value(mu * a * response) / mu - p.weak_convexity * value(a * response)) / a**2
            total += p.weight * np.sum(psi, axis=(1, 2))
        return total

    def gradient(self, u):
        """`grad E(u)`, `(batch, height, width)`."""
        p, (_, slope) = self.problem, POTENTIALS[self.problem.potential]
        sums = 0.0
        for response, mu, a, spectrum in self._experts(u):
            psi = (slope(mu * a * response) - p.weak_convexity * slope(a * response)) / a
            sums = sums + np.fft.rfft2(psi, self._size) * spectrum
        back = np.fft.irfft2(sums, self._size)
        back = _unmirror(_unmirror(back, p.padding[0], 1), p.padding[1], 2)
        return u.astype(np.float64)[..., 0] - self._y + p.weight * back

    def __call__(self, result):
        """`{"gradient": error}`: the largest norm of a gradient, in terms of that of a black image.

        Args:
            result: Dictionary with the `solution` of a contestant.
        """
        u, shape = np.asarray(result["solution"]), self.problem.measurement.shape
        if u.shape != shape:
            raise ValueError(f"Expected a solution of shape {shape}. Received {u.shape}.")
        error = float(np.max(self._norms(u) / self._scale))
        return {"gradient": error if np.isfinite(error) else float("inf")}

    def _norms(self, u):
        return np.sqrt(np.sum(self.gradient(u) ** 2, axis=(1, 2)))

    def _experts(self, u):
        """Of each: the response, `mu`, `a` and the spectrum of its filter."""
        p, (height, width) = self.problem, self._y.shape[1:]
        padded = np.pad(u.astype(np.float64)[..., 0], ((0, 0), *p.padding), "reflect")
        image = np.fft.rfft2(padded)
        for spectrum, mu, a in zip(self._spectra, p.sharpness, p.scaling, strict=True):
            correlated = np.fft.irfft2(image * spectrum.conj(), self._size)
            yield correlated[:, :height, :width], float(mu), float(a), spectrum


def _unmirror(v, sizes, axis):
    """The adjoint of mirroring about the border pixels along an axis."""
    before, after = sizes
    v = np.moveaxis(v, axis, 0)
    inner = v[before : len(v) - after].copy()
    inner[1 : before + 1] += v[:before][::-1]
    inner[len(inner) - after - 1 : len(inner) - 1] += v[len(v) - after :][::-1]
    return np.moveaxis(inner, 0, axis)

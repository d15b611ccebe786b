"""Linear systems of every kind, four to a batch, with preconditioners, as NumPy arrays.

A kind is a triple: matrices `(4, 20, 20)`, right-hand sides `(4, 20)`, and symmetric positive
definite matrices that are roughly inverse to the first (in size, where those are not definite).
"""

import numpy as np

BATCH, SIZE = 4, 20


def _rng(seed):
    return np.random.default_rng(seed)


def _symmetric(eigenvalues, seed, consistent=False):
    rng = _rng(seed)
    bases = np.linalg.qr(rng.normal(size=(BATCH, SIZE, SIZE)))[0]
    matrices = bases * eigenvalues @ bases.transpose(0, 2, 1)
    right = rng.normal(size=(BATCH, SIZE))
    if consistent:
        right = np.einsum("bij,bj->bi", matrices, right)
    size = np.where(eigenvalues == 0, 1.0, np.abs(eigenvalues))
    rough = size ** -rng.uniform(0.8, 1.0, size=SIZE)  # powers of the eigenvalues: not the inverse
    return matrices, right, bases * rough @ bases.transpose(0, 2, 1)


def _badly_scaled():
    """Unknowns in units that differ by a factor of up to six, and images by 10^24."""
    matrices, right, _ = _symmetric(np.linspace(0.2, 1.0, SIZE), 1)
    units = np.logspace(-0.8, 0.0, SIZE)
    matrices = units[:, None] * matrices * units
    diagonal = np.zeros_like(matrices)
    diagonal[:, range(SIZE), range(SIZE)] = 1 / np.diagonal(matrices, axis1=1, axis2=2)
    return matrices, right * np.logspace(-12, 12, BATCH)[:, None], diagonal


def _polar(matrices):
    """The inverse of the definite factor of the polar decomposition."""
    _, values, right = np.linalg.svd(matrices)
    return right.transpose(0, 2, 1) / values[:, None, :] @ right


def _contraction(factor):
    rng = _rng(2)
    jacobian = rng.normal(size=(BATCH, SIZE, SIZE))
    jacobian *= factor / np.linalg.norm(jacobian, 2, axis=(1, 2))[:, None, None]
    matrices = np.eye(SIZE) - jacobian
    return matrices, rng.normal(size=(BATCH, SIZE)), _polar(matrices)


def _general():
    """Not symmetric, and eigenvalues all around zero."""
    rng = _rng(3)
    matrices = rng.normal(size=(BATCH, SIZE, SIZE)) + 0.5 * np.eye(SIZE)
    return matrices, rng.normal(size=(BATCH, SIZE)), _polar(matrices)


def _with_a_zero_row(system):
    matrices, right, rough = system
    right = right.copy()
    right[1] = 0.0
    return matrices, right, rough


_POSITIVE, _SIGNED = np.linspace(0.05, 1.0, SIZE), np.linspace(-1.0, 0.95, SIZE)
KINDS = {
    "definite": _symmetric(_POSITIVE, 0),
    "badly_scaled": _badly_scaled(),
    "zero_right": _with_a_zero_row(_symmetric(_POSITIVE, 4)),
    "indefinite": _symmetric(_SIGNED, 5),
    "singular": _symmetric(np.where(np.arange(SIZE) < 3, 0.0, _POSITIVE), 6, consistent=True),
    "singular_indefinite": _symmetric(
        np.where(np.abs(_SIGNED) < 0.2, 0.0, _SIGNED), 7, consistent=True
    ),
    "contraction": _contraction(0.8),
    "general": _general(),
}

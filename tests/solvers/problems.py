"""Fixed-point problems with known solutions, shared by the tests of all solvers."""

from typing import NamedTuple

import numpy as np
import tensorflow as tf


class Problem(NamedTuple):
    """`f`, a start, the solution (or None where there is none to be found) and the modulus."""

    f: object
    z0: object
    solution: object
    modulus: object = None
    reference: object = None
    gradient: bool = False  # a gradient step with step 1 / L on a convex energy


def _linear(matrix, b):
    matrix, b = tf.constant(matrix), tf.constant(b)
    solution = np.linalg.solve(np.eye(b.shape[1]) - matrix.numpy(), b.numpy().T).T
    return lambda z: tf.linalg.matvec(matrix, z) + b, solution


def symmetric_linear(low=0.0, high=0.95, size=12):
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix = q @ np.diag(np.linspace(low, high, size)) @ q.T
    f, solution = _linear(matrix, rng.normal(size=(3, size)))
    return Problem(f, tf.zeros((3, size), tf.float64), solution, 1 - high, gradient=True)


def nonsymmetric_linear(size=12):
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(size, size))
    matrix *= 0.9 / np.linalg.norm(matrix, 2)
    f, solution = _linear(matrix, rng.normal(size=(3, size)))
    return Problem(f, tf.zeros((3, size), tf.float64), solution)


def badly_scaled():
    """Rows of norm 1e-6, 1 and 1e6: a residual must be relative, and so must a ridge."""
    problem = symmetric_linear()
    scale = np.array([1e-6, 1.0, 1e6])[:, None]
    matrix_part = lambda z: problem.f(z / scale) * scale  # noqa: E731
    return problem._replace(f=matrix_part, solution=problem.solution * scale)


def nonlinear():
    """u + A^T tanh(A u) = y, the gradient of a strongly convex energy; solved by Newton."""
    rng = np.random.default_rng(2)
    a, y = rng.normal(size=(8, 10)), rng.normal(size=(3, 10))
    lipschitz = 1 + np.linalg.norm(a, 2) ** 2

    def gradient(u):
        return u - y + np.tanh(u @ a.T) @ a

    u = y.copy()
    for _ in range(100):
        slope = 1 - np.tanh(u @ a.T) ** 2
        hessian = np.eye(10) + np.einsum("ki,bk,kj->bij", a, slope, a)
        newton = np.linalg.solve(hessian, gradient(u)[..., None])[..., 0]
        size = 1.0
        while (
            np.linalg.norm(gradient(u - size * newton)) > np.linalg.norm(gradient(u))
            and size > 1e-9
        ):
            size /= 2
        u = u - size * newton
    a_t, y_t = tf.constant(a), tf.constant(y)

    def f(u):
        g = u - y_t + tf.linalg.matmul(tf.tanh(tf.linalg.matmul(u, a_t, transpose_b=True)), a_t)
        return u - g / lipschitz

    reference = tf.norm(y_t, axis=1) / lipschitz
    return Problem(f, y_t, u, 1 / lipschitz, reference, gradient=True)


def zero_right_side():
    problem = symmetric_linear()
    zero = tf.zeros_like(problem.z0)
    f0 = problem.f(zero)
    return problem._replace(f=lambda z: problem.f(z) - f0, z0=zero + 1.0, solution=zero.numpy())


def already_solved():
    problem = symmetric_linear()
    return problem._replace(z0=tf.constant(problem.solution))


def some_solved():
    """One image starts at its solution, one far away."""
    problem = symmetric_linear()
    start = problem.solution.copy()
    start[1] += 100.0
    return problem._replace(z0=tf.constant(start))


CONTRACTIONS = {
    "symmetric": symmetric_linear,
    "nonsymmetric": nonsymmetric_linear,
    "badly_scaled": badly_scaled,
    "nonlinear": nonlinear,
    "zero_right_side": zero_right_side,
    "already_solved": already_solved,
    "some_solved": some_solved,
}

"""Fixed-point problems with known solutions, shared by the tests of all solvers.

A problem is a function of its data, tensors with a row per image, so that one graph serves all the
problems of a kind and rows can be taken, permuted and repeated.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from deq_keras import solvers
from deq_keras.numerics import Partial
from deq_keras.solvers import Step


class Problem(NamedTuple):
    """A map of known solution, as `build(*data)`."""

    build: Callable  # from the data to a `deq_keras.solvers.Problem`
    data: tuple  # tensors with a row per image
    z0: Any
    solution: Any  # array, or None where there are several or none
    convex: bool = False  # a step of length <= 1 / L on a smooth convex energy

    def known(self):
        """What a solver is told of it."""
        return _shown(self.build, self.data)

    @property
    def f(self):
        """The map alone."""
        return self.known().f

    def cast(self, dtype):
        """The same problem in another precision."""
        return self._replace(
            data=tuple(tf.cast(part, dtype) for part in self.data), z0=tf.cast(self.z0, dtype)
        )

    def scaled(self, scale):
        """The same quadratic problem in other units, `(batch, 1)` or a number."""
        matrix, b, modulus, size = self.data
        scale = np.broadcast_to(scale, (b.shape[0], 1))
        data = (matrix, b * scale, modulus, size * scale[:, 0])
        return self._replace(data=data, solution=self.solution * scale)

    def take(self, index):
        """The problem of these rows."""
        rows = [tf.gather(part, index) for part in (*self.data, self.z0)]
        solution = None if self.solution is None else self.solution[np.asarray(index)]
        return self._replace(data=tuple(rows[:-1]), z0=rows[-1], solution=solution)


def _shown(build, data):
    """The problem with its data in the open."""
    problem, count = build(*data), len(data)

    def show(pick):
        if pick(problem) is None:
            return None

        def function(*arguments):
            return pick(build(*arguments[-count:]))(*arguments[:-count])

        return Partial(function, (), tuple(data))

    step = problem.step
    if step is not None:
        step = step._replace(
            energy=show(lambda p: p.step.energy),
            gradient=show(lambda p: p.step.gradient),
            proximal=show(lambda p: p.step.proximal),
        )
    return problem._replace(f=show(lambda p: p.f), step=step)


@functools.cache
def _graph(solver, build):
    @tf.function(autograph=False)
    def run(z0, data, tolerance, max_steps):
        problem = _shown(build, data)
        limited = solver.within(tolerance, max_steps)
        return limited.solve(problem, z0, return_history=True)

    return run


def solve(solver, problem, tolerance=None, max_steps=None):
    """`solver.solve` with a history, in a graph, traced once for a kind of problem and a precision.

    Limits are tensors of the graph; `None` is that of the solver.
    """

    def spec(part):
        return tf.TensorSpec([None, *part.shape[1:]], part.dtype)

    concrete = _graph(solver, problem.build).get_concrete_function(
        spec(problem.z0),
        tuple(spec(part) for part in problem.data),
        tf.TensorSpec([], tf.float64),
        tf.TensorSpec([], tf.int32),
    )
    tolerance = solver.tolerance if tolerance is None else tolerance
    max_steps = solver.max_steps if max_steps is None else max_steps
    limits = tf.constant(tolerance, tf.float64), tf.constant(max_steps)
    return concrete(problem.z0, *problem.data, *limits)


# Kinds of problems: functions of data.


def linear(matrix, b):
    """`f(z) = M z + b`, of which nothing is known."""
    return solvers.Problem(lambda z: tf.linalg.matvec(matrix, z) + b)


def quadratic(matrix, b, modulus, scale):
    """The same for a symmetric `M`: a step of length 1 on `z^T (I - M) z / 2 - b^T z`."""

    def energy(z):
        return tf.reduce_sum(0.5 * z * (z - tf.linalg.matvec(matrix, z)) - b * z, axis=-1)

    return linear(matrix, b)._replace(scale=scale, strong_convexity=modulus, step=Step(energy, 1.0))


def diagonal(factors, target):
    """`quadratic` for a diagonal `M`: rows are computed alike, to the last bit, in any batch."""

    def energy(z):
        return 0.5 * tf.reduce_sum((1.0 - factors) * (z - target) ** 2, axis=-1)

    modulus = 1.0 - tf.reduce_max(factors, axis=-1)
    f = lambda z: target + factors * (z - target)  # noqa: E731
    step = Step(energy, tf.ones_like(modulus))
    return solvers.Problem(f, strong_convexity=modulus, step=step)


_A = np.random.default_rng(2).normal(size=(8, 10))
_LIPSCHITZ = 1 + np.linalg.norm(_A, 2) ** 2


def log_cosh(y):
    """A step on `||u - y||^2 / 2 + sum_j log cosh (A u)_j`, with its exact gradient."""
    a = tf.constant(_A, y.dtype)

    def gradient(u):
        return u - y + tf.linalg.matmul(tf.tanh(tf.linalg.matmul(u, a, transpose_b=True)), a)

    def energy(u):
        size = tf.abs(tf.linalg.matmul(u, a, transpose_b=True))
        log_cosh = size + tf.math.log1p(tf.exp(-2.0 * size)) - np.log(2.0)
        return 0.5 * tf.reduce_sum((u - y) ** 2, axis=-1) + tf.reduce_sum(log_cosh, axis=-1)

    return solvers.Problem(
        lambda u: u - gradient(u) / _LIPSCHITZ,
        scale=tf.norm(y, axis=1) / _LIPSCHITZ,
        strong_convexity=1 / _LIPSCHITZ,
        step=Step(energy, 1 / _LIPSCHITZ, gradient),
    )


_Q = np.linalg.qr(np.random.default_rng(4).normal(size=(6, 6)))[0]


def wells(scale):
    """`sum_i ((Q u)_i^2 - 1)^2 / 4` for an orthogonal `Q`: critical where `(Q u)_i` is -1, 0 or 1.

    Its curvature `3 (Q u)_i^2 - 1` is negative around the local maxima.
    """
    q = tf.constant(_Q, scale.dtype)

    def gradient(u):
        v = tf.linalg.matmul(u, q, transpose_b=True)
        return tf.linalg.matmul(v * (v**2 - 1.0), q)

    def energy(u):
        v = tf.linalg.matmul(u, q, transpose_b=True)
        return 0.25 * tf.reduce_sum((v**2 - 1.0) ** 2, axis=-1)

    return solvers.Problem(lambda u: u - 0.25 * gradient(u), scale=scale, step=Step(energy, 0.25))


def composite(hessian, b, weight, lower, upper):
    """A proximal step on `u^T H u / 2 - b^T u + weight ||u||_1` with `lower <= u <= upper`."""

    def gradient(u):
        return tf.linalg.matvec(hessian, u) - b

    def energy(u):
        smooth = tf.reduce_sum(u * (0.5 * tf.linalg.matvec(hessian, u) - b), axis=-1)
        return smooth + weight * tf.reduce_sum(tf.abs(u), axis=-1)

    def proximal(u, step):
        shrunk = tf.sign(u) * tf.maximum(tf.abs(u) - (step * weight)[:, None], 0.0)
        return tf.clip_by_value(shrunk, lower[:, None], upper[:, None])

    length = tf.ones_like(b[:, 0])
    return solvers.Problem(
        lambda u: proximal(u - gradient(u), length), step=Step(energy, 1.0, gradient, proximal)
    )


# Problems.


def _repeat(matrix, count=3):
    return tf.constant(np.repeat(matrix[None], count, axis=0))


def symmetric_linear(low=0.0, high=0.95, size=12):
    rng = np.random.default_rng(0)
    q, _ = np.linalg.qr(rng.normal(size=(size, size)))
    matrix = q @ np.diag(np.linspace(low, high, size)) @ q.T
    b = rng.normal(size=(3, size))
    solution = np.linalg.solve(np.eye(size) - matrix, b.T).T
    modulus = tf.fill((3,), tf.constant(1 - high, tf.float64))
    data = (_repeat(matrix), tf.constant(b), modulus, tf.constant(np.linalg.norm(b, axis=1)))
    return Problem(quadratic, data, tf.zeros((3, size), tf.float64), solution, convex=True)


def nonsymmetric_linear(size=12):
    rng = np.random.default_rng(1)
    matrix = rng.normal(size=(size, size))
    matrix *= 0.9 / np.linalg.norm(matrix, 2)
    b = rng.normal(size=(3, size))
    solution = np.linalg.solve(np.eye(size) - matrix, b.T).T
    data = (_repeat(matrix), tf.constant(b))
    return Problem(linear, data, tf.zeros((3, size), tf.float64), solution)


def badly_scaled():
    """Rows of norm 1e-6, 1 and 1e6: a residual must be relative, and so must a ridge."""
    problem = symmetric_linear()
    scale = np.array([1e-6, 1.0, 1e6])[:, None]
    return problem.scaled(scale)


def nonlinear():
    """A strongly convex energy, solved by Newton's method."""
    y = np.random.default_rng(6).normal(size=(3, 10))
    u = np.zeros_like(y)
    for _ in range(100):
        slope = np.tanh(u @ _A.T)
        gradient = u - y + slope @ _A
        hessian = np.eye(10) + np.einsum("ki,bk,kj->bij", _A, 1 - slope**2, _A)
        newton = np.linalg.solve(hessian, gradient[..., None])[..., 0]
        u = u - newton / (1 + np.linalg.norm(newton))  # damped: log cosh is nearly flat far away
    newton_decrement = np.linalg.norm(u - y + np.tanh(u @ _A.T) @ _A)
    assert newton_decrement < 1e-12, newton_decrement
    return Problem(log_cosh, (tf.constant(y),), tf.constant(y), u, convex=True)


def double_wells():
    """Starts where the energy is not convex in some direction, and near no critical point."""
    v = np.random.default_rng(7).uniform(0.2, 0.5, size=(3, 6))
    v[:, ::2] *= -2.2
    scale = tf.ones((3,), tf.float64)
    return Problem(wells, (scale,), tf.constant(v @ _Q), None)


def zero_right_side():
    problem = symmetric_linear()
    matrix, b, modulus, scale = problem.data
    # What the residual is relative to must come from elsewhere: 1.
    return problem._replace(
        data=(matrix, 0 * b, modulus, scale**0), z0=problem.z0 + 1.0, solution=np.zeros(b.shape)
    )


def already_solved():
    problem = symmetric_linear()
    return problem._replace(z0=tf.constant(problem.solution))


def some_solved():
    """One image starts at its solution, one far away."""
    problem = symmetric_linear()
    start = problem.solution.copy()
    start[1] += 100.0
    return problem._replace(z0=tf.constant(start))


def _hessian(size):
    rng = np.random.default_rng(8)
    q, _ = np.linalg.qr(rng.normal(size=(size, size)))
    return q @ np.diag(np.linspace(0.1, 1.0, size)) @ q.T, rng.normal(size=(3, size))


def _composite_problem(weight, bounds, b_scale, candidates, subgradient):
    """All ways in which coordinates may be free or held are tried, for the one that is optimal.

    `candidates` are the pairs of a value at which a coordinate is held, or None, and the term that
    is then added to the gradient; `subgradient(u, gradient)` says whether the result is optimal.
    """
    size = 5
    hessian, b = _hessian(size)
    b = b * b_scale
    solution = np.full(b.shape, np.nan)
    for row, held in itertools.product(range(3), itertools.product(candidates, repeat=size)):
        free = np.array([value is None for value, _ in held])
        u = np.array([0.0 if value is None else value for value, _ in held])
        shift = np.array([shift for _, shift in held])
        if free.any():
            right = (b[row] - shift - hessian @ u)[free]
            u[free] = np.linalg.solve(hessian[np.ix_(free, free)], right)
        if subgradient(u, hessian @ u - b[row]):
            solution[row] = u
    assert np.isfinite(solution).all()
    numbers = (tf.fill((3,), tf.constant(number, tf.float64)) for number in (weight, *bounds))
    data = (_repeat(hessian), tf.constant(b), *numbers)
    return Problem(composite, data, tf.zeros((3, size), tf.float64), solution)


def sparse():
    """With `||u||_1` and no bounds."""
    bounds = (-np.inf, np.inf)

    def optimal(u, g):
        return np.where(u == 0, np.abs(g) <= 1, np.abs(g + np.sign(u)) < 1e-9).all()

    return _composite_problem(1.0, bounds, 2.0, [(0.0, 0.0), (None, 1.0), (None, -1.0)], optimal)


def constrained():
    """With `0 <= u <= 1`."""
    bounds = (0.0, 1.0)

    def optimal(u, g):
        inside = ((u >= 0) & (u <= 1)).all()
        held = np.where(u == 0, g >= 0, np.where(u == 1, g <= 0, np.abs(g) < 1e-9))
        return inside and held.all()

    return _composite_problem(0.0, bounds, 1.0, [(0.0, 0.0), (1.0, 0.0), (None, 0.0)], optimal)


def rows_of_different_difficulty():
    """Contraction factors from 0.1 to 0.99; the second row starts at its solution."""
    factors = np.array([0.9, 0.5, 0.1, 0.99, 0.6, 0.3])[:, None] * np.linspace(0.2, 1.0, 7)
    target = np.random.default_rng(3).normal(size=(6, 7))
    start = np.zeros_like(target)
    start[1] = target[1]
    return Problem(
        diagonal,
        (tf.constant(factors), tf.constant(target)),
        tf.constant(start),
        target,
        convex=True,
    )


SMOOTH = {
    "symmetric": symmetric_linear,
    "badly_scaled": badly_scaled,
    "strongly_convex": nonlinear,
    "zero_right_side": zero_right_side,
    "already_solved": already_solved,
    "some_solved": some_solved,
}
COMPOSITE = {"lasso": sparse, "box": constrained}
OTHER = {"nonsymmetric": nonsymmetric_linear}

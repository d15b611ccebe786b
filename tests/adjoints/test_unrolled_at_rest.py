"""Unrolling past convergence: steps that are made of rounding errors are not differentiated."""

import functools

import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from deq_keras import adjoints, solvers

_RNG = np.random.default_rng(0)
SIZE = 60
BASIS = np.linalg.qr(_RNG.normal(size=(SIZE, SIZE)))[0]
HESSIAN = BASIS * np.geomspace(0.2, 0.7, SIZE) @ BASIS.T
HARD = BASIS * np.geomspace(0.018, 0.9, SIZE) @ BASIS.T
MEASUREMENT, COTANGENT = _RNG.normal(size=(2, 2, SIZE))


def _gradients(solver, adjoint, dtype, count=2, hessian=HESSIAN):
    """Output and derivatives of steps along a known gradient, of the first `count` rows."""
    hessian, y = tf.constant(hessian, dtype), tf.constant(MEASUREMENT[:count], dtype)
    with tf.GradientTape() as tape:
        tape.watch((y, hessian))

        def gradient(z):
            return z @ hessian + 0.03 * tf.tanh(10.0 * z) - y

        def energy(z):
            t = 10.0 * tf.abs(z)  # and log(cosh(t)), which does not overflow
            smooth = 0.003 * (t + tf.math.softplus(-2.0 * t) - np.log(2.0))
            return tf.reduce_sum(z * (0.5 * z @ hessian - y) + smooth, axis=1)

        step = solvers.Step(energy, 1.0, gradient)
        problem = solvers.Problem(lambda z: z - gradient(z), tf.zeros_like(y), step=step)
        output, solution = adjoint.solve(problem, solver)
        loss = tf.reduce_sum(output * tf.constant(COTANGENT[:count], dtype))
    return output, tape.gradient(loss, [y, hessian]), solution


def _exact(hessian):
    """The same of the solution, by Newton's method and the implicit function theorem."""
    outputs, adjoint_solutions = [], []
    for y, cotangent in zip(MEASUREMENT, COTANGENT, strict=True):

        def gradient(z, y=y):
            return z @ hessian + 0.03 * np.tanh(10.0 * z) - y

        def jacobian(z):
            return hessian + np.diag(0.3 * (1.0 - np.tanh(10.0 * z) ** 2))

        z = scipy.optimize.root(gradient, np.zeros(SIZE), jac=jacobian, tol=1e-14).x
        assert np.abs(gradient(z)).max() < 1e-13
        outputs.append(z)
        adjoint_solutions.append(np.linalg.solve(jacobian(z), cotangent))
    z, w = np.stack(outputs), np.stack(adjoint_solutions)
    return z, [w, -z.T @ w]


@pytest.fixture(scope="module")
def exact():
    return _exact(HESSIAN)


def _error(found, expected):
    return float(tf.norm(tf.cast(found, "float64") - expected) / tf.norm(expected))


SOLVERS = {
    "anderson": solvers.Anderson(),
    "classical": solvers.Anderson(period=1),
    "broyden": solvers.Broyden(),
}


@functools.cache
def _in_single_precision(name):
    return _gradients(SOLVERS[name], adjoints.Unrolled(80), "float32")


@pytest.mark.parametrize("name", SOLVERS)
def test_single_precision_is_as_right_as_its_output(name, exact):
    output, gradients, solution = _in_single_precision(name)
    assert _error(output, exact[0]) < 1e-4
    for found, expected in zip(gradients, exact[1], strict=True):
        assert _error(found, expected) < 5e-3  # of all 80 steps: 20 and more, or NaN
    assert (solution.steps.numpy() < 40).all()


def test_double_precision_goes_on(exact):
    _, gradients, _ = _gradients(solvers.Anderson(), adjoints.Unrolled(25), "float64")
    for found, expected in zip(gradients, exact[1], strict=True):
        assert _error(found, expected) < 1e-6


def test_an_image_does_not_stop_for_its_companions():
    _, (both, _), _ = _in_single_precision("anderson")
    unrolled = adjoints.Unrolled(80)
    _, (alone, _), solution = _gradients(SOLVERS["anderson"], unrolled, "float32", count=1)
    np.testing.assert_allclose(both[:1], alone, rtol=1e-3, atol=1e-4)
    assert solution.steps.shape == (1,)


def test_steps_that_do_not_adapt_are_all_taken():
    """Starting at the solution, the derivative is that of the steps, as of any other start."""
    y = tf.ones((1, 2))
    with tf.GradientTape() as tape:
        tape.watch(y)
        problem = solvers.Problem(lambda z: 0.5 * z + y, 2.0 * tf.ones_like(y))
        output, solution = adjoints.Unrolled(20).solve(problem, solvers.Picard())
    np.testing.assert_allclose(tape.gradient(output, y), 2.0 * y, rtol=1e-5)
    assert solution.steps.numpy().tolist() == [19]


@pytest.fixture(scope="module")
def exact_of_hard_one():
    return _exact(HARD)


# The largest errors in single and in double precision. Broyden's and L-BFGS's estimates of an
# inverse are good along their own steps alone, which the held derivatives do not follow.
HELD = {
    "anderson": (solvers.Anderson(), 1e-2, 1e-5),
    "classical": (solvers.Anderson(period=1), 1e-2, 1e-3),
    "published": (solvers.PlainAnderson(), 5e-2, 5e-2),
    "broyden": (solvers.Broyden(), 0.4, 0.3),
    "lbfgs": (solvers.LBFGS(), 0.1, 1e-2),
    "nonmonotone_apg": (solvers.NonmonotoneAPG(), 2e-2, 1e-3),
}


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", HELD)
def test_gradients_with_held_coefficients(name, dtype, exact_of_hard_one):
    """At condition 50, where exact derivatives of most steps are wrong by 9e-2 to 130."""
    solver, *limits = HELD[name]
    limit = limits[dtype == "float64"]
    unrolled = adjoints.Unrolled(80, hold_coefficients=True)
    output, gradients, _ = _gradients(solver, unrolled, dtype, hessian=HARD)
    assert _error(output, exact_of_hard_one[0]) < 4e-3
    for found, exact in zip(gradients, exact_of_hard_one[1], strict=True):
        assert _error(found, exact) < limit


def test_what_is_held_changes_derivatives_alone(exact_of_hard_one):
    for solver in (solvers.Anderson(period=1), solvers.Nesterov()):
        found = []
        for hold in (False, True):
            unrolled = adjoints.Unrolled(8, hold_coefficients=hold)
            found.append(_gradients(solver, unrolled, "float64", hessian=HARD))
        (one, gradients, _), (same, others, _) = found
        np.testing.assert_array_equal(one, same)
        apart = [_error(a, b) for a, b in zip(gradients, others, strict=True)]
        if isinstance(solver, solvers.Nesterov):  # none of its coefficients is computed
            assert max(apart) < 1e-12
        else:
            assert min(apart) > 1e-2

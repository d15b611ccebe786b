"""Limits of a solve: a tolerance and a number of steps for each image."""

from itertools import product

import numpy as np
import pytest
import tensorflow as tf

from deq_keras.numerics import Partial
from deq_keras.solvers import Anderson, Picard, Problem
from tests.variants import covering

RATES = tf.constant([[0.3], [0.6], [0.8], [0.9]], tf.float64)


def problem():
    f = Partial(lambda z, rate: rate * z + 1.0, rows=(RATES,))
    return Problem(f, tf.zeros((4, 2), tf.float64))


def alone(number, solver):
    return solver.solve(problem().take([number]))


@pytest.mark.parametrize(("graph", "compact"), covering(product([False, True], [False, True])))
def test_every_image_has_its_own_limits(compact, graph):
    """The answer for each is that of a solver that has these numbers as its own."""
    tolerances, steps = [1e-2, 1e-8, 1e-4, 1e-8], [50, 7, 60, 1]
    limited = Picard(compact=compact).within(tf.constant(tolerances), tf.constant(steps))

    def solve():
        return limited.solve(problem())

    solution = tf.function(solve, autograph=False)() if graph else solve()
    for number, (tolerance, count) in enumerate(zip(tolerances, steps, strict=True)):
        expected = alone(number, Picard(tolerance=tolerance, max_steps=count))
        assert int(solution.steps[number]) == int(expected.steps[0])
        assert bool(solution.converged[number]) == bool(expected.converged[0])
        np.testing.assert_array_equal(solution.value[number], expected.value[0])
    assert solution.converged.numpy().tolist() == [True, False, True, False]
    assert int(solution.steps[1]) == 7
    assert int(solution.steps[3]) == 1


def test_the_solver_itself_keeps_its_limits():
    solver = Anderson(tolerance=1e-6, max_steps=90)
    solver.within(tf.constant(0.5), tf.constant(3))
    assert (solver.tolerance, solver.max_steps) == (1e-6, 90)
    assert solver.within().get_config() == solver.get_config()


def test_a_tolerance_below_rounding_is_raised_to_it():
    single = Problem(lambda z: 0.5 * z + 1.0, tf.zeros((1, 3)))
    solution = Picard().within(tolerance=tf.constant([0.0])).solve(single)
    assert bool(solution.converged[0])
    assert int(solution.steps[0]) < 60

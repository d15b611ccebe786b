"""Anderson acceleration with the preconditioner of the problem."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import layers, operators, priors, solvers
from deq_keras.numerics import Partial
from deq_keras.problems import Preconditioner

SIZE = 40


def matrices(count=2):
    """`I - J`: diagonals from 1 to 1000 and a skew part."""
    rng = np.random.default_rng(0)
    skew = rng.normal(size=(count, SIZE, SIZE))
    return np.stack([np.diag(row) for row in 10.0 ** rng.uniform(0, 3, (count, SIZE))]) + 0.2 * (
        skew - skew.transpose(0, 2, 1)
    )


def linear(matrix, guess=None, hidden=False):
    """The map with the fixed point `z = 1` and `I - J = matrix / 1000`; `1 / guess` as inverse."""
    matrix = tf.convert_to_tensor(matrix / 1000.0)

    def f(z, matrix):
        return z - tf.linalg.matvec(matrix, z - 1.0)

    preconditioner = None
    if guess is not None:
        prepare = Partial(lambda z, guess: (guess,), (), (tf.convert_to_tensor(guess / 1000.0),))
        preconditioner = Preconditioner(
            (lambda z: prepare(z)) if hidden else prepare, lambda w, size: w / size
        )
    start = tf.zeros(tf.shape(matrix)[:2], tf.float64)
    return solvers.Problem(Partial(f, (), (matrix,)), start, preconditioner=preconditioner)


def diagonal(matrix):
    return np.diagonal(matrix, axis1=1, axis2=2).copy()


def dear(matrix, guess):
    """With a preconditioner that is not cheap."""
    problem = linear(matrix, guess)
    return problem._replace(preconditioner=problem.preconditioner._replace(is_cheap=False))


def hidden(matrix, guess):
    return linear(matrix, guess, hidden=True)


@functools.cache
def _graph(build, count, options):
    solver = solvers.Anderson(tolerance=1e-9, max_steps=4000, **dict(options))
    specs = [tf.TensorSpec([None, SIZE, SIZE], tf.float64), tf.TensorSpec([None, SIZE], tf.float64)]
    return tf.function(
        lambda *data: solver.solve(build(*data)), input_signature=specs[:count], autograph=False
    )


def solve(build, *data, **options):
    """The solution of `build(*data)`, in a graph that is traced once."""
    data = [tf.constant(part) for part in data]
    return _graph(build, len(data), tuple(options.items()))(*data)


def steps(build, *data, **options):
    found = solve(build, *data, **options)
    assert found.converged.numpy().all()
    np.testing.assert_allclose(found.value, tf.ones_like(found.value), atol=1e-5)
    return found.steps.numpy()


def test_the_exact_inverse_takes_one_step():
    matrix = np.stack([np.diag(np.diag(one)) for one in matrices()])
    assert (steps(linear, matrix, diagonal(matrix)) == 2).all()


def test_a_near_inverse_saves_three_quarters_of_the_steps():
    matrix = matrices()
    with_it = steps(linear, matrix, diagonal(matrix))
    without = steps(linear, matrix, diagonal(matrix), precondition=False)
    np.testing.assert_array_equal(without, steps(linear, matrix))
    assert (4 * with_it <= without).all()


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_its_scale_does_not_matter(factor):
    """Too large an inverse is damped; too small a one is made up for by the extrapolation."""
    matrix = matrices()
    right = steps(linear, matrix, diagonal(matrix))
    other = steps(linear, matrix, factor * diagonal(matrix))
    assert (other <= 2 * right).all()


def test_a_bad_one_is_given_up_by_each_image_for_itself():
    matrix = matrices()
    guess = diagonal(matrix)
    guess[0] = 1e6 / guess[0]  # the inverse of what is wanted
    with_it = steps(linear, matrix, guess)
    without = steps(linear, matrix)
    assert with_it[0] <= without[0] + 64
    assert with_it[1] == steps(linear, matrix, diagonal(matrix))[1]


@pytest.mark.parametrize("compact", [False, True])
def test_an_image_does_not_depend_on_its_companions(compact):
    matrix = matrices(3)
    noise = np.random.default_rng(2).normal(0, 1.0, (3, SIZE)) * [[0.1], [0.5], [1.0]]
    guess = diagonal(matrix) * np.exp(noise)
    together = solve(linear, matrix, guess, compact=compact)
    for k in range(3):
        alone = solve(linear, matrix[k : k + 1], guess[k : k + 1], compact=compact)
        assert int(alone.steps[0]) == int(together.steps[k])
        np.testing.assert_allclose(alone.value[0], together.value[k], rtol=1e-9)


def test_it_is_computed_anew_after_eight_evaluations_and_twice_as_many():
    matrix, calls = matrices(), []
    guess = diagonal(matrix) / 1000.0

    def prepare(z):
        calls.append(np.array(z))
        return (guess,)

    preconditioner = Preconditioner(prepare, lambda w, size: w / size)
    problem = linear(matrix)._replace(preconditioner=preconditioner)
    solvers.Anderson(tolerance=1e-12).solve(problem, max_steps=20)
    assert len(calls) == 3  # at the start, and with the evaluations 8 and 16
    assert not np.allclose(calls[0], calls[1])


def test_compaction_asks_for_rows():
    matrix = matrices()
    problem = hidden(matrix, diagonal(matrix))
    with pytest.raises(ValueError, match="Anderson.* expected a preconditioner whose rows"):
        solvers.Anderson(compact=True).solve(problem)
    without = solvers.Anderson(compact=True, precondition=False)
    assert without.solve(problem, max_steps=3).steps.numpy().tolist() == [3, 3]


def test_option():
    assert solvers.Anderson().precondition == "auto"
    with pytest.raises(ValueError, match="'auto', True or False. Received precondition='always'"):
        solvers.Anderson(precondition="always")
    again = solvers.Anderson.from_config(solvers.Anderson(precondition=False).get_config())
    assert again.precondition is False
    matrix = matrices()
    data = matrix, diagonal(matrix)
    np.testing.assert_array_equal(steps(dear, *data), steps(linear, matrix))
    np.testing.assert_array_equal(steps(dear, *data, precondition=True), steps(linear, *data))


def test_unrolled_steps_are_those_of_the_solve():
    matrix = matrices()
    problem = linear(matrix, diagonal(matrix))
    solver = solvers.Anderson(tolerance=1e-12)
    unrolled, solved = solver.unroll(problem, 6), solver.solve(problem, max_steps=6)
    np.testing.assert_allclose(unrolled.residual, solved.residual, rtol=1e-6)


def test_untied_experts_take_six_tenths_of_the_evaluations():
    rows, columns = np.mgrid[:32, :32] / 32.0
    image = np.where(rows + 0.5 * columns > 0.7, 0.8, 0.2) + 0.1 * np.sin(6 * rows)
    rng = np.random.default_rng(0)
    y = np.stack([image, image.T])[..., None] + 0.1 * rng.normal(size=(2, 32, 32, 1))
    prior = priors.UntiedFieldsOfExperts(12, 5, sharpness=1000.0, dtype="float64")
    cell = layers.GradientStep(operators.Identity(dtype="float64"), prior, 0.1, dtype="float64")
    layer = layers.Equilibrium(cell, dtype="float64")
    layer.build(y.shape)
    prior.synthesis.assign(prior.synthesis * (1 + 0.3 * rng.normal(size=prior.synthesis.shape)))
    found = []
    for precondition in (True, False):
        layer.solver = solvers.Anderson(tolerance=1e-6, precondition=precondition)
        found.append(layer.solve(y))
        assert found[-1].converged.numpy().all()
    np.testing.assert_allclose(found[0].value, found[1].value, atol=1e-4)
    assert np.mean(found[0].steps) <= 0.6 * np.mean(found[1].steps)

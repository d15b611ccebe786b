"""The record of a problem: it can be frozen, cut to some rows, and seen as one batch."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import layers, operators, priors, problems, solvers
from deq_keras.numerics import Partial
from deq_keras.numerics.rows import to_rows

DTYPE = "float64"
IMAGES = tf.constant(np.random.default_rng(0).uniform(size=(3, 6, 5, 1)))
MASKS = tf.constant(0.2 + 0.8 * np.random.default_rng(1).uniform(size=(3, 6, 5, 1)))


def _cell(cls=priors.FieldsOfExperts):
    prior = cls(3, 3, sharpness=4.0, padding="zero", dtype=DTYPE)
    cell = layers.GradientStep(operators.Mask(dtype=DTYPE), prior, dtype=DTYPE)
    cell.build(IMAGES.shape, [IMAGES.shape, MASKS.shape])
    return cell


def _functions(problem):
    """All that a solver or an adjoint evaluates, by name, as functions of images."""
    step = problem.step
    return {
        "f": problem.f,
        "gradient": step.gradient,
        **({} if step.energy is None else {"energy": step.energy}),
        **(
            {}
            if problem.preconditioner is None
            else {"preconditioned": lambda z: problem.preconditioner(z)(z)}
        ),
    }


@pytest.mark.parametrize("cls", [priors.FieldsOfExperts, priors.UntiedFieldsOfExperts])
def test_a_frozen_problem_has_the_same_values_and_no_gradients(cls):
    cell, z = _cell(cls), IMAGES + 0.1
    weights = [w.value for w in cell.trainable_weights]
    with tf.GradientTape(persistent=True) as tape:
        tape.watch((IMAGES, MASKS))
        problem = cell.bind((IMAGES, MASKS))
        frozen = problem.frozen()
        values = {name: f(z) for name, f in _functions(problem).items()}
        same = {name: f(z) for name, f in _functions(frozen).items()}
        same["scale"], values["scale"] = frozen.scale, problem.scale
        same["length"], values["length"] = frozen.step.length, problem.step.length
    sources = [IMAGES, MASKS, *weights]
    for name, value in values.items():
        np.testing.assert_array_equal(value, same[name], err_msg=name)
        assert any(g is not None for g in tape.gradient(value, sources)), name
        assert all(g is None for g in tape.gradient(same[name], sources)), name


@pytest.mark.parametrize("cls", [priors.FieldsOfExperts, priors.UntiedFieldsOfExperts])
def test_rows_of_a_problem_are_the_problem_of_these_rows(cls):
    cell, index = _cell(cls), [2, 0]
    y, masks, z = (tf.gather(x, index) for x in (IMAGES, MASKS, IMAGES + 0.1))
    taken = cell.bind((IMAGES, MASKS)).take(tf.constant(index))
    alone = cell.bind((y, masks))
    for name in ("f", "gradient", "energy"):
        if name in _functions(alone):
            left, right = (_functions(p)[name](z) for p in (taken, alone))
            np.testing.assert_allclose(left, right, rtol=1e-12, err_msg=name)
    for name in ("initial_value", "scale"):
        np.testing.assert_allclose(getattr(taken, name), getattr(alone, name), rtol=1e-12)
    np.testing.assert_allclose(taken.step.length, alone.step.length, rtol=1e-12)


def test_what_is_one_for_all_images_stays_so():
    prior = priors.TotalVariation(0.1, dtype=DTYPE)
    cell = layers.GradientStep(operators.Identity(dtype=DTYPE), prior, dtype=DTYPE)
    cell.build(IMAGES.shape)
    taken = cell.bind(IMAGES).take(tf.constant([1]))
    assert taken.step.length.shape == taken.strong_convexity.shape == ()
    np.testing.assert_allclose(taken.f(IMAGES[1:2]), cell(IMAGES, IMAGES)[1:2], rtol=1e-12)


def test_a_function_that_hides_its_tensors_has_no_rows():
    assert not solvers.Problem(lambda z: z).can_take
    assert solvers.Problem(Partial(lambda z: z)).can_take
    hidden = solvers.Step(lambda z: z[:, 0], 1.0)
    assert not solvers.Problem(Partial(lambda z: z), step=hidden).can_take


def test_in_rows_is_the_same_problem_of_vectors():
    problem = _cell().bind((IMAGES, MASKS))
    flat, ravel, unravel = to_rows(IMAGES)
    rows = problem.in_rows(ravel, unravel)
    np.testing.assert_array_equal(rows.f(flat), ravel(problem.f(IMAGES)))
    np.testing.assert_array_equal(rows.step.gradient(flat), ravel(problem.step.gradient(IMAGES)))
    np.testing.assert_array_equal(rows.step.energy(flat), problem.step.energy(IMAGES))


def test_a_joined_batch_is_one_problem():
    """Images that depend on the mean of the batch: solved as one, it is solved."""

    def f(z, y):
        return y + 0.5 * tf.reduce_mean(z, axis=0, keepdims=True)

    recorded = []
    problem = problems.Problem(
        Partial(f, (), (IMAGES,)),
        tf.zeros_like(IMAGES),
        scale=tf.constant([1.0, 2.0, 2.0], DTYPE),
        strong_convexity=tf.constant([0.5, 0.4, 0.9], DTYPE),
        record=lambda z: recorded.append(z.shape) or f(z, IMAGES),
    )
    joined = problems.joined(problem)
    np.testing.assert_allclose(joined.scale, [3.0])
    assert float(joined.strong_convexity) == 0.4
    for compact in (False, True):
        solver = solvers.Anderson(tolerance=1e-12, compact=compact)
        solution = solver.solve(joined)
        assert solution.steps.shape == (1,)
        exact = IMAGES + tf.reduce_mean(IMAGES, axis=0, keepdims=True)
        np.testing.assert_allclose(problems.drop(solution.value), exact, atol=1e-11)
    assert joined.record(solution.value).shape == (1, *IMAGES.shape)
    assert recorded == [IMAGES.shape], "the cell sees images without the new axis"


def test_what_is_no_problem():
    with pytest.raises(TypeError, match="Expected a map"):
        problems.as_problem(3)
    with pytest.raises(ValueError, match="Expected an initial value"):
        solvers.Picard().solve(lambda z: z)

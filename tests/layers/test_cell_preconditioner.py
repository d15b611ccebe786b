"""The preconditioner of a gradient step: near the inverse of `I - df/dz`."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import layers, linear_solvers, operators, priors
from tests.variants import marked


def _linearised(cell, y, z):
    """`w -> (I - df/dz) w`, symmetric."""
    f = cell.bind(y).f
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(z)
        fz = f(z)
    return lambda w: w - tape.gradient(fz, z, w)


def _cell(operator, prior, y, **options):
    cell = layers.GradientStep(operator, prior, dtype="float64", **options)
    cell.build(y.shape if not isinstance(y, tuple) else y[0].shape, None)
    return cell


def _images(shape=(2, 12, 13, 1), seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(size=shape))


@pytest.mark.parametrize("step_size", [None, 0.1])
def test_is_the_inverse_where_that_is_a_convolution(step_size):
    y = _images()
    blur = operators.GaussianBlur(5, 1.0, dtype="float64")
    prior = priors.FieldsOfExperts(6, 3, "identity", 2.0, padding="circular", dtype="float64")
    cell = _cell(blur, prior, y, weight=0.3, step_size=step_size)
    z = tf.identity(y)
    apply, precondition = _linearised(cell, y, z), cell.bind(y).preconditioner(z)
    w = _images(seed=1)
    np.testing.assert_allclose(precondition(apply(w)), w, atol=1e-9)


@pytest.mark.parametrize(
    "task", marked(["deconvolution", "denoising", "inpainting"], ["deconvolution"])
)
def test_saves_a_third_of_the_steps(task):
    """On images with edges, filters that mirror the boundary and strongly curved potentials."""
    rows, columns = np.mgrid[:32, :32] / 32.0
    image = np.where(rows + 0.5 * columns > 0.7, 0.8, 0.2) + 0.1 * np.sin(6 * rows)
    truth = tf.constant(np.stack([image, image.T])[..., None])
    mask = operators.random_mask((32, 32), 0.5)
    operator = {
        "deconvolution": operators.GaussianBlur(5, 1.2, dtype="float64"),
        "denoising": operators.Identity(dtype="float64"),
        "inpainting": operators.Mask(mask, dtype="float64"),
    }[task]
    prior = priors.FieldsOfExperts(8, 3, sharpness=100.0, dtype="float64")
    weight = {"deconvolution": 0.02, "denoising": 0.2, "inpainting": 0.05}[task]
    cell = _cell(operator, prior, truth, weight=weight)
    y = tf.identity(operator(truth))  # not the tensor that is differentiated by
    apply = _linearised(cell, y, truth)
    b = tf.constant(np.random.default_rng(2).normal(size=truth.shape))
    solver = linear_solvers.ConjugateGradient(tolerance=1e-6)

    @tf.function(autograph=False)
    def solve(preconditioned):
        precondition = cell.bind(y).preconditioner(truth) if preconditioned else None
        return solver.solve(apply, b, precondition)

    plain, better = solve(False), solve(True)
    assert better.converged.numpy().all()
    np.testing.assert_allclose(better.value, plain.value, rtol=1e-3, atol=1e-3)
    assert (better.steps.numpy() <= plain.steps.numpy() * 2 / 3).all()


def test_masks_that_come_with_the_images():
    y = _images()
    masks = tf.constant(operators.random_mask(y.shape, 0.5), tf.float64)
    prior = priors.FieldsOfExperts(4, 3, dtype="float64")
    cell = layers.GradientStep(operators.Mask(dtype="float64"), prior, dtype="float64")
    cell.build(y.shape, [y.shape, masks.shape])
    both = cell.bind((y, masks)).preconditioner(y)(y)
    for i in range(2):
        one = y[i : i + 1]
        alone = cell.bind((one, masks[i : i + 1])).preconditioner(one)(one)
        np.testing.assert_allclose(alone[0], both[i], rtol=1e-9)


def test_of_an_untied_map_it_saves_a_third_as_well():
    y = tf.constant(
        np.where(np.arange(32) > 12, 0.8, 0.2)[None, :, None, None] * np.ones((2, 32, 32, 1))
    )
    y += 0.05 * tf.constant(np.random.default_rng(4).normal(size=y.shape))
    prior = priors.UntiedFieldsOfExperts(8, 3, sharpness=50.0, dtype="float64")
    cell = _cell(operators.Identity(dtype="float64"), prior, y, weight=0.5)
    weights = prior.synthesis.numpy()
    noise = weights.std() * np.random.default_rng(0).normal(size=weights.shape)
    prior.synthesis.assign(weights + 0.3 * noise)
    z = tf.identity(y)
    apply, precondition = _linearised(cell, y, z), cell.bind(y).preconditioner(z)
    b = tf.constant(np.random.default_rng(2).normal(size=y.shape))
    solver = linear_solvers.GMRES(tolerance=1e-6)
    plain, better = solver.solve(apply, b), solver.solve(apply, b, precondition)
    assert better.converged.numpy().all()
    assert (better.steps.numpy() <= plain.steps.numpy() * 2 / 3).all()


def test_rows_can_be_taken():
    y = _images((3, 12, 13, 1))
    masks = tf.constant(operators.random_mask(y.shape, 0.5), tf.float64)
    prior = priors.FieldsOfExperts(4, 3, dtype="float64")
    cell = layers.GradientStep(operators.Mask(dtype="float64"), prior, dtype="float64")
    cell.build(y.shape, [y.shape, masks.shape])
    problem = cell.bind((y, masks))
    all_ = problem.preconditioner(y)(y)
    some = problem.take(tf.constant([2, 0]))
    taken = tf.gather(y, [2, 0])
    found = some.preconditioner(taken)(taken)
    np.testing.assert_allclose(found, tf.gather(all_, [2, 0]), rtol=1e-9)


def test_none_without_a_spectrum():
    y = _images()
    affine = priors.LearnedGradient(
        keras.Sequential([keras.layers.Conv2D(1, 3, padding="same", dtype="float64")]),
        dtype="float64",
    )
    cell = _cell(operators.Identity(dtype="float64"), affine, y)
    assert cell.bind(y).preconditioner is None

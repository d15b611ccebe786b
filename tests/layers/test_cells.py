"""Gradient steps: what they compute, and the constants that solvers rely on."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import layers, operators, priors, testing

SHAPE = (2, 7, 6, 1)
OPERATORS = {
    "identity": lambda **kw: operators.Identity(**kw),
    "blur": lambda **kw: operators.GaussianBlur(3, 0.6, **kw),
    "mask": lambda **kw: operators.Mask(0.4 + 0.5 * np.random.default_rng(1).random((7, 6)), **kw),
}


def _images(seed, shape=SHAPE):
    return tf.constant(np.random.default_rng(seed).uniform(size=shape))


def _cell(operator="blur", cls=priors.FieldsOfExperts, weight=0.3, **kwargs):
    prior = cls(3, 3, sharpness=4.0, use_bias=True, dtype="float64")
    operator = OPERATORS[operator](dtype="float64")
    cell = layers.GradientStep(operator, prior, weight, dtype="float64", **kwargs)
    cell.build(SHAPE)
    rng = np.random.default_rng(2)
    for variable in prior.trainable_weights:
        variable.assign(variable + 0.3 * rng.normal(size=variable.shape))
    return cell


def _norm(images):
    return np.sqrt((np.asarray(images) ** 2).sum((1, 2, 3)))


@pytest.mark.parametrize("operator", OPERATORS)
def test_a_step_is_its_formula(operator):
    cell, u, y = _cell(operator), _images(3), _images(4)
    gradient = cell.operator.adjoint(cell.operator(u) - y) + 0.3 * cell.prior.gradient(u)
    problem = cell.bind(y)
    step = u - problem.step.length * gradient
    np.testing.assert_allclose(cell(u, y), step, atol=1e-13)
    np.testing.assert_allclose(problem.f(u), step, atol=1e-13)
    np.testing.assert_allclose(cell.gradient(u, y), gradient, atol=1e-13)
    for start in (problem.initial_value, cell.initial_value(y)):
        np.testing.assert_allclose(start, cell.operator.adjoint(y), atol=1e-13)


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_gradient_is_that_of_the_energy(operator):
    cell, u, y = _cell(operator), _images(3), _images(4)
    with tf.GradientTape() as tape:
        tape.watch(u)
        energy = cell.energy(u, y)
    assert energy.shape == (2,)
    np.testing.assert_allclose(cell.gradient(u, y), tape.gradient(energy, u), atol=1e-13)
    misfit = ((cell.operator(u) - y).numpy() ** 2).sum((1, 2, 3)) / 2
    np.testing.assert_allclose(energy, misfit + 0.3 * cell.prior.energy(u), rtol=1e-12)


def test_derivatives_of_a_step():
    cell = _cell()
    testing.gradient_test(
        cell, _images(3), _images(4), variables=cell.trainable_weights, directions=1
    )


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("cls", [priors.FieldsOfExperts, priors.UntiedFieldsOfExperts])
def test_the_certified_constants_hold(operator, cls):
    cell, y = _cell(operator, cls, weight=0.02), _images(4)
    problem = cell.bind(y)
    f, m = problem.f, float(problem.strong_convexity)
    rng = np.random.default_rng(5)
    for scale in (1e-3, 0.1, 10.0):
        a = tf.constant(rng.normal(size=SHAPE))
        for _ in range(10):  # towards the pairs that are contracted most and least
            b = a + scale * rng.normal(size=SHAPE)
            difference, image = a - b, f(a) - f(b)
            squares = _norm(difference) ** 2
            modulus = (difference * (difference - image)).numpy().sum((1, 2, 3)) / squares
            assert (modulus >= m - 1e-9).all()
            if cell.is_convex:
                assert (_norm(image) <= _norm(difference) * (1 + 1e-9)).all()
                assert (_norm(image) <= (1 - m) * _norm(difference) * (1 + 1e-9)).all()
            a = b
    # A blur has no lower bound to speak of; identity and mask make the energy strongly convex.
    assert m == 0.0 if operator == "blur" else m > 0.0


def test_the_step_size():
    cell, y = _cell(), _images(4)
    for weight in (0.3, 2.0):
        cell.log_weight.assign(np.log(weight))
        of_prior = weight * cell.prior.gradient_lipschitz(SHAPE[1:3])
        lipschitz = float(cell.operator.operator_norm() ** 2 + of_prior)
        assert float(cell.bind(y).step.length) == pytest.approx(1 / lipschitz)
    assert cell.certified
    assert float(_cell(step_size=0.25).bind(y).step.length) == 0.25


@pytest.mark.parametrize("step_size", [None, 0.01])
def test_a_residual_relative_to_its_scale_is_a_relative_gradient(step_size):
    cell, u, y = _cell(step_size=step_size), _images(3), _images(4)
    residual = _norm(cell(u, y) - u) / cell.bind(y).scale
    gradient = _norm(cell.gradient(u, y)) / _norm(cell.operator.adjoint(y))
    np.testing.assert_allclose(residual, gradient, rtol=1e-9)


def test_the_weight():
    cell = _cell(weight=0.1)
    assert float(tf.exp(cell.log_weight)) == pytest.approx(0.1, rel=1e-15)
    assert any(v is cell.log_weight for v in cell.trainable_weights)
    fixed = _cell(train_weight=False)
    assert not any(v is fixed.log_weight for v in fixed.trainable_weights)
    assert any(v is fixed.log_weight for v in fixed.weights)


def test_what_is_known_of_it():
    tied, untied = _cell(), _cell(cls=priors.UntiedFieldsOfExperts)
    assert tied.has_energy
    assert tied.is_convex
    assert not untied.has_energy
    assert not untied.is_convex
    with pytest.raises(ValueError, match="has no energy"):
        untied.energy(_images(3), _images(4))


def test_masks_as_data():
    prior = priors.TotalVariation(0.1, dtype="float64")
    cell = layers.GradientStep(operators.Mask(dtype="float64"), prior, dtype="float64")
    u, y, masks = _images(3), _images(4), 0.4 + 0.5 * _images(5)
    masks *= np.array([1.0, 0.3]).reshape(2, 1, 1, 1)
    step = cell(u, (y, masks))
    for i in range(2):
        # Nothing of an image, its step size included, depends on the mask of another one.
        operator = operators.Mask(masks[i].numpy(), dtype="float64")
        one = layers.GradientStep(operator, prior, dtype="float64")
        np.testing.assert_allclose(one(u[i : i + 1], y[i : i + 1])[0], step[i], atol=1e-13)
        together, alone = cell.bind((y, masks)), one.bind(y[i : i + 1])
        for name in ("scale", "initial_value"):
            value = getattr(together, name)[i]
            np.testing.assert_allclose(getattr(alone, name)[0], value, atol=1e-13)
    np.testing.assert_array_equal(cell(u, [y, masks]), step)
    with pytest.raises(ValueError, match="masks come with the images"):
        cell(u, y)
    with pytest.raises(ValueError, match="Received 3 tensors"):
        cell(u, (y, masks, masks))
    with pytest.raises(ValueError, match="takes no per-image data"):
        _cell("identity")(u, (y, masks))


def test_keras_contract():
    cell = layers.GradientStep(
        operators.GaussianBlur(3, 0.6),
        priors.FieldsOfExperts(3, 3, activation="smoothed_l1"),
        weight=0.7,
        train_weight=False,
        step_size=0.2,
        name="step",
    )
    u, y = tf.cast(_images(3), tf.float32), tf.cast(_images(4), tf.float32)
    z = keras.Input((None, None, 1))
    model = keras.Model([z, data := keras.Input((None, None, 1))], cell(z, data))
    np.testing.assert_allclose(model([u, y]), cell(u, y), atol=1e-6)
    again = layers.GradientStep.from_config(cell.get_config())
    assert again.get_config() == cell.get_config()
    assert again.name == "step"
    assert again.prior.activation == "smoothed_l1"
    again.build(SHAPE)
    again.set_weights(cell.get_weights())
    np.testing.assert_array_equal(again(u, y), cell(u, y))


IDENTITY, TV = operators.Identity, priors.TotalVariation


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: layers.GradientStep(TV(), IDENTITY()), "`operator` to be a.*LinearOperator"),
        (lambda: layers.GradientStep(IDENTITY(), IDENTITY()), "`prior` to be a.*Prior"),
        (lambda: layers.GradientStep(IDENTITY, TV()), "`operator`.*of type type"),
        (lambda: layers.GradientStep(IDENTITY(), TV(), weight=0.0), "`weight`.*> 0"),
        (lambda: layers.GradientStep(IDENTITY(), TV(), step_size=-1), "`step_size`.*> 0"),
        (lambda: layers.GradientStep(IDENTITY(), TV(), step=1), "Unrecognized keyword"),
        (
            lambda: layers.GradientStep(IDENTITY(), TV(dtype="float64")),
            "one dtype.*layer of float32 and `prior` of float64.*dtype='float32'",
        ),
    ],
)
def test_wrong_arguments(make, match):
    with pytest.raises(ValueError, match=match):
        make()


def test_wrong_images():
    cell = _cell("identity")
    with pytest.raises(ValueError, match="batch, height, width, channels"):
        cell(_images(3)[0], _images(4)[0])
    with pytest.raises(ValueError, match="built for 1 channels"):
        cell(tf.zeros((2, 7, 6, 3), tf.float64), tf.zeros((2, 7, 6, 3), tf.float64))

"""Learned proximal steps: DE-Prox and DE-Grad, their certificates, state and gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import adjoints, layers, linear_solvers, operators, priors, solvers, testing
from tests.variants import marked

DTYPE = "float64"
IMAGES = tf.constant(np.random.default_rng(0).uniform(size=(3, 7, 6, 1)))
EXACT = {
    "solver": solvers.Picard(tolerance=1e-13),
    "adjoint": adjoints.Implicit(linear_solvers.Neumann(tolerance=1e-12)),
    "dtype": DTYPE,
}


@pytest.fixture(autouse=True)
def double_precision():
    """A Sequential has the global precision; tests/conftest.py restores it."""
    keras.config.set_dtype_policy(DTYPE)


def _small():
    return keras.initializers.RandomNormal(stddev=0.01, seed=2)


def _normalised(norm=0.9, last=None):
    """With one channel: that is the one whose norm takes no eigenvalues."""
    small = keras.initializers.RandomNormal(stddev=0.5, seed=1)
    options = {"norm": norm, "dtype": DTYPE, "kernel_initializer": small}
    first = layers.NormalizedConv2D(1, 3, activation="relu", **options)
    images = keras.Input((None, None, 1), dtype=DTYPE)
    return keras.Sequential(
        [images, first, layers.NormalizedConv2D(1, 3, activation=last, **options)]
    )


def _in_single_precision():
    keras.config.set_dtype_policy("float32")
    return keras.Sequential([keras.layers.Dense(1, dtype=DTYPE)])


def _with_state():
    options = {"padding": "same", "dtype": DTYPE}
    return keras.Sequential(
        [
            keras.Input((None, None, 1), dtype=DTYPE),
            keras.layers.Conv2D(4, 3, kernel_initializer="he_normal", **options),
            keras.layers.BatchNormalization(dtype=DTYPE),
            keras.layers.Dropout(0.3, seed=3, dtype=DTYPE),
            keras.layers.Conv2D(1, 3, kernel_initializer=_small(), activation="tanh", **options),
        ]
    )


def _cell(network=None, operator=None, **kwargs):
    operator = operators.GaussianBlur(3, 0.6, dtype=DTYPE) if operator is None else operator
    network = _normalised() if network is None else network
    return layers.ProximalStep(operator, network, dtype=DTYPE, **kwargs)


def test_a_step_is_its_formula():
    cell, z, y = _cell(step_size=0.7), IMAGES + 0.2, IMAGES
    moved = z - 0.7 * cell.operator.adjoint(cell.operator(z) - y)
    expected = cell.network(moved)
    np.testing.assert_allclose(cell(z, y), expected, atol=1e-13)
    np.testing.assert_allclose(cell.bind(y).f(z), expected, atol=1e-13)
    np.testing.assert_allclose(cell.bind(y).initial_value, cell.operator.adjoint(y), atol=1e-13)
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = cell(z, y)
    testing.gradient_test(lambda z: cell(z, y), z, directions=1)
    assert tape.gradient(value, z) is not None


@pytest.mark.parametrize(
    "operator", marked(["blur", "mask", "masks as data"], ["blur", "masks as data"])
)
def test_the_contract_of_a_cell(operator):
    masks = 0.5 + 0.5 * IMAGES
    y = (IMAGES, masks) if operator == "masks as data" else IMAGES
    kinds = {
        "blur": lambda: operators.GaussianBlur(3, 0.6, dtype=DTYPE),
        "mask": lambda: operators.Mask(masks[0].numpy(), dtype=DTYPE),
        "masks as data": lambda: operators.Mask(dtype=DTYPE),
    }
    cell = _cell(operator=kinds[operator](), couples_batch=False)
    report = testing.cell_test(cell, y)
    modulus = cell.bind(y).strong_convexity.numpy().min()
    # 0.9 * 0.9 for the network, times the contraction of the gradient step.
    assert modulus >= 1 - 0.81 - 1e-12
    assert report.contraction <= 1 - modulus + 1e-9


def test_the_error_of_a_solution_is_certified():
    layer = layers.Equilibrium(_cell(_normalised(0.5)), solvers.Picard(tolerance=1e-3), dtype=DTYPE)
    exact = layers.Equilibrium(layer.cell, **EXACT)
    solution, truth = layer.solve(IMAGES), exact.solve(IMAGES).value
    bound = layer.error_bound(IMAGES, solution.value)
    assert bound.certified.numpy().all()
    error = np.sqrt(((solution.value - truth).numpy() ** 2).sum((1, 2, 3)))
    assert (error <= bound.value.numpy()).all()
    assert (error > 1e-8).all()


def test_nothing_is_certified_of_other_networks_unless_it_is_declared():
    convolution = keras.layers.Conv2D(1, 3, padding="same", dtype=DTYPE)
    assert _built(_cell(convolution)).bind(IMAGES).strong_convexity is None
    assert _built(_cell(_normalised(last="exponential"))).bind(IMAGES).strong_convexity is None
    declared = _built(_cell(convolution, lipschitz=0.5)).bind(IMAGES).strong_convexity
    assert float(declared) == pytest.approx(0.5)


def _built(cell):
    cell.ensure_built(IMAGES.shape, IMAGES.shape)
    return cell


def test_gradients_and_state_are_those_of_unrolled_training():
    """Dropout masks and batch statistics stay the same in a solve, and are committed once."""
    found = []
    for options in (EXACT, {"solver": "picard", "adjoint": adjoints.Unrolled(35), "dtype": DTYPE}):
        keras.utils.set_random_seed(0)
        layer = layers.Equilibrium(_cell(_with_state(), step_size=0.5), **options)
        layer.build(IMAGES.shape)
        assert layer.structure.couples_batch
        weights = [w.value for w in layer.trainable_weights]
        with tf.GradientTape() as tape:
            tape.watch(IMAGES)
            loss = tf.reduce_sum(tf.sin(layer(IMAGES, training=True)))
        gradients = tape.gradient(loss, [IMAGES, *weights])
        state = [v.numpy() for v in layer.cell.non_trainable_variables]
        found.append((loss, gradients, state))
    (loss, gradients, state), (other_loss, other_gradients, other_state) = found
    assert float(loss) == pytest.approx(float(other_loss), rel=1e-10)
    for a, b in zip(gradients, other_gradients, strict=True):
        if np.linalg.norm(b) > 1e-10:  # a bias has no effect before batch normalisation
            assert np.linalg.norm(a - b) <= 1e-8 * np.linalg.norm(b)
    for a, b in zip(state, other_state, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-10)


def test_files_and_configuration(tmp_path):
    cell = _cell(couples_batch=False)
    layer = layers.Equilibrium(cell, solvers.Picard(max_steps=3), dtype=DTYPE)
    inputs = keras.Input((None, None, 1), dtype=DTYPE)
    model = keras.Model(inputs, layer(inputs))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(IMAGES), model(IMAGES))
    cell = layers.ProximalStep.from_config(layer.cell.get_config())
    assert cell.get_config() == layer.cell.get_config()


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: layers.ProximalStep("blur", _normalised()), "LinearOperator"),
        (lambda: layers.ProximalStep(operators.Identity(), lambda u: u), "Keras layer"),
        (lambda: _built(_cell(_in_single_precision())), "casts its input to float32"),
        (lambda: _cell(step_size=0.0), "`step_size`"),
        (lambda: _cell(lipschitz=-1.0), "`lipschitz`"),
        (
            lambda: _built(_cell(keras.layers.Conv2D(2, 3, padding="same", dtype=DTYPE)))(
                IMAGES, IMAGES
            ),
            "shape of its input",
        ),
    ],
)
def test_wrong_arguments(make, match):
    with pytest.raises(ValueError, match=match):
        make()


# DE-Grad.


def test_a_learned_gradient():
    network = keras.layers.Conv2D(
        1, 3, padding="same", activation="tanh", kernel_initializer=_small(), dtype=DTYPE
    )
    prior = priors.LearnedGradient(network, dtype=DTYPE)
    operator = operators.GaussianBlur(3, 0.4, dtype=DTYPE)
    cell = layers.GradientStep(operator, prior, weight=0.3, dtype=DTYPE)
    testing.cell_test(cell, IMAGES)
    assert not cell.has_energy
    assert not cell.certified, "its step size is an estimate"
    layer = layers.Equilibrium(cell, **EXACT)
    z = layer.solve(IMAGES).value
    residual = operator.adjoint(operator(z) - IMAGES) + 0.3 * network(z)
    np.testing.assert_allclose(residual, tf.zeros_like(z), atol=1e-11)
    with pytest.raises(ValueError, match="Variational.*energy|with an energy"):
        layers.Variational(operator, prior, dtype=DTYPE)
    again = priors.LearnedGradient.from_config(prior.get_config())
    assert again.get_config() == prior.get_config()
    two = priors.LearnedGradient(keras.layers.Conv2D(2, 3, padding="same"))
    with pytest.raises(ValueError, match="returns 1 channels"):
        two.build((None, 8, 8, 1))

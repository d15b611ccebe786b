"""The models that are compared: one layer each, and at first one and the same map."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk
from experiments import supervision, tasks
from experiments.configs import train_convex, train_weakly_convex
from experiments.models import bilevel, compiled, model, start_from
from tests.variants import marked

Y = tf.constant(np.random.default_rng(0).uniform(size=(2, 17, 14, 1)))
Z = tf.constant(np.random.default_rng(1).uniform(size=(2, 17, 14, 1)))


def fields(cls, **options):
    return cls(filters=4, kernel_size=3, sharpness=5.0, dtype="float64", **options)


def blur():
    return dk.operators.GaussianBlur(kernel_size=5, stddev=1.0, dtype="float64")


def pair(tolerance=1e-10, **options):
    """A variational layer with weights that are no initial ones, and a fresh equilibrium layer."""
    variational = dk.layers.Variational(
        blur(),
        fields(dk.priors.FieldsOfExperts, **options),
        solver=dk.solvers.Nesterov(tolerance=tolerance, max_steps=20000),
        dtype="float64",
    )
    equilibrium = dk.layers.Equilibrium(
        dk.layers.GradientStep(
            blur(), fields(dk.priors.UntiedFieldsOfExperts, **options), dtype="float64"
        ),
        solver=dk.solvers.Anderson(tolerance=tolerance, max_steps=20000),
        dtype="float64",
    )
    variational.build(Y.shape)
    equilibrium.build(Y.shape)
    rng = np.random.default_rng(2)
    for variable in variational.trainable_variables:
        noise = 0.2 * rng.normal(size=variable.shape)
        variable.assign(variable.value + noise)
    return variational, equilibrium


OPTIONS = [{}, {"use_bias": True}, {"use_bias": True, "padding": "circular"}]


@pytest.mark.parametrize("options", marked(OPTIONS, OPTIONS[2:]), ids=str)
def test_equilibrium_model_starts_as_the_bilevel_one(options):
    variational, equilibrium = pair(**options)
    before = equilibrium.cell(Z, Y)
    start_from(equilibrium, variational)
    expected = variational.cell(Z, Y)
    assert np.max(np.abs(before - expected)) > 1e-3  # so there was something to do
    np.testing.assert_array_equal(equilibrium.cell(Z, Y), expected)
    # Hundreds of steps: in graphs.
    layers = (equilibrium, variational)
    found, minimiser = (tf.function(layer.solve, autograph=False)(Y) for layer in layers)
    assert np.all(found.converged)
    assert np.all(minimiser.converged)
    np.testing.assert_allclose(found.value, minimiser.value, atol=1e-5)


def test_start_has_twice_the_filters_and_leaves_the_bilevel_model_alone():
    variational, equilibrium = pair()
    before = [variable.numpy() for variable in variational.weights]
    start_from(equilibrium, variational)
    prior = equilibrium.cell.prior
    np.testing.assert_array_equal(prior.analysis, variational.prior.analysis)
    np.testing.assert_array_equal(prior.synthesis, variational.prior.analysis)
    for variable in equilibrium.trainable_variables:
        variable.assign(variable.value + 1.0)
    for variable, old in zip(variational.weights, before, strict=True):
        np.testing.assert_array_equal(variable, old)


def test_a_start_with_a_larger_weight_than_the_largest_has_that():
    variational, _ = pair()
    variational.cell.log_weight.assign(np.log(0.3))
    for limit, expected in ((0.2, 0.2), (0.5, 0.3)):
        prior = fields(dk.priors.UntiedFieldsOfExperts)
        cell = dk.layers.GradientStep(blur(), prior, weight=0.1, max_weight=limit, dtype="float64")
        equilibrium = dk.layers.Equilibrium(cell, dtype="float64")
        equilibrium.build(Y.shape)
        start_from(equilibrium, variational)
        assert float(tf.exp(cell.log_weight)) == pytest.approx(expected)


def test_start_from_a_prior_of_another_size_is_refused():
    variational, _ = pair()
    prior = dk.priors.UntiedFieldsOfExperts(filters=5, kernel_size=3, dtype="float64")
    other = dk.layers.Equilibrium(
        dk.layers.GradientStep(blur(), prior, dtype="float64"), dtype="float64"
    )
    other.build(Y.shape)
    with pytest.raises(ValueError, match="shape"):
        start_from(other, variational)


def image(channels=1, size=(None, None)):
    return keras.Input((*size, channels))


@pytest.mark.parametrize(("channels", "with_data"), [(1, True), (3, False)])
def test_model_maps_images_of_any_size(channels, with_data):
    operator = dk.operators.Mask() if with_data else dk.operators.Identity()
    prior = dk.priors.TotalVariation(smoothing=0.3)  # few steps
    layer = dk.layers.Variational(operator, prior, weight=0.05)
    net = model(layer, (image(channels), image(channels)) if with_data else image(channels))
    for shape in ((2, 12, 13, channels), (1, 21, 8, channels)):
        y = tf.random.uniform(shape)
        inputs = (y, tf.ones_like(y)) if with_data else y
        np.testing.assert_allclose(net(inputs), layer.solve(inputs).value, atol=1e-4)


def test_model_of_one_size_refuses_images_smaller_than_the_filters():
    def layer():
        prior = dk.priors.FieldsOfExperts(filters=2, kernel_size=5, padding="valid")
        return dk.layers.Variational(dk.operators.Identity(), prior)

    assert model(layer(), image(size=(5, 6))).output_shape == (None, 5, 6, 1)
    with pytest.raises(ValueError, match=r"at least \(5, 5\) pixels"):
        model(layer(), image(size=(9, 4)))


def test_compiled_decays_to_a_tenth_in_the_number_of_steps():
    net = model(dk.layers.Variational(dk.operators.Identity(), dk.priors.TotalVariation()), image())
    assert compiled(net, 0.02, 50) is net
    assert isinstance(net.optimizer, keras.optimizers.Adam)
    rates = []
    for step in (0, 25, 50, 80):
        net.optimizer.iterations.assign(step)
        rates.append(float(net.optimizer.learning_rate))
    np.testing.assert_allclose(rates, [0.02, 0.011, 0.002, 0.002], rtol=1e-5)


def test_compiled_measures_mean_squared_error_and_psnr():
    prior, solver = dk.priors.TotalVariation(), dk.solvers.Picard(max_steps=5)
    net = model(dk.layers.Variational(dk.operators.Identity(), prior, solver=solver), image())
    compiled(net, 0.02, 50)
    truth = tf.random.uniform((2, 16, 16, 1), seed=1)
    noisy = truth + 0.1
    logs = net.evaluate(noisy, truth, return_dict=True, verbose=0)
    output = net(noisy)
    assert logs["loss"] == pytest.approx(float(tf.reduce_mean((output - truth) ** 2)), rel=1e-5)
    psnr = float(tf.reduce_mean(dk.metrics.psnr(truth, output)))
    assert logs["psnr"] == pytest.approx(psnr, rel=1e-5)


def test_prior_without_an_untied_form_is_taken_over_as_it_is():
    def ridge():
        return dk.priors.TotalVariation(dtype="float64")

    trained = dk.layers.Variational(blur(), ridge(), 0.3, dtype="float64")
    fresh = dk.layers.Equilibrium(dk.layers.GradientStep(blur(), ridge(), dtype="float64"))
    for layer in (trained, fresh):
        layer.build(Y.shape)
    start_from(fresh, trained)
    assert float(tf.exp(fresh.cell.log_weight)) == pytest.approx(0.3)


@pytest.mark.parametrize("convex", [True, False])
def test_the_weight_of_a_weakly_convex_prior_stays_so_that_its_energy_is_convex(convex):
    config = train_weakly_convex.get_config()
    config.prior.filters = (2, 3)
    if convex:
        config.prior.weak_convexity = 0.0
    layer = bilevel(tasks.get("denoising", config), config, config.train.weight)
    layer.build((None, None, None, 1))
    assert layer.prior.is_convex == convex
    assert layer.cell.log_weight.trainable == convex
    assert float(layer.prior.strong_convexity((48, 48))) == pytest.approx(0.0 if convex else -0.95)
    kind = dk.linear_solvers.ConjugateGradient if convex else dk.linear_solvers.MINRES
    assert isinstance(layer.adjoint.linear_solver, kind)
    assert float(layer.cell.bind(tf.ones((1, 48, 48, 1))).strong_convexity) > 0 or convex


def test_what_a_training_with_clean_images_minimises():
    config = train_convex.get_config()
    layer = bilevel(tasks.get("denoising", config), config, 0.1)
    assert supervision.with_clean_images(config) == "mse"
    config.train.loss = "psnr"
    loss = supervision.with_clean_images(config)
    made = compiled(model(layer, keras.Input((None, None, 1))), 1e-2, 5, loss)
    assert layer.prior.is_convex
    assert isinstance(made.loss, dk.losses.NegativePSNR)

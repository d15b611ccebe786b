"""Convolutions one after the other: what is certified of them, and what they do in a step."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import layers, operators, solvers, testing
from deq_keras.denoisers import averaged_dncnn, dncnn
from deq_keras.layers.averaged import certified_lipschitz

SMALL = {"depth": 3, "filters": 4, "dtype": "float64"}
SHALLOW = {**SMALL, "depth": 2}  # the norms of many channels take long
IMAGES = tf.constant(np.random.default_rng(0).uniform(size=(2, 9, 8, 1)))


def _large(denoiser):
    """The denoiser with kernels that would expand without their normalisation."""
    denoiser.build((None, None, None, 1))
    for variable in denoiser.trainable_variables:
        variable.assign(5.0 * variable + 0.1)
    return denoiser


def test_it_takes_away_what_its_convolutions_find(tmp_path):
    model = dncnn(channels=3, **SMALL, activation="elu")
    u = tf.concat([IMAGES] * 3, axis=-1)
    x = u
    for layer in model.layers[1:4]:
        x = layer(x)
    np.testing.assert_allclose(model(u), u - x, atol=1e-14)
    assert [layer.activation.__name__ for layer in model.layers[1:4]] == ["elu", "elu", "linear"]
    assert not any(layer.use_bias for layer in model.layers[1:4])
    model.save(tmp_path / "dncnn.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "dncnn.keras")(u), model(u))
    assert certified_lipschitz(model) is None


def test_an_averaged_one_is_a_layer_that_does_not_expand():
    denoiser = _large(averaged_dncnn(**SHALLOW, share=0.7))
    assert float(certified_lipschitz(denoiser)) == pytest.approx(1.0)
    rng = np.random.default_rng(1)
    for scale in (1e-3, 1.0):
        other = IMAGES + scale * rng.normal(size=IMAGES.shape)
        moved = np.linalg.norm(denoiser(other) - denoiser(IMAGES))
        assert moved <= np.linalg.norm(other - IMAGES) * (1 + 1e-12)
    testing.layer_test(denoiser, input_shape=(2, 7, 8, 1))


def test_plug_and_play_with_it_has_a_certificate():
    """The data fidelity of a full observation is strongly convex: steps of 1/2 contract by 1/2."""
    denoiser = _large(averaged_dncnn(**SHALLOW))
    step = layers.ProximalStep(operators.Identity(dtype="float64"), denoiser, 0.5, dtype="float64")
    layer = layers.Equilibrium(step, solver=solvers.Anderson(tolerance=1e-6), dtype="float64")
    assert float(step.bind(IMAGES).strong_convexity) == pytest.approx(0.5)
    rough = layer.solve(IMAGES)
    one, exact = tf.function(step, autograph=False), IMAGES
    for _ in range(60):
        exact = one(exact, IMAGES)
    bound = layer.error_bound(IMAGES, rough.value)
    assert bound.certified.numpy().all()
    errors = np.linalg.norm((rough.value - exact).numpy().reshape(2, -1), axis=1)
    assert np.all(errors <= bound.value)


@pytest.mark.parametrize("function", [dncnn, averaged_dncnn])
@pytest.mark.parametrize("wrong", [{"depth": 1}, {"channels": 0}, {"filters": 0.5}])
def test_wrong_numbers(function, wrong):
    (name,) = wrong
    with pytest.raises(ValueError, match=f"`{name}` to be an integer >= {1 + (name == 'depth')}"):
        function(**wrong)

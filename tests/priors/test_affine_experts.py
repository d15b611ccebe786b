"""Affine experts, and the certified bound on the norm of a matrix."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import priors, testing
from deq_keras.priors.affine_experts import matrix_norm_bound

SHAPE = (2, 5, 4, 1)


def _prior(cls=priors.AffineExperts, shape=SHAPE, **kwargs):
    prior = cls(**{"units": 12, "dtype": "float64", "sharpness": 3.0, **kwargs})
    prior.build(shape)
    rng = np.random.default_rng(1)
    for weight in prior.trainable_weights:
        weight.assign(weight + 0.3 * rng.normal(size=weight.shape))
    return prior


@pytest.mark.parametrize(
    "activation", ["tanh", "relu", "soft_shrinkage", "identity", "smoothed_l1"]
)
def test_gradient_and_constants(activation):
    prior = _prior(activation=activation)
    report = testing.prior_test(prior, SHAPE)
    assert report.gradient_error < 1e-12
    assert report.lipschitz > 0.3 * float(prior.gradient_lipschitz())
    assert float(prior.strong_convexity()) == 0.0
    assert prior.has_energy
    assert prior.is_convex


@pytest.mark.parametrize("units", [None, 7, 60])
def test_colour_and_any_number_of_units(units):
    shape = (3, 4, 3, 3)
    prior = _prior(shape=shape, units=units, use_bias=False, activation="smoothed_l1")
    testing.prior_test(prior, shape)
    assert prior.analysis.shape == (36, units or 36)


def test_the_energy_is_its_formula():
    prior = _prior(activation="relu")
    u = np.random.default_rng(0).uniform(size=SHAPE)
    c = prior.coefficients()
    response = np.asarray(c.sharpness * (u.reshape(2, -1) @ c.analysis + c.bias))
    energy = (np.maximum(response, 0) ** 2 / 2 / c.sharpness.numpy()).sum(1)
    np.testing.assert_allclose(prior.energy(u), energy, rtol=1e-12)
    assert np.linalg.norm(c.analysis, 2) <= 1


def test_the_paper_s_experts():
    # grad R(u) = A sigma(A^T u + b) of free weights, all of them from a uniform distribution.
    start = keras.initializers.RandomUniform(-0.2, 0.2, seed=0)
    options = {"normalize": False, "train_sharpness": False, "sharpness": 1.0}
    options["activation"] = {"name": "soft_shrinkage", "threshold": 0.05}
    prior = _prior(**options, kernel_initializer=start, bias_initializer=start)
    assert [w.path.split("/")[-1] for w in prior.trainable_weights] == ["analysis", "bias"]
    u = np.random.default_rng(0).uniform(size=SHAPE)
    a, b = (weight.numpy() for weight in prior.trainable_weights)
    assert b.any()
    t = u.reshape(2, -1) @ a + b
    gradient = (np.sign(t) * np.maximum(np.abs(t) - 0.05, 0)) @ a.T
    np.testing.assert_allclose(prior.gradient(u), gradient.reshape(SHAPE), rtol=1e-12)
    report = testing.prior_test(prior, SHAPE)
    assert report.gradient_error < 1e-12
    np.testing.assert_allclose(prior.gradient_lipschitz(), np.linalg.norm(a, 2) ** 2, rtol=0.02)
    untied = _prior(priors.UntiedAffineExperts, **options)
    testing.prior_test(untied, SHAPE)
    assert untied.strong_convexity() is None
    copy = priors.AffineExperts.from_config(prior.get_config())
    assert copy.get_config() == prior.get_config()


def test_derivatives_with_respect_to_the_weights():
    prior = _prior(activation="smoothed_l1")
    u = tf.constant(np.random.default_rng(0).uniform(size=SHAPE))
    testing.gradient_test(prior.energy, u, variables=prior.trainable_weights, directions=1)
    testing.gradient_test(prior.gradient, u, variables=prior.trainable_weights, directions=1)


def test_untied():
    prior = _prior(priors.UntiedAffineExperts)
    with pytest.raises(ValueError, match="UntiedAffineExperts has no energy"):
        prior.energy(tf.zeros(SHAPE, tf.float64))
    report = testing.prior_test(prior, SHAPE)
    assert report.strong_convexity < 0
    tied, u = _prior(), tf.constant(np.random.default_rng(0).uniform(size=SHAPE))
    tied.bias.assign(tied.bias + 1.0)
    prior.adopt(tied)
    np.testing.assert_array_equal(prior.gradient(u), tied.gradient(u))


@pytest.mark.parametrize("cls", [priors.AffineExperts, priors.UntiedAffineExperts])
def test_layer_contract(cls):
    options = {"units": 7, "activation": "tanh", "sharpness": 2.0, "use_bias": False}
    options["kernel_initializer"] = "orthogonal"
    testing.layer_test(cls, options, (2, 5, 4, 1), check_unknown_size=False)


def test_images_of_another_size():
    with pytest.raises(ValueError, match="one vector and expected a known size"):
        priors.AffineExperts(4).build((None, None, 4, 1))
    prior = _prior()
    # 5 images of 4 x 4 are as many numbers as 4 of 5 x 4: they must not be mixed.
    with pytest.raises(ValueError, match=r"built for images of 20 values.*\(5, 4, 4, 1\)"):
        prior.gradient(tf.zeros((5, 4, 4, 1), tf.float64))
    graph = tf.function(prior.energy, [tf.TensorSpec((None,) * 4, tf.float64)], autograph=False)
    np.testing.assert_allclose(graph(tf.ones(SHAPE, tf.float64)), prior.energy(np.ones(SHAPE)))
    with pytest.raises(tf.errors.InvalidArgumentError):
        graph(tf.zeros((5, 4, 4, 1), tf.float64))


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"units": 0}, "`units`"),
        ({"activation": "rellu"}, "Did you mean 'relu'"),
        ({"sharpness": -1.0}, "`sharpness`"),
        ({"kernel_initializer": "glorot_unifrm"}, "Did you mean 'glorot_uniform'"),
        ({"unit": 3}, "Unrecognized keyword arguments"),
    ],
)
def test_wrong_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        priors.AffineExperts(**options)


def _matrices():
    rng = np.random.default_rng(3)
    tall = rng.normal(size=(40, 9))
    orthogonal = np.linalg.qr(rng.normal(size=(30, 30)))[0]
    low_rank = rng.normal(size=(25, 2)) @ rng.normal(size=(2, 30))
    return {
        "tall": tall,
        "wide": tall.T,
        "orthogonal": orthogonal,  # all singular values equal: the worst case of the bound
        "low_rank": low_rank,
        "badly_scaled": np.diag(np.logspace(-6, 6, 20)),
        "tiny": 1e-12 * tall,
        "huge": 1e12 * tall,
        "one_entry": np.array([[-3.0]]),
    }


@pytest.mark.parametrize("name", _matrices())
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_matrix_norm_bound_is_an_upper_bound_and_tight(name, dtype):
    matrix = _matrices()[name].astype(dtype)
    exact = np.linalg.norm(matrix.astype("float64"), 2)
    bound = float(matrix_norm_bound(tf.constant(matrix)))
    rank = min(matrix.shape)
    assert exact <= bound <= exact * rank ** (1 / 256) * (1 + 1e-4)


def test_matrix_norm_bound_has_the_derivative_of_differences():
    matrix = tf.constant(np.random.default_rng(4).normal(size=(6, 9)))
    testing.gradient_test(matrix_norm_bound, matrix)


def test_matrix_norm_bound_of_zero_is_zero_with_a_finite_gradient():
    zero = tf.zeros((4, 3), tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(zero)
        bound = matrix_norm_bound(zero)
    assert float(bound) == 0.0
    assert np.isfinite(tape.gradient(bound, zero)).all()

"""Fields of experts: energy, gradient, and constants that are certified from the weights."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import priors, testing
from tests.priors.hessians import dense_hessian
from tests.priors.weights import general
from tests.variants import covering

ACTIVATIONS = ("tanh", "relu", "soft_shrinkage", "identity", "smoothed_l1")
PADDINGS = ("valid", "zero", "circular", "reflect")


def _prior(cls=priors.FieldsOfExperts, channels=1, **kwargs):
    """A built prior in float64 whose weights are no special case."""
    options = {"filters": 4, "kernel_size": (3, 2), "sharpness": 5.0, "dtype": "float64"}
    return general(cls(**{**options, **kwargs}), channels, deviation=0.3)


def _matrix(function, shape):
    """The matrix of a linear map of images `(height, width, channels)`."""
    basis = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    image = np.asarray(function(tf.constant(basis)))
    return image.reshape(len(basis), -1).T


@pytest.mark.parametrize(
    ("activation", "padding"),
    covering(
        [
            *((activation, "valid") for activation in ACTIVATIONS),
            ("tanh", "zero"),
            ("relu", "circular"),
            ("tanh", "reflect"),
        ]
    ),
)
def test_gradient_and_constants(activation, padding):
    options = {"kernel_size": 3} if padding == "circular" else {"use_bias": True}
    prior = _prior(activation=activation, padding=padding, **options)
    report = testing.prior_test(prior, (2, 9, 8, 1))
    lipschitz = float(prior.gradient_lipschitz())
    assert report.gradient_error < 1e-12
    # With mirrored boundaries the bound on the norm is up to twice too large, its square 4 times.
    sharp = 0.3 / 4 if padding == "reflect" else 0.3
    assert report.lipschitz > sharp * lipschitz, "certified, but far from sharp"
    assert float(prior.strong_convexity()) == 0.0
    assert prior.has_energy
    assert prior.is_convex


@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_filters_that_are_not_normalised(padding):
    prior = _prior(padding=padding, normalize=False, train_sharpness=False, zero_mean=False)
    assert [w.path.split("/")[-1] for w in prior.trainable_weights] == ["analysis"]
    np.testing.assert_array_equal(prior.coefficients().analysis, prior.analysis)
    report = testing.prior_test(prior, (2, 9, 8, 1))
    assert report.lipschitz > (0.3 / 4 if padding == "reflect" else 0.3) * float(
        prior.gradient_lipschitz((9, 8))
    )
    before = float(prior.gradient_lipschitz())
    prior.analysis.assign(2.0 * prior.analysis)
    np.testing.assert_allclose(prior.gradient_lipschitz(), 4.0 * before, rtol=1e-12)


SHAPES = [(2, 3, 2, 3), (2, 16, 5, 3)]


@pytest.mark.parametrize("shape", [pytest.param(SHAPES[0], marks=pytest.mark.slow), SHAPES[1]])
def test_gradient_and_constants_in_colour_at_several_sizes(shape):
    prior = _prior(channels=3, filters=5, zero_mean=False)
    report = testing.prior_test(prior, shape)
    assert report.gradient_error < 1e-12
    assert prior.energy(tf.zeros(shape, tf.float64)).shape == (shape[0],)


@pytest.mark.parametrize("padding", ["valid", "reflect"])
def test_the_energy_is_its_formula(padding):
    prior = _prior(use_bias=True, zero_mean=False, padding=padding)
    image = u = np.random.default_rng(0).uniform(size=(2, 6, 7, 1))
    if padding == "reflect":  # filters of 3 x 2 pixels: one row on both sides, a column on one
        image = np.pad(u, ((0, 0), (1, 1), (0, 1), (0, 0)), "reflect")
    c = prior.coefficients()
    windows = np.lib.stride_tricks.sliding_window_view(image, (3, 2), (1, 2))
    response = np.einsum("byxcij,ijcf->byxf", windows, c.analysis) + c.bias
    energy = (np.log(np.cosh(c.sharpness * response)) / c.sharpness).numpy().sum((1, 2, 3))
    np.testing.assert_allclose(prior.energy(u), energy, rtol=1e-12)
    np.testing.assert_allclose(c.sharpness, np.exp(prior.log_sharpness))
    assert c.synthesis is c.analysis


def test_derivatives_with_respect_to_the_weights():
    prior = _prior(use_bias=True, channels=3, filters=3)
    u = tf.constant(np.random.default_rng(1).uniform(size=(2, 6, 5, 3)))
    testing.gradient_test(prior.energy, u, variables=prior.trainable_weights, directions=1)
    testing.gradient_test(prior.gradient, u, variables=prior.trainable_weights, directions=1)


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [(5, 5), (11, 9), (12, 4)])
@pytest.mark.parametrize("channels", [1, 2])
def test_the_norm_of_the_filters_is_at_most_one_at_every_size(padding, size, channels):
    prior = _prior(padding=padding, channels=channels, kernel_size=(3, 4))
    weights = prior.coefficients().analysis
    matrix = _matrix(lambda u: prior._analyse(u, weights), (*size, channels))
    norm = np.linalg.norm(matrix, 2)
    assert norm <= 1 + 1e-12
    if padding == "circular" and size == (11, 9):
        assert norm > 0.9, "a loose bound makes small steps and weak priors"


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_the_scale_of_the_filters_does_not_matter(scale):
    prior = _prior()
    u = tf.constant(np.random.default_rng(2).uniform(size=(2, 7, 8, 1)))
    before = prior.gradient(u)
    prior.analysis.assign(scale * prior.analysis)
    np.testing.assert_allclose(prior.gradient(u), before, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("cls", [priors.FieldsOfExperts, priors.UntiedFieldsOfExperts])
def test_zero_filters_are_no_division_by_zero(cls):
    prior = _prior(cls)
    prior.analysis.assign(tf.zeros_like(prior.analysis))
    u = tf.constant(np.random.default_rng(3).uniform(size=(2, 7, 8, 1)))
    with tf.GradientTape() as tape:
        gradient = prior.gradient(u)
    np.testing.assert_array_equal(gradient, 0)
    for derivative in tape.gradient(gradient, prior.trainable_weights):
        assert np.isfinite(derivative).all()


def test_zero_mean_filters_do_not_see_constant_images():
    constant = tf.fill((1, 6, 8, 3), tf.constant(0.7, tf.float64))
    for padding in ("valid", "circular"):
        prior = _prior(channels=3, padding=padding)
        np.testing.assert_allclose(prior.gradient(constant), 0, atol=1e-13)
        means = tf.reduce_mean(prior.coefficients().analysis, (0, 1))
        np.testing.assert_allclose(means, 0, atol=1e-15)
    free = _prior(channels=3, zero_mean=False)
    assert np.abs(free.gradient(constant)).max() > 1e-2


def test_circular_priors_commute_with_shifts_and_zero_padding_sees_the_border():
    u = tf.constant(np.random.default_rng(4).uniform(size=(1, 7, 9, 1)))

    def shifted(prior):
        rolled = prior.gradient(tf.roll(u, (2, 3), (1, 2)))
        return np.abs(tf.roll(prior.gradient(u), (2, 3), (1, 2)) - rolled).max()

    assert shifted(_prior(padding="circular")) < 1e-13
    assert shifted(_prior(padding="zero")) > 1e-3


# Untied.


@pytest.mark.parametrize("padding", PADDINGS)
def test_an_untied_prior_has_no_energy_and_its_constants_hold(padding):
    prior = _prior(
        priors.UntiedFieldsOfExperts,
        padding=padding,
        use_bias=True,
        filters_initializer="first_order",
    )
    assert not prior.has_energy
    assert not prior.is_convex
    with pytest.raises(ValueError, match=r"UntiedFieldsOfExperts has no energy.*Equilibrium"):
        prior.energy(tf.zeros((1, 6, 6, 1), tf.float64))
    report = testing.prior_test(prior, (2, 9, 8, 1))
    assert np.isnan(report.gradient_error)
    assert report.strong_convexity < 0, "the map of this test should not be monotone"
    assert report.strong_convexity >= float(prior.strong_convexity())


def test_the_jacobian_of_an_untied_map_is_not_symmetric():
    u = tf.constant(np.random.default_rng(5).uniform(size=(1, 5, 4, 1)))
    asymmetry = []
    for cls in (priors.FieldsOfExperts, priors.UntiedFieldsOfExperts):
        jacobian = dense_hessian(_prior(cls), u)
        asymmetry.append(np.linalg.norm(jacobian - jacobian.T) / np.linalg.norm(jacobian))
    assert asymmetry[0] < 1e-13
    assert asymmetry[1] > 0.1


def test_an_untied_prior_starts_as_its_tied_form():
    u = tf.constant(np.random.default_rng(6).uniform(size=(2, 9, 8, 1)))
    tied = priors.FieldsOfExperts(6, 3, dtype="float64")
    untied = priors.UntiedFieldsOfExperts(6, 3, dtype="float64")
    np.testing.assert_array_equal(tied.gradient(u), untied.gradient(u))


@pytest.mark.parametrize("use_bias", [False, True])
def test_adopt_makes_the_maps_equal(use_bias):
    tied = _prior(use_bias=use_bias)
    untied = _prior(priors.UntiedFieldsOfExperts, use_bias=use_bias, sharpness=2.0)
    u = tf.constant(np.random.default_rng(7).uniform(size=(2, 9, 8, 1)))
    assert np.abs(tied.gradient(u) - untied.gradient(u)).max() > 1e-3
    untied.adopt(tied)
    np.testing.assert_array_equal(tied.gradient(u), untied.gradient(u))
    # And from then on they are apart: no variable is shared.
    untied.synthesis.assign(-untied.synthesis)
    np.testing.assert_array_equal(tied.gradient(u), -untied.gradient(u))
    another = _prior(priors.UntiedFieldsOfExperts, use_bias=use_bias)
    another.adopt(untied)
    np.testing.assert_array_equal(another.gradient(u), untied.gradient(u))


# Keras.


@pytest.mark.parametrize("cls", [priors.FieldsOfExperts, priors.UntiedFieldsOfExperts])
def test_layer_contract(cls):
    options = {
        "filters": 3,
        "kernel_size": (3, 2),
        "activation": "smoothed_l1",
        "sharpness": 3.0,
        "padding": "zero",
        "zero_mean": False,
        "use_bias": True,
        "filters_initializer": "dct",
    }
    testing.layer_test(cls, options, (2, 7, 8, 1))
    prior = cls(**options)
    config = cls.from_config(prior.get_config()).get_config()
    for name, value in options.items():
        assert name == "filters_initializer" or config[name] == value
    assert config["filters_initializer"]["class_name"] == "DCT"


def test_call_is_gradient():
    prior = _prior()
    u = tf.constant(np.random.default_rng(8).uniform(size=(2, 7, 8, 1)))
    np.testing.assert_array_equal(prior(u), prior.gradient(u))
    spec = prior(keras.Input((None, 8, 1), dtype="float64"))
    assert spec.shape == (None, None, 8, 1)


def test_it_can_be_built_in_a_graph():
    prior = priors.FieldsOfExperts(4, 3)
    u = tf.random.stateless_uniform((2, 7, 8, 1), (0, 0))
    graph = tf.function(prior, autograph=False)(u)
    np.testing.assert_allclose(graph, prior.gradient(u), rtol=1e-6, atol=1e-6)


def test_initial_sharpness_is_exact_in_float64():
    prior = priors.FieldsOfExperts(2, 3, sharpness=0.1, dtype="float64")
    prior.build((None, None, None, 1))
    np.testing.assert_allclose(prior.coefficients().sharpness, 0.1, rtol=1e-15)
    assert float(prior.gradient_lipschitz()) == pytest.approx(0.1, rel=1e-15)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"filters": 0}, "`filters`.*>= 1"),
        ({"filters": 2.5}, "`filters`.*integer"),
        ({"kernel_size": (3, 0)}, "`kernel_size`"),
        ({"kernel_size": 2.5}, "`kernel_size`.*integer"),
        ({"kernel_size": (3, 3, 3)}, "a pair of them"),
        ({"sharpness": 0.0}, "`sharpness`.*> 0"),
        ({"sharpness": float("inf")}, "`sharpness`.*finite"),
        ({"activation": "tahn"}, "Did you mean 'tanh'"),
        ({"padding": "circlar"}, "Did you mean 'circular'"),
        ({"padding": "same"}, "`padding` to be one of"),
        ({"filters_initializer": "second_ordr"}, "Did you mean 'second_order'"),
        ({"filter": 3}, "Unrecognized keyword arguments"),
    ],
)
def test_wrong_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        priors.FieldsOfExperts(**options)


def test_numpy_integers_are_integers():
    assert priors.FieldsOfExperts(np.int64(4), np.int64(3)).kernel_size == (3, 3)


def test_images_smaller_than_the_filters():
    small = tf.zeros((2, 4, 9, 1))
    message = r"at least \(5, 5\) pixels.*\(2, 4, 9, 1\)"
    with pytest.raises(ValueError, match=message):
        priors.FieldsOfExperts(2, 5, padding="valid").gradient(small)
    built = priors.FieldsOfExperts(2, 5, padding="valid")
    built.build((None, None, None, 1))
    for method in (built.gradient, built.energy, built):
        with pytest.raises(ValueError, match=message):
            method(small)
    graph = tf.function(built.gradient, [tf.TensorSpec((None, None, None, 1))], autograph=False)
    assert graph(tf.zeros((2, 5, 9, 1))).shape == (2, 5, 9, 1)
    with pytest.raises(tf.errors.InvalidArgumentError):
        graph(small[:, :3])
    assert priors.FieldsOfExperts(2, 5, padding="zero").gradient(small).shape == small.shape
    for padding, least in (("reflect", 3), ("circular", 2)):
        prior = priors.FieldsOfExperts(2, 5, padding=padding)
        fits = small[:, :least, :least]
        assert prior.gradient(fits).shape == fits.shape
        with pytest.raises(ValueError, match=rf"at least \({least}, {least}\) pixels"):
            prior.gradient(small[:, : least - 1])


def test_images_of_another_shape_than_it_was_built_for():
    prior = _prior()
    with pytest.raises(ValueError, match="built for 1 channels"):
        prior.gradient(tf.zeros((2, 7, 8, 2), tf.float64))
    with pytest.raises(ValueError, match="built for 1 channels"):
        prior.energy(tf.zeros((2, 7, 8, 4), tf.float64))
    with pytest.raises(ValueError, match="batch, height, width, channels"):
        prior.gradient(tf.zeros((7, 8, 1), tf.float64))
    with pytest.raises(ValueError, match="known number of channels"):
        priors.FieldsOfExperts(2, 3).build((None, None, None, None))


def test_optimizers_keep_the_sharpness_below_its_limit():
    prior = _prior(sharpness=5.0, max_sharpness=5.1)
    assert float(prior.gradient_lipschitz()) > 5.1, "weights that were set by hand may be beyond"
    optimizer = keras.optimizers.SGD(1.0)
    upwards = [-tf.ones_like(weight) for weight in prior.trainable_weights]
    optimizer.apply(upwards, prior.trainable_weights)
    np.testing.assert_allclose(prior.gradient_lipschitz(), 5.1)
    free = _prior(sharpness=5.0, max_sharpness=None)
    optimizer = keras.optimizers.SGD(1.0)
    optimizer.apply([-tf.ones_like(w) for w in free.trainable_weights], free.trainable_weights)
    assert float(free.gradient_lipschitz()) > 6.0
    with pytest.raises(ValueError, match="sharpness"):
        priors.FieldsOfExperts(sharpness=7.0, max_sharpness=6.0)

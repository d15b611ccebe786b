"""Ridge regularisers: energy, gradient, and what is certified of their curvature."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import (
    adjoints,
    convolution,
    layers,
    linear_solvers,
    operators,
    priors,
    solvers,
    testing,
)
from deq_keras.numerics.shapes import sizes_of
from tests.priors.hessians import dense_hessian
from tests.priors.weights import general
from tests.variants import covering

EXACT = adjoints.Implicit(linear_solvers.MINRES(tolerance=1e-11))
PADDINGS = ("valid", "zero", "circular", "reflect")


def _prior(weak_convexity=0.9, channels=1, **kwargs):
    """A built prior in float64 whose weights are no special case."""
    options = {"filters": (2, 3, 5), "kernel_size": (3, 2), "scaling": 4.0, "sharpness": 7.0}
    options = {**options, "dtype": "float64", **kwargs}
    return general(priors.RidgeRegularizer(weak_convexity=weak_convexity, **options), channels)


def _images(shape, seed=0):
    return tf.constant(np.random.default_rng(seed).uniform(size=shape))


@pytest.mark.parametrize(
    ("activation", "padding", "weak_convexity"),
    covering(
        [
            *(("smoothed_l1", padding, 0.9) for padding in PADDINGS),
            ("smoothed_l1", "reflect", 0.0),
            *((*pair, c) for pair in (("tanh", "zero"), ("relu", "circular")) for c in (0.0, 0.9)),
        ]
    ),
)
def test_gradient_and_constants(activation, padding, weak_convexity):
    prior = _prior(weak_convexity, activation=activation, padding=padding, filters=(2, 3))
    report = testing.prior_test(prior, (2, 9, 7, 1))
    assert report.gradient_error < 1e-12
    # These hold at the size of the images, too.
    assert report.lipschitz <= float(prior.gradient_lipschitz((9, 7))) * (1 + 1e-6)
    assert report.strong_convexity >= float(prior.strong_convexity((9, 7))) - 1e-6
    assert prior.has_energy
    assert prior.is_convex == (weak_convexity == 0.0)


def test_constants_of_several_channels():
    prior = _prior(channels=2, filters=(2, 3), kernel_size=2, padding="circular")
    assert testing.prior_test(prior, (2, 5, 4, 2)).gradient_error < 1e-12


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("size", [(12, 6), (14, 9), (7, 4), (5, 4)])
def test_the_norm_of_the_composed_filters(padding, size):
    """At most one where images are not tiny, and what is certified where they are."""
    prior = _prior(padding=padding)
    assert prior.field == (7, 4)
    if padding == "valid" and size == (5, 4):
        return
    c = prior.coefficients(size)
    basis = np.eye(size[0] * size[1]).reshape(-1, *size, 1)
    image = np.asarray(convolution.correlate(tf.constant(basis), c.filters, padding))
    norm = np.linalg.norm(image.reshape(len(basis), -1), 2)
    assert norm**2 <= float(c.square) * (1 + 1e-12)
    tiny = size[0] < 12 or size[1] < 6
    assert (float(c.square) > 1) == (padding == "reflect" and tiny)
    if size == (14, 9) and padding != "valid":
        assert norm > 0.6, "a loose bound makes weak priors"
    if padding == "reflect":
        assert float(prior.coefficients().square) > 1, "for any size"


def _at_least_curvature(size):
    """A prior of differences along rows, and an image whose responses are all beyond the corner."""
    prior = priors.RidgeRegularizer(
        (1,), 2, 0.9, scaling=1.0, sharpness=1e4, max_sharpness=None, padding="circular",
        dtype="float64",
    )  # fmt: skip
    prior.build((None, None, None, 1))
    columns = 0.05 * (-1.0) ** np.arange(size[1])
    return prior, tf.constant(np.tile(columns[None, None, :, None], (1, size[0], 1, 1)))


def test_the_least_curvature_is_reached():
    prior, u = _at_least_curvature((4, 6))
    least = np.linalg.eigvalsh(dense_hessian(prior, u))[0]
    assert -0.9 <= least < -0.89


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_layers_does_not_matter(scale):
    prior, u = _prior(), _images((2, 13, 8, 1))
    before = prior.gradient(u)
    prior.convolutions[1].assign(scale * prior.convolutions[1])
    np.testing.assert_allclose(prior.gradient(u), before, rtol=1e-9, atol=1e-12)


def test_zero_filters_are_no_division_by_zero():
    prior, u = _prior(), _images((2, 13, 8, 1))
    prior.convolutions[0].assign(tf.zeros_like(prior.convolutions[0]))
    with tf.GradientTape() as tape:
        gradient = prior.gradient(u)
    np.testing.assert_array_equal(gradient, 0)
    for derivative in tape.gradient(gradient, prior.trainable_weights):
        assert np.isfinite(derivative).all()


@pytest.mark.parametrize("padding", ["valid", "circular", "reflect"])
def test_constant_images_cost_nothing(padding):
    prior = _prior(channels=2, padding=padding)
    constant = tf.fill((1, 9, 8, 2), tf.constant(0.7, tf.float64))
    np.testing.assert_allclose(prior.gradient(constant), 0, atol=1e-13)
    np.testing.assert_allclose(prior.energy(constant), 0, atol=1e-13)


def test_the_energy_is_its_formula():
    prior, u = _prior(padding="zero"), _images((2, 9, 8, 1))
    padded = convolution.pad(u, ((3, 3), (1, 2)), "zero")
    first, *others = prior.convolutions
    v = convolution.correlate(padded, first - tf.reduce_mean(first, (0, 1), True), "valid")
    for layer in others:
        v = convolution.correlate(v, tf.convert_to_tensor(layer), "valid")
    first = first - tf.reduce_mean(first, (0, 1), True)
    chain = convolution.compose(convolution.compose(first, others[0].value), others[1].value)
    t = v / convolution.norm_bound(chain, "zero") * np.exp(prior.log_scaling)
    mu = np.exp(prior.log_sharpness)
    psi = (np.sqrt(1 + (mu * t) ** 2) - 1) / mu - 0.9 * (np.sqrt(1 + t**2) - 1)
    expected = np.asarray(psi / np.exp(prior.log_scaling) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(prior.energy(u), expected, rtol=1e-11)


def test_derivatives_with_respect_to_the_weights():
    prior, u = _prior(filters=(2, 3)), _images((2, 9, 7, 1))
    testing.gradient_test(prior.energy, u, variables=prior.trainable_weights, directions=1)
    testing.gradient_test(prior.gradient, u, variables=prior.trainable_weights, directions=1)


@pytest.mark.parametrize("size", [(8, 10), (9, 7)])
def test_spectrum_and_diagonal_of_a_quadratic_prior(size):
    prior, u = _prior(0.5, activation="identity", padding="circular"), _images((1, *size, 1))
    hessian, bound = dense_hessian(prior, u), prior.bind(u.shape)
    expected = np.fft.rfft2(hessian[:, 0].reshape(size)).real
    np.testing.assert_allclose(bound.hessian_spectrum(u)[0], expected, atol=1e-12)
    diagonal = bound.hessian_diagonal(u).numpy().ravel()
    np.testing.assert_allclose(diagonal, np.diagonal(hessian), rtol=1e-10)


def test_spectrum_and_diagonal_are_not_negative():
    prior, u = _at_least_curvature((4, 6))
    bound = prior.bind(u.shape)
    np.testing.assert_array_equal(bound.hessian_spectrum(u), np.zeros((1, 4, 4)))
    np.testing.assert_array_equal(bound.hessian_diagonal(u), np.zeros(u.shape))


@pytest.mark.parametrize("weak_convexity", [pytest.param(0.0, marks=pytest.mark.slow), 0.9])
def test_variation_of_the_hessian(weak_convexity):
    prior, p = _prior(weak_convexity), _images((1, 12, 6, 1), 2)
    u, v = _images((1, 12, 6, 1), 3), _images((1, 12, 6, 1), 4)
    change = (dense_hessian(prior, u) - dense_hessian(prior, v)) @ p.numpy().ravel()
    bound = float(prior.hessian_variation(p, (12, 6))[0]) * np.linalg.norm(u - v)
    assert 1e-3 * bound < np.linalg.norm(change) <= bound


def test_nothing_is_known_of_the_hessian_of_a_potential_with_a_corner():
    prior = _prior(activation="relu")
    p = tf.concat([_images((1, 13, 8, 1)), tf.zeros((1, 13, 8, 1), tf.float64)], axis=0)
    np.testing.assert_array_equal(prior.hessian_variation(p), [np.inf, 0.0])


# In layers.


def test_a_denoising_energy_is_strongly_convex_and_its_minimiser_unique():
    prior, y = _prior(padding="circular"), _images((2, 9, 8, 1))
    layer = layers.Variational(
        operators.Identity(dtype="float64"),
        prior,
        weight=1.0,
        train_weight=False,
        solver=solvers.LBFGS(tolerance=1e-10),
        dtype="float64",
    )
    found = layer.solve(y)
    assert found.converged.numpy().all()
    assert np.abs(layer.energy_gradient(found.value, y)).max() < 1e-9
    other = layer.solve(y, initial_value=1.0 - y)
    np.testing.assert_allclose(other.value, found.value, atol=1e-8)
    problem = layer.cell.bind(y)
    lipschitz = float(prior.gradient_lipschitz((9, 8)))
    np.testing.assert_allclose(problem.strong_convexity, 0.1 / (1 + lipschitz), rtol=1e-12)
    # A larger weight spoils that, and then nothing is certified.
    layer.cell.log_weight.assign(np.log(1.2))
    assert float(layer.cell.bind(y).strong_convexity) == 0.0


def test_an_energy_is_said_to_be_convex_only_if_all_weights_make_it_so():
    y = _images((1, 12, 8, 1))
    for weak_convexity in (0.0, 0.9):
        cell = layers.GradientStep(
            operators.Identity(dtype="float64"), _prior(weak_convexity), dtype="float64"
        )
        cell.build((1, 12, 8, 1), (1, 12, 8, 1))
        assert cell.bind(y).convex == (weak_convexity == 0.0)


def test_a_deblurring_energy_is_not_said_to_be_convex_and_gets_solvers_for_that():
    y = _images((1, 13, 9, 1))
    blur = operators.GaussianBlur(kernel_size=5, stddev=1.5, dtype="float64")
    layer = layers.Variational(blur, _prior(), weight=0.5, dtype="float64")
    found, problem = layer.solve(y), layer.cell.bind(y)
    assert found.converged.numpy().all()
    assert not problem.convex
    assert float(problem.strong_convexity) == 0.0
    assert isinstance(layer.choose_solver(problem), solvers.LBFGS)
    problem = problem._replace(symmetric=layer.structure.symmetric)
    assert isinstance(layer.adjoint.choose(problem), linear_solvers.MINRES)
    testing.cell_test(layer.cell, y)


@pytest.mark.slow
@pytest.mark.parametrize("weak_convexity", [0.0, 0.9])
def test_bilevel_derivatives(weak_convexity):
    prior, y = _prior(weak_convexity, filters=(2, 3)), _images((1, 7, 6, 1))
    layer = layers.Variational(
        operators.Identity(dtype="float64"),
        prior,
        weight=1.0,
        solver=solvers.LBFGS(tolerance=1e-12),
        adjoint=EXACT,
        dtype="float64",
    )
    layer(y)
    solve = tf.function(layer, autograph=False)
    testing.gradient_test(solve, y, variables=layer.trainable_weights, directions=1, rtol=1e-6)


# Keras.


def test_layer_contract():
    options = {
        "filters": (2, 4),
        "kernel_size": (3, 2),
        "weak_convexity": 0.5,
        "activation": "tanh",
        "scaling": 2.0,
        "sharpness": 30.0,
        "max_sharpness": 60.0,
        "padding": "zero",
        "filters_initializer": "dct",
    }
    testing.layer_test(priors.RidgeRegularizer, options, (2, 9, 8, 1))
    config = priors.RidgeRegularizer(**options).get_config()
    for name in set(options) - {"filters_initializer"}:
        assert config[name] == options[name]


def test_it_has_as_many_parameters_as_published():
    prior = priors.RidgeRegularizer()
    prior.build((None, None, None, 1))
    assert prior.count_params() == 100 + 800 + 12800 + 2 * 64
    assert prior.field == (13, 13)
    assert prior.pictures()["analysis"].shape == (64, 13, 13, 1)


def test_unknown_sizes():
    prior = _prior()
    spec = tf.TensorSpec((None, None, None, 1), tf.float64)
    graph = tf.function(prior.gradient, [spec], autograph=False)
    bound = tf.function(lambda u: prior.bind(sizes_of(u)).strong_convexity, [spec], autograph=False)
    for size in ((13, 8), (7, 5)):
        u = _images((2, *size, 1))
        np.testing.assert_allclose(graph(u), prior.gradient(u), atol=1e-13)
        np.testing.assert_allclose(bound(u), prior.strong_convexity(size), rtol=1e-12)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"filters": ()}, "`filters` to be a tuple"),
        ({"filters": 8}, r"such as \(4, 8, 64\)"),
        ({"filters": (4, 0)}, "`filters`.*>= 1"),
        ({"weak_convexity": 1.0}, "0 <= `weak_convexity` < 1"),
        ({"weak_convexity": -0.1}, "`weak_convexity`"),
        ({"scaling": 0.0}, "`scaling`.*> 0"),
        ({"sharpness": 7.0, "max_sharpness": 6.0}, "`sharpness`"),
        ({"activation": "tahn"}, "Did you mean 'tanh'"),
        ({"padding": "same"}, "`padding` to be one of"),
        ({"filter": 3}, "Unrecognized keyword arguments"),
    ],
)
def test_wrong_arguments(options, match):
    with pytest.raises(ValueError, match=match):
        priors.RidgeRegularizer(**options)


def test_images_that_do_not_fit():
    prior = _prior()
    with pytest.raises(ValueError, match="built for 1 channels"):
        prior.gradient(tf.zeros((2, 13, 8, 2), tf.float64))
    with pytest.raises(ValueError, match=r"at least \(4, 3\) pixels"):
        prior.gradient(tf.zeros((2, 3, 8, 1), tf.float64))


# Noise levels.

LEVELS = (0.02, 0.1, 0.3)


def _conditional(weak_convexity=0.9, **options):
    return _prior(weak_convexity, filters=(2, 3), noise_levels=LEVELS, **options)


def test_a_scaling_for_each_noise_level():
    prior = priors.RidgeRegularizer((2, 3), noise_levels=LEVELS, scaling=5.0, dtype="float64")
    prior.build((None, None, None, 1))
    assert prior.log_scaling.shape == (3, 3)
    # At first inversely proportional, between the levels too; and constant beyond them.
    noise = tf.constant([0.1, 0.05, 0.2, 0.3, 5.0, 0.0], tf.float64)
    start = 5.0 * 0.1 / np.array([0.1, 0.05, 0.2, 0.3, 0.3, 0.02])
    np.testing.assert_allclose(prior.scaling_at(noise)[:, 0], start, rtol=1e-12)
    prior.log_scaling.assign(np.log([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]]))
    np.testing.assert_allclose(prior.scaling_at(noise)[0], [4.0, 5.0, 6.0], rtol=1e-12)
    np.testing.assert_allclose(prior.scaling_at(noise)[3], [7.0, 8.0, 9.0], rtol=1e-12)


def test_at_its_noise_level_an_image_sees_the_prior_of_that_level():
    prior, u = _conditional(), _images((3, 13, 8, 1))
    together = prior.gradient(u, tf.constant(LEVELS, tf.float64))
    energies = prior.energy(u, tf.constant(LEVELS, tf.float64))
    for i in range(3):
        fixed = _prior(0.9, filters=(2, 3))
        values = [*prior.convolutions, prior.log_scaling[i], prior.log_sharpness]
        for weight, value in zip(fixed.trainable_weights, values, strict=True):
            weight.assign(value)
        np.testing.assert_allclose(together[i], fixed.gradient(u[i : i + 1])[0], atol=1e-13)
        np.testing.assert_allclose(energies[i], fixed.energy(u[i : i + 1])[0], rtol=1e-12)
    # What is certified is the same for every level.
    for method in ("gradient_lipschitz", "strong_convexity"):
        np.testing.assert_allclose(getattr(prior, method)(), getattr(fixed, method)())


def test_the_cell_takes_a_noise_level_beside_the_measurement():
    y, noise = _images((3, 13, 9, 1)), tf.constant([0.05, 0.1, 0.2], tf.float64)
    identity = operators.Identity(dtype="float64")
    cell = layers.GradientStep(identity, _conditional(), weight=1.0, dtype="float64")
    testing.cell_test(cell, (y, noise))
    layer = layers.Variational(
        identity,
        _conditional(),
        weight=0.3,
        solver=solvers.LBFGS(tolerance=1e-11),
        dtype="float64",
    )
    together = layer.solve((y, noise))
    assert together.converged.numpy().all()
    for i in range(3):
        alone = layer.solve((y[i : i + 1], noise[i : i + 1])).value[0]
        np.testing.assert_allclose(alone, together.value[i], atol=1e-7)
    compact = layers.Variational(
        identity, layer.prior, 0.3, solver=solvers.LBFGS(tolerance=1e-11, compact=True),
        dtype="float64",
    )  # fmt: skip
    np.testing.assert_allclose(compact.solve((y, noise)).value, together.value, atol=1e-7)
    with pytest.raises(ValueError, match=r"a pair \(measurement, noise level\).*alone"):
        layer.solve(y)


def test_per_image_data_of_the_operator_and_a_noise_level():
    mask, solver = operators.Mask(), solvers.LBFGS(max_steps=3)
    prior = priors.RidgeRegularizer((2, 3), 3, noise_levels=LEVELS)
    layer = layers.Variational(mask, prior, solver=solver)
    u, noise = tf.cast(_images((2, 12, 11, 1)), tf.float32), tf.constant([0.05, 0.2])
    seen = tf.cast(u > 0.3, tf.float32)
    assert layer(((seen * u, seen), noise)).shape == u.shape


@pytest.mark.slow
def test_bilevel_derivatives_by_scalings_and_noise_levels():
    layer = layers.Variational(
        operators.Identity(dtype="float64"),
        _conditional(),
        weight=1.0,
        solver=solvers.LBFGS(tolerance=1e-12),
        adjoint=EXACT,
        dtype="float64",
    )
    y, noise = _images((2, 7, 6, 1)), tf.constant([0.05, 0.15], tf.float64)
    layer((y, noise))
    solve = tf.function(lambda y, noise: layer((y, noise)), autograph=False)
    weights = [layer.prior.log_scaling, layer.prior.log_sharpness]
    testing.gradient_test(solve, y, noise, variables=weights, directions=1, rtol=1e-6)


def test_a_model_with_noise_levels_can_be_saved(tmp_path):
    inputs = keras.Input((None, None, 1)), keras.Input(())
    prior = priors.RidgeRegularizer((2, 3), 3, 0.5, noise_levels=LEVELS)
    layer = layers.Variational(
        operators.Identity(), prior, 1.0, train_weight=False, solver=solvers.Picard(max_steps=20)
    )
    model = keras.Model(inputs, layer(inputs))
    y, noise = tf.cast(_images((2, 12, 11, 1)), tf.float32), tf.constant([0.05, 0.2])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded((y, noise)), model((y, noise)), atol=1e-6)


@pytest.mark.parametrize("levels", [(), (0.1, 0.1), (0.2, 0.1), (0.0, 0.1), (-1.0,)])
def test_wrong_noise_levels(levels):
    with pytest.raises(ValueError, match="`noise_levels`"):
        priors.RidgeRegularizer(noise_levels=levels)


def test_a_noise_level_where_none_is_expected_and_none_where_one_is():
    u = _images((1, 13, 8, 1))
    with pytest.raises(ValueError, match="`noise_level` to be the noise level of each image"):
        _conditional().gradient(u)
    with pytest.raises(ValueError, match="`noise_level` to be none"):
        _prior().energy(u, tf.constant([0.1], tf.float64))

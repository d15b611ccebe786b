"""The Radon transform against chords and Gaussians, its sums, its norm against matrices."""

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

import deq_keras as dk
from deq_keras import operators, testing
from tests.variants import marked

# angles and options, size of the images
CASES = [
    (12, {}, (8, 13)),
    ([0.0], {}, (5, 6)),
    ([10.0, 100, 200, 300, -45, 45, 135.0], {"bins": 7}, (11, 8)),
    (5, {"bin_size": 2.3, "pixel_size": 0.5}, (7, 10)),
    (5, {"bin_size": 0.4}, (7, 10)),
]


def matrix(operator, size):
    pixels = int(np.prod(size))
    basis = tf.reshape(tf.eye(pixels, dtype=tf.float64), (pixels, *size, 1))
    return tf.reshape(operator(basis), (pixels, -1)).numpy().T


@pytest.mark.parametrize(("angles", "options", "size"), marked(CASES, [CASES[0], *CASES[2:4]]))
def test_adjoint_norm_and_diagonal(angles, options, size):
    operator = operators.Radon(angles, dtype="float64", **options)
    assert operator.certified
    assert testing.dot_test(operator, (2, *size, 2), dtype="float64") < 1e-12
    dense = matrix(operator, size)
    assert dense.min() > -1e-14  # which the bound on the norm needs
    exact = np.linalg.norm(dense, 2)
    bound = float(operator.operator_norm(image_shape=(None, *size, 1)))
    assert exact <= bound * (1 + 1e-12)
    assert bound <= 1.02 * exact
    maps = operator.bind((1, *size, 1))
    assert np.mean(maps.diagonal()) == pytest.approx(np.mean(np.sum(dense**2, 0)), rel=0.4)
    assert maps.spectrum().shape == (1, size[0], size[1] // 2 + 1)


def test_angles_of_the_axes_add_up_columns_and_rows():
    u = np.random.default_rng(0).random((1, 5, 7, 2))
    y = operators.Radon([0.0, 90.0, 180.0], bins=7, pixel_size=0.5, dtype="float64")(u)
    columns = 0.5 * u.sum(1)
    np.testing.assert_allclose(y[:, 0], columns, atol=1e-12)
    np.testing.assert_allclose(y[:, 1, 1:-1], 0.5 * u.sum(2)[:, ::-1], atol=1e-12)  # upwards
    np.testing.assert_allclose(y[:, 2], columns[:, ::-1], atol=1e-12)


@pytest.mark.parametrize("options", [{}, {"bin_size": 1.7, "pixel_size": 0.6}])
def test_each_angle_keeps_the_sum(options):
    u = np.random.default_rng(0).random((1, 9, 12, 1))
    angles = np.array([0.0, 13, 45, 77, 90, 111, 150, 225, -30])
    y = operators.Radon(angles, dtype="float64", **options)(u)[0, ..., 0].numpy()
    pixel = options.get("pixel_size", 1.0)
    width = options.get("bin_size", pixel)
    np.testing.assert_allclose(y.sum(1) * width, u.sum() * pixel**2, rtol=1e-12)


def test_chords_of_a_disc():
    n, fine, radius, x, y = 65, 8, 20.0, 5.3, 7.1
    grid = (np.arange(n * fine) + 0.5) / fine - n / 2
    inside = (grid[None] - x) ** 2 + (-grid[:, None] - y) ** 2 < radius**2
    disc = inside.reshape(n, fine, n, fine).mean((1, 3))[None, ..., None]
    angles = np.arange(0, 180, 17.0)
    found = operators.Radon(angles, dtype="float64")(disc)[0, ..., 0].numpy()
    t = np.deg2rad(angles)[:, None]
    bins = found.shape[1]
    place = (np.arange(32 * bins) + 0.5) / 32 - bins / 2 - x * np.cos(t) - y * np.sin(t)
    chords = 2 * np.sqrt(np.maximum(radius**2 - place**2, 0)).reshape(-1, bins, 32).mean(2)
    error = np.abs(found - chords)
    assert np.sqrt(np.mean(error**2)) < 0.01 * 2 * radius
    assert error[chords > radius].max() < 0.02 * 2 * radius  # but for its edge


def test_integrals_of_a_gaussian_converge():
    def error(n):
        pixel = 2.0 / n
        grid = (np.arange(n) - (n - 1) / 2) * pixel
        u = np.exp(-((grid[None] - 0.2) ** 2 + (-grid[:, None] - 0.1) ** 2) / 0.08)
        scanner = operators.Radon(9, pixel_size=pixel, dtype="float64")
        found = scanner(u[None, ..., None])[0, ..., 0].numpy()
        t = np.deg2rad(20.0 * np.arange(9))[:, None]
        edges = (np.arange(found.shape[1] + 1) - found.shape[1] / 2) * pixel
        below = 0.5 * scipy.special.erf((edges - 0.2 * np.cos(t) - 0.1 * np.sin(t)) / 0.08**0.5)
        exact = 0.08 * np.pi * np.diff(below, axis=1) / pixel
        return np.abs(found - exact).max() / exact.max()

    errors = [error(n) for n in (32, 64, 128)]
    assert errors[0] < 0.015
    assert errors[1] < 0.6 * errors[0]
    assert errors[2] < 0.6 * errors[1]


def test_sizes():
    operator = operators.Radon(6)
    assert operator.measurement_shape((None, 33, 44, 3)) == (None, 6, 57, 3)
    assert operator.measurement_shape((None, 33, None, 3)) == (None, 6, None, 3)
    assert operator.image_shape((None, 6, None, 3)) == (None, None, None, 3)
    for n in range(1, 300):
        measured = operator.measurement_shape((2, n, n, 1))
        assert operator.image_shape(measured) == (2, n, n, 1)
    stated = operators.Radon(6, image_size=(5, 8))
    assert stated.adjoint(stated(tf.ones((2, 5, 8, 1)))).shape == (2, 5, 8, 1)
    for n in (0, 2):
        assert operator(tf.ones((n, 9, 9, 1))).shape == (n, 6, 15, 1)
    with pytest.raises(ValueError, match="image_size=\\(5, 8\\)"):
        stated(tf.ones((1, 8, 5, 1)))
    with pytest.raises(ValueError, match="expected measurements of images of shape"):
        operator.adjoint(tf.ones((1, 6, 15, 1)), image_shape=(1, 12, 9, 1))
    with pytest.raises(ValueError, match="depends on the size of the images"):
        operator.operator_norm()
    assert float(stated.operator_norm()) == float(operator.operator_norm(None, (1, 5, 8, 1)))


def test_saved_model_of_any_size_in_half_precision_and_in_single(tmp_path):
    operator = operators.Radon([0.0, 40.0, 100.0], pixel_size=0.1, bin_size=0.15)
    model = keras.Sequential([keras.Input((None, None, 1)), operator])
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    model.export(tmp_path / "model", verbose=False)
    served = tf.saved_model.load(str(tmp_path / "model"))
    half = operators.Radon.from_config(
        {**operator.get_config(), "dtype": keras.DTypePolicy("mixed_float16")}
    )
    assert half.get_config()["angles"] == operator.angles
    for size in ((13, 14), (20, 9)):
        u = tf.random.stateless_uniform((2, *size, 1), (0, 1))
        y = model(u)
        np.testing.assert_array_equal(loaded(u), y)
        np.testing.assert_allclose(served.serve(u), y, atol=1e-5)
        assert half(u).dtype == tf.float16
        np.testing.assert_allclose(half(u), y, atol=2e-3)
        back = half.adjoint(half(u), image_shape=u.shape)
        assert back.dtype == tf.float16
        np.testing.assert_allclose(back, operator.adjoint(y, image_shape=u.shape), atol=1e-2)


def test_in_a_graph_of_unknown_sizes():
    operator = operators.Radon(5, dtype="float64")
    signature = [tf.TensorSpec((None, None, None, 1), tf.float64)]

    @tf.function(input_signature=signature, autograph=False)
    def everything(u):
        maps = operator.bind((*tf.unstack(tf.shape(u))[:3], 1))
        y = operator(u)
        back = operator.adjoint(y)
        return y, back, maps.normal(u), operator.operator_norm(None, tf.unstack(tf.shape(u)))

    u = tf.random.stateless_normal((2, 11, 11, 1), (0, 0), dtype=tf.float64)
    y, back, normal, norm = everything(u)
    np.testing.assert_allclose(y, operator(u), atol=1e-12)
    np.testing.assert_allclose(back, operator.adjoint(operator(u)), atol=1e-12)
    np.testing.assert_allclose(normal, back, atol=1e-12)
    assert float(norm) == pytest.approx(float(operator.operator_norm(None, u.shape)))


def test_a_layer_starts_in_reach_and_has_the_minimiser():
    """In pixels as units of length the backprojection is hundreds of times too bright."""
    scanner = operators.Radon(24)
    rows, columns = np.mgrid[:16, :16] / 16
    truth = tf.constant((rows > 0.5) * (columns > 0.3) * 0.8, tf.float32)[None, ..., None]
    prior = dk.priors.TotalVariation(0.05)
    layer = dk.layers.Variational(scanner, prior, weight=0.01)
    y = scanner(truth)
    start = layer.cell.initial_value(y)
    assert np.max(scanner.adjoint(y)) > 100
    assert 0.5 < np.max(start) < 2
    layer.build(y.shape)  # in a graph it would be traced twice
    solution = tf.function(layer.solve, autograph=False)(y)
    assert solution.converged.numpy().all()
    assert dk.metrics.psnr(truth, solution.value) > 30


@pytest.mark.parametrize("angles", [0, 2.5, [], [[0.0]], [float("nan")], "ten", None])
def test_wrong_angles_are_named(angles):
    with pytest.raises(ValueError, match="angles"):
        operators.Radon(angles)


def test_other_wrong_arguments():
    for name in ("pixel_size", "bin_size", "bins", "image_size"):
        with pytest.raises(ValueError, match=name):
            operators.Radon(3, **{name: -1})
    with pytest.raises(ValueError, match="no per-image data"):
        operators.Radon(3).call(tf.ones((1, 9, 9, 1)), tf.ones((1, 9, 9, 1)))


def test_derivatives_are_its_own_maps_and_tables_are_made_once(monkeypatch):
    scanner = operators.Radon(5, dtype="float64")
    u = tf.random.stateless_normal((2, 6, 9, 1), (0, 0), dtype=tf.float64)
    y = scanner(u)
    monkeypatch.setattr(operators.projections, "weights", None)  # whatever would call it fails

    @tf.function
    def derivatives(u):
        with tf.GradientTape() as outer:
            outer.watch(u)
            with tf.GradientTape() as inner:
                inner.watch(u)
                value = tf.reduce_sum(scanner(u) ** 4) / 12
            gradient = inner.gradient(value, u)
        return gradient, outer.gradient(gradient, u, tf.ones_like(u))

    gradient, curvature = derivatives(u)
    expected = scanner.adjoint(y**3 / 3, image_shape=u.shape)
    np.testing.assert_allclose(gradient, expected, atol=1e-10)
    expected = scanner.adjoint(y**2 * scanner(tf.ones_like(u)), image_shape=u.shape)
    np.testing.assert_allclose(curvature, expected, atol=1e-10)

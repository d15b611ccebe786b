"""Data fidelities against NumPy and SciPy, and their constants against what is known exactly."""

import json

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from deq_keras import fidelities, testing

SHAPE = (3, 4, 5, 1)
WEIGHTS = np.linspace(0.25, 2.0, 20).reshape(4, 5, 1)
ALL = {
    "least_squares": fidelities.LeastSquares(),
    "weighted": fidelities.WeightedLeastSquares(WEIGHTS),
    "huber": fidelities.Huber(0.3),
    "poisson": fidelities.Poisson(0.2),
}
COMPLEX = [name for name in ALL if name != "poisson"]


def _random(seed=0, shape=SHAPE, dtype="float64"):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=shape)
    return values + 1j * rng.normal(size=shape) if "complex" in dtype else values


def _counts(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).poisson(1.0, size=shape).astype("float64")


def _sum(entries):
    return entries.reshape(len(entries), -1).sum(1)


# Against NumPy and SciPy.


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_squares(dtype):
    v, y = _random(0, dtype=dtype), _random(1, dtype=dtype)
    for fidelity, weights in ((ALL["least_squares"], 1.0), (ALL["weighted"], WEIGHTS)):
        expected = _sum(0.5 * weights * abs(v - y) ** 2)
        np.testing.assert_allclose(fidelity.value(v, y), expected, rtol=1e-14)
        np.testing.assert_allclose(fidelity.gradient(v, y), weights * (v - y), rtol=1e-14)


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_huber(dtype):
    v, y = _random(0, dtype=dtype), _random(1, dtype=dtype)
    expected = _sum(scipy.special.huber(0.3, abs(v - y)))
    np.testing.assert_allclose(ALL["huber"].value(v, y), expected, rtol=1e-14)
    # The gradient of a Moreau envelope: the residual less its soft thresholding.
    r = v - y
    shrunk = r / abs(r) * np.maximum(abs(r) - 0.3, 0)
    np.testing.assert_allclose(ALL["huber"].gradient(v, y), r - shrunk, atol=1e-15)


def test_poisson():
    v, y, b = abs(_random()), _counts(), 0.2
    expected = _sum(scipy.special.kl_div(y, v + b))
    np.testing.assert_allclose(ALL["poisson"].value(v, y), expected, rtol=1e-13)
    np.testing.assert_allclose(ALL["poisson"].gradient(v, y), 1 - y / (v + b), atol=1e-14)


def test_the_continuation_of_poisson_is_its_taylor_polynomial():
    v, y, b = -abs(_random()), _counts(), 0.2
    polynomial = scipy.special.kl_div(y, b) + (1 - y / b) * v + y * v**2 / (2 * b**2)
    np.testing.assert_allclose(ALL["poisson"].value(v, y), _sum(polynomial), rtol=1e-13)
    np.testing.assert_allclose(ALL["poisson"].gradient(v, y), 1 - y / b + y * v / b**2, atol=1e-12)
    # Twice differentiable at zero, to which the derivatives of both sides tend.
    one = tf.constant([[-1e-9, 0.0, 1e-9]], tf.float64)
    counts = tf.constant([[3.0, 3.0, 3.0]], tf.float64)
    with tf.GradientTape() as tape:
        tape.watch(one)
        slope = ALL["poisson"].gradient(one, counts)
    np.testing.assert_allclose(slope, 1 - 3 / 0.2 * np.ones((1, 3)), rtol=1e-7)
    np.testing.assert_allclose(tape.gradient(slope, one), 3 / 0.2**2 * np.ones((1, 3)), rtol=1e-7)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_poisson_without_counts_is_finite_everywhere(dtype):
    v = tf.constant([[-1e3, -1.0, 0.0, 1.0, 1e6, 1e-30]], dtype)
    for count in (0.0, -2.0, 1e-30, 1e-38, 1e6):
        y = tf.fill(v.shape, tf.constant(count, dtype))
        with tf.GradientTape(persistent=True) as tape:
            tape.watch([v, y])
            value, gradient = ALL["poisson"].value(v, y), ALL["poisson"].gradient(v, y)
        found = [value, gradient, *tape.gradient(value, [v, y]), *tape.gradient(gradient, [v, y])]
        assert all(np.isfinite(tensor).all() for tensor in found)
        np.testing.assert_allclose(tape.gradient(value, v), gradient, rtol=1e-5, atol=1e-6)
        if count <= 0:  # negative counts are taken for none
            np.testing.assert_allclose(value, [np.sum(v + tf.cast(0.2, dtype))], rtol=1e-6)
            np.testing.assert_array_equal(gradient, np.ones(v.shape))


def test_the_value_of_poisson_keeps_its_digits_near_the_minimum():
    y = np.full((1, 1), 1e4)
    v = y - 0.2 + 1e-3
    np.testing.assert_allclose(ALL["poisson"].value(v, y), 1e-6 / 2e4, rtol=1e-4)
    # At the minimum itself, too, where the form of the logarithm changes.
    v, y = tf.constant([[3.0]], tf.float64), tf.constant([[3.25]], tf.float64)
    fidelity = fidelities.Poisson(0.25)
    with tf.GradientTape() as outer:
        outer.watch(v)
        with tf.GradientTape() as tape:
            tape.watch(v)
            value = fidelity.value(v, y)
        slope = tape.gradient(value, v)
    assert float(value) == float(slope) == 0.0
    np.testing.assert_allclose(outer.gradient(slope, v), [[1 / 3.25]], rtol=1e-14)
    single = fidelity.value(tf.constant([[0.0]]), tf.constant([[1e6]]))
    np.testing.assert_allclose(single, scipy.special.kl_div(1e6, 0.25), rtol=1e-6)


# Constants, and the checks that belong to every fidelity.


@pytest.mark.parametrize("name", ALL)
def test_each_passes_the_test_of_fidelities(name):
    report = testing.fidelity_test(ALL[name], SHAPE)
    if name == "least_squares":
        np.testing.assert_allclose(report[1:], 1.0, rtol=1e-9)
    if name == "weighted":
        np.testing.assert_allclose(report[1:], [2.0, 0.25, 2.0], rtol=0.02)
    if name == "huber":
        np.testing.assert_allclose(report[1::2], 1.0, rtol=1e-6)


@pytest.mark.parametrize("name", ALL)
def test_several_measurements(name):
    fidelity = ALL[name]
    if name == "weighted":
        fidelity = fidelities.WeightedLeastSquares([WEIGHTS, 3.0], several=True)
        assert (fidelity.lipschitz(None), fidelity.strong_convexity(None)) == (3.0, 0.25)
    testing.fidelity_test(fidelity, [SHAPE, (3, 2)])


@pytest.mark.parametrize("name", COMPLEX)
def test_complex_measurements(name):
    testing.fidelity_test(ALL[name], SHAPE, "complex128")
    testing.fidelity_test(ALL[name], SHAPE, "complex64")


def test_the_constants_of_poisson_are_attained():
    y = _counts()
    np.testing.assert_allclose(
        ALL["poisson"].lipschitz(y), y.reshape(3, -1).max(1) / 0.04, rtol=1e-14
    )
    v = np.array([[-1.0, 2.0], [0.5, 3.0]])
    found = ALL["poisson"].measurement_sensitivity(v, np.ones((2, 2)))
    np.testing.assert_allclose(found, [1.2 / 0.04, 1 / 0.7], rtol=1e-14)
    report = testing.fidelity_test(ALL["poisson"], SHAPE, measurement=y)
    np.testing.assert_allclose(report.lipschitz, y.max() / 0.04, rtol=1e-3)


def test_what_is_declared():
    assert [f.quadratic for f in ALL.values()] == [True, True, False, False]
    assert [f.residual_gradient for f in ALL.values()] == [True, False, False, False]
    assert all(f.is_convex and f.certified for f in ALL.values())


def test_several_measurements_are_a_sum():
    shapes = (3, 4), (3, 2, 2)
    v, w = ([tf.constant(abs(_random(s, shape))) for shape in shapes] for s in (0, 1))
    for fidelity in (fidelities.WeightedLeastSquares(2.0), ALL["huber"], ALL["poisson"]):
        parts = [fidelity.value(*pair) for pair in zip(v, w, strict=True)]
        np.testing.assert_allclose(fidelity.value(v, w), parts[0] + parts[1], rtol=1e-14)
        gradient = fidelity.gradient(v, tuple(w))
        assert isinstance(gradient, list)
        for found, pair in zip(gradient, zip(v, w, strict=True), strict=True):
            np.testing.assert_array_equal(found, fidelity.gradient(*pair))
    both = np.max([ALL["poisson"].lipschitz(leaf) for leaf in w], axis=0)
    np.testing.assert_array_equal(ALL["poisson"].lipschitz(w), both)


@pytest.mark.parametrize("name", ALL)
def test_derivatives_by_the_measurement_and_of_second_order(name):
    v, y = tf.constant(_random(0)), tf.constant(abs(_random(1)) + 0.1)
    testing.gradient_test(ALL[name].gradient, v, y)
    testing.gradient_test(ALL[name].value, v, y)


@pytest.mark.parametrize("name", ALL)
def test_no_images_and_unknown_shapes(name):
    none = tf.zeros((0, 4, 5, 1))
    assert ALL[name].value(none, none).shape == (0,)
    assert ALL[name].gradient(none, none).shape == none.shape
    lipschitz = tf.convert_to_tensor(ALL[name].lipschitz(none))
    assert lipschitz.shape in [(), (0,)]
    spec = tf.TensorSpec(None, tf.float64)
    value = tf.function(ALL[name].value, input_signature=[spec] * 2, autograph=False)
    v, y = tf.constant(_random(0)), tf.constant(abs(_random(1)))
    np.testing.assert_allclose(value(v, y), ALL[name].value(v, y), rtol=1e-13)


# A person's own.


@keras.saving.register_keras_serializable(package="test_fidelities")
class Cauchy(fidelities.Fidelity):
    """`log(1 + |r|^2) / 2`, with its value only."""

    def value(self, v, y):
        r = abs(v - y)
        return 0.5 * tf.reduce_sum(tf.math.log1p(r * r), axis=tuple(range(1, len(v.shape))))


@pytest.mark.parametrize("dtype", ["float64", "complex128"])
def test_a_value_is_enough(dtype):
    fidelity = Cauchy()
    report = testing.fidelity_test(fidelity, SHAPE, dtype)
    assert report.strong_convexity < -0.05
    v, y = (tf.constant(_random(s, dtype=dtype)) for s in (0, 1))
    r = (v - y).numpy()
    np.testing.assert_allclose(fidelity.gradient(v, y), r / (1 + abs(r) ** 2), rtol=1e-12)
    np.testing.assert_array_equal(fidelity.gradient(y, y), np.zeros(SHAPE))
    assert not fidelity.certified
    assert not fidelity.is_convex
    assert fidelity.lipschitz(y) is fidelity.strong_convexity(y) is None
    assert fidelity.measurement_sensitivity(v, y) == float("inf")


def test_convexity_alone_certifies_the_modulus_zero():
    class Convex(Cauchy):
        is_convex = True

    assert Convex().strong_convexity(None) == 0.0


def test_no_value_is_an_error_that_says_so():
    with pytest.raises(NotImplementedError, match=r"`value\(v, y\)`"):
        fidelities.Fidelity().gradient(tf.zeros((1, 2)), tf.zeros((1, 2)))


# Names, configurations and arguments.


@pytest.mark.parametrize(
    "fidelity",
    [*ALL.values(), fidelities.WeightedLeastSquares([[1.0, 2.0], 3.0], several=True), Cauchy()],
)
def test_configuration(fidelity):
    serialised = json.loads(json.dumps(keras.saving.serialize_keras_object(fidelity)))
    again = fidelities.get(serialised)
    assert type(again) is type(fidelity)
    assert again.get_config() == fidelity.get_config()
    assert repr(fidelity).startswith(type(fidelity).__name__)


def test_names():
    assert isinstance(fidelities.get("least_squares"), fidelities.LeastSquares)
    assert fidelities.get("huber").threshold == 0.1
    assert fidelities.get("poisson").background == 1.0
    assert fidelities.get(ALL["huber"]) is ALL["huber"]
    with pytest.raises(ValueError, match="Did you mean 'poisson'"):
        fidelities.get("poison")
    with pytest.raises(TypeError, match="Expected a fidelity"):
        fidelities.get(3)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: fidelities.Huber(0.0), "`threshold`"),
        (lambda: fidelities.Poisson(-1.0), "`background`"),
        (lambda: fidelities.Poisson(0.0), "`background`"),
        (lambda: fidelities.WeightedLeastSquares([1.0, -1.0]), "`weights`.*>= 0"),
        (lambda: fidelities.WeightedLeastSquares([[1.0], [1.0, 2.0]]), "`weights`"),
        (lambda: fidelities.WeightedLeastSquares([]), "`weights`"),
        (lambda: fidelities.WeightedLeastSquares([], several=True), "`weights` to be a list"),
        (lambda: fidelities.WeightedLeastSquares(1.0, several=True), "`weights` to be a list"),
        (lambda: fidelities.WeightedLeastSquares(np.nan), "`weights`"),
        (lambda: fidelities.WeightedLeastSquares("abc"), "`weights`"),
    ],
)
def test_wrong_arguments(make, match):
    with pytest.raises(ValueError, match=match):
        make()


@pytest.mark.parametrize("method", ["value", "gradient"])
def test_wrong_measurements(method):
    zeros = tf.zeros((2, 4, 5, 1))
    for fidelity in ALL.values():
        call = getattr(fidelity, method)
        for other in (zeros[:, :, :1], tf.cast(zeros, tf.float64), [zeros, zeros]):
            with pytest.raises(ValueError, match="Expected a prediction like the measurement"):
                call(zeros, other)
    complex_zeros = tf.cast(zeros, tf.complex64)
    with pytest.raises(ValueError, match="expected counts, which are real"):
        getattr(ALL["poisson"], method)(complex_zeros, complex_zeros)
    for shape in ((2, 5, 4, 1), (2, 20)):
        other = tf.zeros(shape)
        with pytest.raises(ValueError, match="broadcast to the measurement of one image"):
            getattr(ALL["weighted"], method)(other, other)
    with pytest.raises(ValueError, match="weights for 2 measurements"):
        getattr(fidelities.WeightedLeastSquares([1.0, 2.0], several=True), method)(zeros, zeros)

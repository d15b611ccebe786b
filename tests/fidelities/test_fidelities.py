"""Data fidelities against independent formulas, and their constants."""

import keras
import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from deq_keras import fidelities, testing
from tests.variants import covering

SHAPE = (3, 5, 4, 2)
WEIGHTS = np.random.default_rng(9).uniform(0.2, 3.0, size=SHAPE[1:])
FIDELITIES = {
    "least_squares": fidelities.LeastSquares(),
    "weighted": fidelities.WeightedLeastSquares(WEIGHTS),
    "huber": fidelities.Huber(0.4),
    "poisson": fidelities.Poisson(0.7),
}


def _draw(seed, dtype="float64"):
    rng = np.random.default_rng(seed)
    real = rng.normal(size=SHAPE)
    return real + 1j * rng.normal(size=SHAPE) if dtype == "complex128" else real


def _formula(name, v, y):
    r = np.abs(v - y)
    if name == "poisson":
        b, y = 0.7, np.maximum(y, 0.0)
        inside = scipy.special.kl_div(y, np.maximum(v, 0.0) + b)
        taylor = (1 - y / b) * v + y * v**2 / (2 * b**2)
        entries = inside + np.where(v < 0, taylor, 0.0)
    else:
        entries = {
            "least_squares": lambda: 0.5 * r**2,
            "weighted": lambda: 0.5 * WEIGHTS * r**2,
            "huber": lambda: scipy.special.huber(0.4, r),
        }[name]()
    return entries.sum((1, 2, 3))


CASES = [(name, dtype) for name in FIDELITIES for dtype in ("float64", "complex128")]
CASES.remove(("poisson", "complex128"))


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_the_value_is_its_formula(name, dtype):
    v, y = _draw(0, dtype), _draw(1, dtype)
    value = FIDELITIES[name].value(tf.constant(v), tf.constant(y))
    assert value.dtype == tf.float64
    np.testing.assert_allclose(value, _formula(name, v, y), rtol=1e-12)


@pytest.mark.parametrize(("name", "dtype"), covering(CASES))
def test_gradient_convexity_and_constants(name, dtype):
    report = testing.fidelity_test(FIDELITIES[name], SHAPE, dtype)
    sharp = {"least_squares": 1.0, "weighted": WEIGHTS.max(), "huber": 1.0, "poisson": 1 / 0.49}
    assert report.lipschitz <= sharp[name] * (1 + 1e-6)
    if name != "poisson":  # whose constant depends on the counts
        assert report.lipschitz >= 0.9 * sharp[name], "the constant is sharp"


@pytest.mark.parametrize(("name", "dtype"), covering(CASES))
def test_single_precision(name, dtype):
    single = {"float64": "float32", "complex128": "complex64"}[dtype]
    testing.fidelity_test(FIDELITIES[name], SHAPE, single)


@pytest.mark.parametrize("name", ["least_squares", "huber", "poisson"])
def test_several_measurements_add_up(name):
    shapes = [(2, 5, 4, 1), (2, 7, 2)]
    testing.fidelity_test(FIDELITIES[name], shapes)
    v, y = ([tf.constant(np.abs(_draw(s))[:2, ..., :1]) for s in pair] for pair in ((0, 1), (2, 3)))
    total = FIDELITIES[name].value(v, y)
    single = [FIDELITIES[name].value(a, b) for a, b in zip(v, y, strict=True)]
    np.testing.assert_allclose(total, sum(single), rtol=1e-13)


def test_photon_counts_at_the_edges():
    """No count, many counts, negative rates and counts: finite, and zero where they agree."""
    fidelity = fidelities.Poisson(0.5)
    y = tf.constant([[0.0, 1e6, 3.0, -2.0, 0.0]], tf.float64)
    v = tf.constant([[-5.0, 1e6 - 0.5, -9.0, 0.0, 1e8]], tf.float64)
    assert np.isfinite(fidelity.value(v, y)).all()
    assert np.isfinite(fidelity.gradient(v, y)).all()
    exact = tf.constant([[4.0, 0.5]], tf.float64)
    np.testing.assert_allclose(fidelity.value(exact - 0.5, exact), 0.0, atol=1e-14)
    np.testing.assert_allclose(fidelity.gradient(exact - 0.5, exact), 0.0, atol=1e-14)
    np.testing.assert_allclose(fidelity.lipschitz(y), 1e6 / 0.25)
    with pytest.raises(ValueError, match="counts, which are real"):
        fidelity.value(tf.complex(v, v), tf.complex(y, y))


@keras.saving.register_keras_serializable(package="test_fidelities")
class Cauchy(fidelities.Fidelity):
    """Of which nothing is known but its value; not convex."""

    def value(self, v, y):
        return 0.5 * tf.reduce_sum(tf.math.log1p((v - y) ** 2), axis=(1, 2, 3))


def test_a_value_is_enough():
    testing.fidelity_test(Cauchy(), SHAPE)
    assert not Cauchy().certified
    assert Cauchy().lipschitz(None) is Cauchy().strong_convexity(None) is None
    with pytest.raises(NotImplementedError, match="a method `value"):
        fidelities.Fidelity().value(1.0, 1.0)


class Wrong(fidelities.LeastSquares):
    """Least squares with one thing wrong."""

    def __init__(self, wrong):
        self.wrong = wrong
        self.is_convex = True

    def value(self, v, y):
        if self.wrong == "is_convex":
            return Cauchy().value(v, y)
        return super().value(v, y) * (2.0 if self.wrong == "gradient(v, y)" else 1.0)

    def gradient(self, v, y):
        return Cauchy().gradient(v, y) if self.wrong == "is_convex" else super().gradient(v, y)

    def lipschitz(self, y):
        return 0.9 if self.wrong == "lipschitz" else 1.0

    def strong_convexity(self, y):
        if self.wrong == "is_convex":
            return 0.0 - 1.0
        return 1.1 if self.wrong == "strong_convexity" else 1.0

    def measurement_sensitivity(self, v, y):
        return 0.5 if self.wrong == "measurement_sensitivity" else 1.0


@pytest.mark.parametrize(
    "wrong",
    ["gradient(v, y)", "lipschitz", "strong_convexity", "measurement_sensitivity", "is_convex"],
)
def test_the_test_finds_what_is_wrong(wrong):
    with pytest.raises(AssertionError, match=wrong.split("(")[0]):
        testing.fidelity_test(Wrong(wrong), SHAPE)


@pytest.mark.parametrize("fidelity", [*FIDELITIES.values(), fidelities.WeightedLeastSquares(2.0)])
def test_config_round_trip(fidelity):
    again = fidelities.get(keras.saving.serialize_keras_object(fidelity))
    assert type(again) is type(fidelity)
    assert again.get_config() == fidelity.get_config()


@pytest.mark.parametrize(
    ("make", "error", "match"),
    [
        (lambda: fidelities.get("huberr"), ValueError, "Did you mean 'huber'"),
        (lambda: fidelities.get(3), TypeError, "Expected a"),
        (lambda: fidelities.Huber(0.0), ValueError, "`threshold`"),
        (lambda: fidelities.Poisson(-1.0), ValueError, "`background`"),
        (lambda: fidelities.WeightedLeastSquares([-1.0]), ValueError, "`weights`.*>= 0"),
        (lambda: fidelities.WeightedLeastSquares(np.nan), ValueError, "`weights`"),
        (
            lambda: fidelities.WeightedLeastSquares(np.ones((7, 1))).value(
                tf.zeros(SHAPE), tf.zeros(SHAPE)
            ),
            ValueError,
            "broadcast",
        ),
        (
            lambda: fidelities.LeastSquares().value(tf.zeros((2, 3)), tf.zeros((2, 4))),
            ValueError,
            "like the measurement",
        ),
    ],
)
def test_wrong_arguments(make, error, match):
    with pytest.raises(error, match=match):
        make()

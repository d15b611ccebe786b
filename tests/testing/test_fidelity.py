"""`fidelity_test` passes what is right and, above all, fails what is wrong, saying why."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import fidelities, testing

SHAPE = (2, 3, 4)


class Smooth(fidelities.Fidelity):
    """`sum sqrt(1 + r^2)`: convex, with the Lipschitz constant one."""

    is_convex = True
    factor, constant, modulus, bound = 1.0, 1.0, 0.0, 1.0

    def value(self, v, y):
        return tf.reduce_sum(tf.sqrt(1.0 + (v - y) ** 2), axis=(1, 2))

    def gradient(self, v, y):
        return self.factor * (v - y) / tf.sqrt(1.0 + (v - y) ** 2)

    def lipschitz(self, y):
        return self.constant

    def strong_convexity(self, y):
        return self.modulus

    def measurement_sensitivity(self, v, y):
        return self.bound


def _fidelity(**changes):
    return type("Changed", (Smooth,), changes)()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_fidelity_test_passes_a_fidelity_and_finds_its_constants(dtype):
    report = testing.fidelity_test(_fidelity(), SHAPE, dtype)
    assert report.gradient_error < 1e-5
    np.testing.assert_allclose([report.lipschitz, report.measurement_sensitivity], 1, rtol=1e-3)
    assert 0 <= report.strong_convexity < 0.02
    report = testing.fidelity_test(_fidelity(constant=0.1), SHAPE, dtype, check_constants=False)
    assert np.isnan(report[1:]).all()


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"factor": 2.0}, r"gradient\(v, y\) is wrong"),
        ({"gradient": lambda self, v, y: tf.reduce_sum(v - y, 2)}, "a gradient of shape"),
        (
            {"gradient": lambda self, v, y: Smooth.gradient(self, v - tf.reduce_mean(v, 0), y)},
            "gradient of each image alone",
        ),
        ({"value": lambda self, v, y: tf.reduce_sum(Smooth.value(self, v, y))}, "value has shape"),
        (
            {"value": lambda self, v, y: Smooth.value(self, v - tf.reduce_mean(v, 0), y)},
            "value of each image alone",
        ),
        ({"constant": 0.5}, r"lipschitz\(y\) is 0.5"),
        ({"constant": float("nan")}, r"lipschitz\(y\) is nan"),
        ({"modulus": 0.1}, r"strong_convexity\(y\) is 0.1"),
        ({"bound": 0.5}, r"measurement_sensitivity\(v, y\) is 0.5"),
    ],
)
def test_fidelity_test_fails_a_wrong_fidelity_and_says_why(changes, cause):
    with pytest.raises(AssertionError, match=cause):
        testing.fidelity_test(_fidelity(**changes), SHAPE)


def test_fidelity_test_sees_what_is_not_convex():
    class Cauchy(fidelities.Fidelity):
        def value(self, v, y):
            return tf.reduce_sum(tf.math.log1p((v - y) ** 2), axis=(1, 2))

    assert testing.fidelity_test(Cauchy(), SHAPE).strong_convexity < -0.1
    with pytest.raises(AssertionError, match="is_convex is True"):
        testing.fidelity_test(type("Convex", (Cauchy,), {"is_convex": True})(), SHAPE)


def test_fidelity_test_of_complex_gradients():
    class Conjugate(fidelities.LeastSquares):
        def gradient(self, v, y):
            return tf.math.conj(v - y)

    with pytest.raises(AssertionError, match="conjugate of a complex residual"):
        testing.fidelity_test(Conjugate(), SHAPE, "complex128")


def test_fidelity_test_takes_a_measurement():
    y = tf.ones(SHAPE, tf.float64)
    report = testing.fidelity_test(fidelities.Poisson(0.5), SHAPE, measurement=y)
    np.testing.assert_allclose(report.lipschitz, 4.0, rtol=1e-3)


def test_fidelity_test_wants_two_images_and_a_known_dtype():
    with pytest.raises(ValueError, match="two images"):
        testing.fidelity_test(_fidelity(), (1, 3, 4))
    with pytest.raises(ValueError, match="of a dtype among"):
        testing.fidelity_test(_fidelity(), SHAPE, "float16")

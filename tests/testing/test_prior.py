"""`prior_test` passes what is right and, above all, fails what is wrong, saying why."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import testing

ODD = (2, 13, 18, 1)
EVEN = (2, 12, 16, 1)


class Quadratic(keras.layers.Layer):
    """`Σ φ(∂u)` of circular differences, `φ(s) = log cosh s`: `0 <= φ'' <= 1`, `‖∂‖² <= 4`."""

    lipschitz, modulus, factor, concave = 4.0, 0.0, 1.0, 0.0

    def _differences(self, u):
        return tf.roll(u, -1, 1) - u

    def energy(self, u):
        d = self._differences(u)
        log_cosh = tf.math.softplus(2 * d) - d - tf.cast(np.log(2.0), d.dtype)
        return tf.reduce_sum(log_cosh - 0.5 * self.concave * u * u, axis=[1, 2, 3])

    def gradient(self, u):
        slope = tf.tanh(self._differences(u))
        return self.factor * (tf.roll(slope, 1, 1) - slope) - self.concave * u

    def gradient_lipschitz(self, size=None):
        return self.lipschitz

    def strong_convexity(self):
        return self.modulus


def _prior(dtype="float64", **changes):
    return type("Changed", (Quadratic,), changes)(dtype=dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_prior_test_passes_a_prior_and_finds_its_constants(dtype):
    report = testing.prior_test(_prior(dtype), EVEN, dtype)
    assert report.gradient_error < 1e-5
    assert 3.9 < report.lipschitz <= 4.001
    assert -0.001 < report.strong_convexity < 0.1
    weakly = _prior(concave=0.7, modulus=-0.7)
    assert -0.7001 < testing.prior_test(weakly, ODD).strong_convexity < -0.6


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"factor": 2.0}, "a factor"),
        ({"_differences": lambda self, u: u - tf.roll(u, -1, 2)}, "adjoint of the filters"),
        ({"lipschitz": 3.5}, r"gradient_lipschitz\(\) is 3.5"),
        ({"lipschitz": float("nan")}, r"gradient_lipschitz\(\) is nan"),
        ({"gradient_lipschitz": lambda self, size=None: 1.0}, r"gradient_lipschitz\(\) is 1"),
        ({"modulus": 0.1}, r"strong_convexity\(\) is 0.1"),
        ({"concave": 0.7, "modulus": -0.5}, r"strong_convexity\(\) is -0.5"),
        ({"energy": lambda self, u: tf.reduce_sum(Quadratic.energy(self, u))}, "energy has shape"),
        (
            {"energy": lambda self, u: Quadratic.energy(self, u - tf.reduce_mean(u, 0))},
            "energy of each image alone",
        ),
        (
            {"gradient": lambda self, u: Quadratic.gradient(self, u - tf.reduce_mean(u, 0))},
            "gradient of each image alone",
        ),
    ],
)
def test_prior_test_fails_a_wrong_prior_and_says_why(changes, cause):
    with pytest.raises(AssertionError, match=cause):
        testing.prior_test(_prior(**changes), EVEN)


def test_prior_test_needs_the_derivative_of_the_energy_to_be_right_as_well():
    @tf.custom_gradient
    def conspiring(u):
        return 0.75 * tf.reduce_sum(u * u, [1, 2, 3]), lambda up: up[:, None, None, None] * u

    changes = {"energy": lambda self, u: conspiring(u), "gradient": lambda self, u: u}
    with pytest.raises(AssertionError, match="0.666667 times"):
        testing.prior_test(_prior(**changes), EVEN)


def test_prior_test_of_a_prior_without_energy_or_constants():
    class Untied:
        has_energy = False

        def gradient(self, u):
            return 2 * u

        def strong_convexity(self):
            raise NotImplementedError

    report = testing.prior_test(Untied(), EVEN)
    assert np.isnan(report.gradient_error)
    np.testing.assert_allclose([report.lipschitz, report.strong_convexity], 2, rtol=1e-9)
    report = testing.prior_test(Untied(), EVEN, check_constants=False)
    assert np.isnan(report).all()


def test_prior_test_wants_two_images_and_the_dtype_of_the_prior():
    with pytest.raises(ValueError, match="two images"):
        testing.prior_test(_prior(), (1, 8, 8, 1))
    with pytest.raises(ValueError, match="dtype='float64'"):
        testing.prior_test(_prior("float32"), EVEN)
    with pytest.raises(ValueError, match="float64 or float32"):
        testing.prior_test(_prior("float16"), EVEN, "float16")

"""`gradient_test` passes what is right and, above all, fails what is wrong, saying why."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import testing


@tf.custom_gradient
def _square_off_by(factor, x):
    return x * x, lambda upstream: (None, factor * 2 * x * upstream)


def test_gradient_test_passes_tensors_and_variables_and_restores_them():
    kernel = keras.Variable(np.array([[0.5, -1.0], [2.0, 0.1]]), dtype="float64")
    bias = tf.Variable([0.3, -0.2], dtype="float64", trainable=False)
    before = kernel.numpy(), bias.numpy()

    def function(x, y):
        return tf.math.softplus(tf.matmul(x, tf.convert_to_tensor(kernel)) + bias) * tf.sin(y)

    error = testing.gradient_test(
        function, [[0.4, -0.7]], tf.constant([[2.0], [1.0]]), variables=[kernel, bias]
    )
    assert error < 1e-7
    np.testing.assert_array_equal(kernel, before[0])
    np.testing.assert_array_equal(bias, before[1])


def test_gradient_test_restores_variables_after_an_error():
    variable = keras.Variable([1.0, 2.0], dtype="float64")
    calls = []

    def fails_later(x):
        calls.append(x)
        if len(calls) > 4:
            raise RuntimeError("interrupted")
        return x * tf.convert_to_tensor(variable)

    with pytest.raises(RuntimeError, match="interrupted"):
        testing.gradient_test(fails_later, [3.0, 4.0], variables=[variable])
    np.testing.assert_array_equal(variable, [1.0, 2.0])


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_gradient_test_does_not_depend_on_scale(scale):
    x = scale * np.array([0.3, -1.0, 2.0])
    assert testing.gradient_test(lambda x: tf.sin(x / scale) * scale**2, x) < 1e-6
    with pytest.raises(AssertionError, match="1.0001 times"):
        testing.gradient_test(lambda x: _square_off_by(1.0001, x), x)


@pytest.mark.parametrize(
    ("function", "cause"),
    [
        (lambda x: _square_off_by(2.0, x), "2 times that of differences"),
        (lambda x: _square_off_by(-1.0, x), "-1 times that of differences"),
        (lambda x: tf.stop_gradient(x) ** 2, "no gradient reaches it"),
        (lambda x: tf.stop_gradient(x) * x, "0.5 times"),
        (lambda x: tf.sqrt(x - x) + x, "NaN or infinity"),
        (lambda x: x + 1e-3 * tf.random.normal(x.shape, dtype=x.dtype), "do not settle"),
    ],
)
def test_gradient_test_fails_a_wrong_derivative_and_says_why(function, cause):
    with pytest.raises(AssertionError, match=cause):
        testing.gradient_test(function, [0.4, 1.3, 0.9])


def test_gradient_test_names_the_argument_that_is_wrong():
    with pytest.raises(AssertionError, match="argument 1 "):
        testing.gradient_test(lambda x, y: x**3 + 1e-3 * tf.stop_gradient(y) * y, [1.0], [2.0])


def test_gradient_test_of_what_does_not_depend_on_its_argument():
    assert testing.gradient_test(lambda x, y: tf.exp(x), [1.0, 0.2], [5.0]) < 1e-6


def test_gradient_test_wants_float64():
    with pytest.raises(ValueError, match=r"variables of \['float32'\]"):
        testing.gradient_test(lambda: 1.0, variables=[tf.Variable(1.0)])
    with pytest.raises(ValueError, match="at least one"):
        testing.gradient_test(lambda: 1.0)
    with pytest.raises(ValueError, match="float64 result"):
        testing.gradient_test(lambda x: tf.cast(x, "float32"), [1.0])

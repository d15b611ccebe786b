"""`dot_test` passes what is right and, above all, fails what is wrong, saying why."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import testing

ODD = (2, 13, 18, 1)
EVEN = (2, 12, 16, 1)


KERNEL = np.random.default_rng(0).normal(size=(3, 4))


class Blur:
    """Circular convolution with a kernel that has no symmetry; its adjoint can be sabotaged."""

    def __init__(self, kernel=KERNEL, fault=None):
        self.kernel, self.fault = kernel, fault

    def _convolve(self, u, kernel, sign):
        rows, columns = kernel.shape
        kernel = tf.constant(kernel, u.dtype)
        return tf.add_n(
            [
                kernel[i, j] * tf.roll(u, (sign * i, sign * j), (1, 2))
                for i in range(rows)
                for j in range(columns)
            ]
        )

    def __call__(self, u):
        if self.fault == "batch order":
            u = u[::-1]
        return self._convolve(u, self.kernel, 1)

    def adjoint(self, v):
        if self.fault == "transposed":
            return self._convolve(v, self.kernel.T, -1)
        if self.fault == "not flipped":
            return self(v)
        back = self._convolve(v, self.kernel, -1)
        if self.fault == "shifted":
            return tf.roll(back, 1, 2)
        if self.fault == "scaled":
            return 2 * back
        if self.fault == "border":
            return tf.concat([back[:, :, :1] * 0, back[:, :, 1:]], axis=2)
        if self.fault == "batch order":
            return back[::-1]
        if self.fault == "nan":
            return back * np.nan
        if self.fault == "size":
            return back[:, :-1]
        return back


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [ODD, EVEN, (3, 7, 5, 2)])
def test_dot_test_passes_an_adjoint(shape, dtype):
    error = testing.dot_test(Blur(), shape, dtype)
    assert 0 <= error < {"float32": 1e-6, "float64": 1e-14}[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("transposed", "transposed where it should be flipped"),
        ("not flipped", "transposed where it should be flipped"),
        ("shifted", "shifted by a pixel"),
        ("scaled", "2 times the right one"),
        ("border", "the border"),
        ("batch order", "mixes the images of a batch"),
        ("nan", "<K u, v> for each image"),
        ("size", "forgets the size"),
    ],
)
def test_dot_test_fails_a_wrong_adjoint_and_says_why(fault, cause, dtype):
    with pytest.raises(AssertionError, match=cause):
        testing.dot_test(Blur(fault=fault), (3, 13, 18, 1), dtype)


def test_dot_test_fails_a_symmetric_even_kernel_that_is_not_flipped():
    symmetric = Blur(np.ones((2, 2)), fault="not flipped")
    with pytest.raises(AssertionError, match="even kernel shifted"):
        testing.dot_test(symmetric, ODD)


@pytest.mark.parametrize(
    "disturb",
    [
        lambda u: tf.clip_by_value(u, -1.0, 1.0),
        lambda u: u / tf.norm(u),
        lambda u: u + tf.random.stateless_normal(u.shape, tf.shape(u)[:2], dtype=u.dtype),
    ],
    ids=["clips", "normalises", "offset"],
)
def test_dot_test_fails_what_is_not_linear(disturb):
    class Disturbed(Blur):
        def __call__(self, u):
            return disturb(super().__call__(u))

    with pytest.raises(AssertionError, match="differ"):
        testing.dot_test(Disturbed(), ODD, "float64")


def test_dot_test_checks_linearity_where_the_inner_products_agree():
    class ScaledByNorm:
        """`s(u) u` with an adjoint that remembers `s`: linear at every single image."""

        def __call__(self, u):
            self.factor = tf.reduce_mean(tf.abs(u))
            return self.factor * u

        def adjoint(self, v):
            return self.factor * v

    with pytest.raises(AssertionError, match=r"K\(a u₁ \+ b u₂\)"):
        testing.dot_test(ScaledByNorm(), ODD, "float64")


def test_dot_test_of_maps_to_other_shapes_complex_values_and_with_data():
    class MaskedFourier:
        def __call__(self, u, mask):
            return tf.signal.fft2d(tf.cast(u[..., 0], "complex128")) * tf.cast(mask, "complex128")

        def adjoint(self, v, mask):
            v = v * tf.cast(mask, "complex128")
            pixels = tf.cast(tf.size(v[0]), "complex128")
            return tf.math.real(pixels * tf.signal.ifft2d(v))[..., None]

    mask = np.random.default_rng(1).uniform(size=(2, 13, 18)) < 0.4
    testing.dot_test(MaskedFourier(), ODD, "float64", data=mask)

    class Unconjugated(MaskedFourier):
        def adjoint(self, v, mask):
            return super().adjoint(tf.math.conj(v), mask)

    with pytest.raises(AssertionError, match="conjugate"):
        testing.dot_test(Unconjugated(), ODD, "float64", data=mask)


def test_dot_test_of_zero_is_zero():
    class Zero:
        def __call__(self, u):
            return 0 * u

        adjoint = __call__

    assert testing.dot_test(Zero(), ODD) == 0
    with pytest.raises(AssertionError, match="differ"):
        testing.dot_test(type("Half", (Zero,), {"adjoint": lambda self, v: v})(), ODD)


def test_dot_test_asks_for_the_dtype_of_a_layer():
    class Identity(keras.layers.Layer):
        def call(self, u):
            return u

        def adjoint(self, v):
            return v

    assert testing.dot_test(Identity(dtype="float64"), ODD, "float64") == 0
    with pytest.raises(ValueError, match="dtype='float64'"):
        testing.dot_test(Identity(), ODD, "float64")
    with pytest.raises(ValueError, match="explicit `rtol`"):
        testing.dot_test(Blur(), ODD, "float16")
    testing.dot_test(Blur(), ODD, "float16", rtol=1e-2)

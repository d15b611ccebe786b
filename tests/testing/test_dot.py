"""`dot_test` passes what is right and, above all, fails what is wrong, saying why."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import operators, testing
from deq_keras.numerics import partial

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


class Halved(operators.LinearOperator):
    """Means of 2 x 2 pixels; what is wrong with it can be chosen."""

    def __init__(self, fault=None, **kwargs):
        super().__init__(**kwargs)
        self.fault = fault

    def call(self, u, data=None):
        return tf.nn.avg_pool2d(u, 2, 2, "VALID")

    def adjoint(self, v, data=None, image_shape=None):
        back = 0.25 * tf.repeat(tf.repeat(v, 2, 1), 2, 2)
        return tf.pad(back, [[0, 0], *([0, n % 2] for n in image_shape[1:3]), [0, 0]])

    def operator_norm(self, data=None, image_shape=None):
        return tf.constant(0.5 if self.fault != "norm" else 0.4, self.variable_dtype)

    def bind(self, image_shape, data=None, dtype=None):
        bound = super().bind(image_shape, data, dtype)
        if self.fault in bound._fields:
            half = partial.Partial(lambda x, f: 0.5 * f(x), (getattr(bound, self.fault),))
            bound = bound._replace(**{self.fault: half})
        return bound

    def compute_output_spec(self, u, data=None):
        spec = super().compute_output_spec(u, data)
        # What a Keras layer states that says nothing of its own.
        return keras.KerasTensor(u.shape, spec.dtype) if self.fault == "symbolic" else spec


class Frequencies(operators.LinearOperator):
    """A masked Fourier transform with complex measurements; the imaginary part can be dropped."""

    def __init__(self, fault=None, **kwargs):
        super().__init__(**kwargs)
        self.fault = fault

    def call(self, u, data=None):
        planes = tf.transpose(tf.complex(u, tf.zeros_like(u)), [0, 3, 1, 2])
        y = tf.transpose(tf.signal.fft2d(planes), [0, 2, 3, 1])
        return y * tf.cast(data["mask"], y.dtype)

    def adjoint(self, v, data=None, image_shape=None):
        if self.fault == "real part":
            v = tf.complex(tf.math.real(v), tf.zeros_like(tf.math.real(v)))
        v = v * tf.cast(data["mask"], v.dtype)
        planes = tf.signal.ifft2d(tf.transpose(v, [0, 3, 1, 2]))
        back = tf.math.real(tf.transpose(planes, [0, 2, 3, 1]))
        return tf.cast(tf.size(v[0, :, :, 0]), back.dtype) * back

    def compute_output_spec(self, u, data=None):
        spec = super().compute_output_spec(u, data)
        dtype = self.compute_dtype if self.fault == "symbolic" else spec.dtype
        return keras.KerasTensor(spec.shape, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [ODD, EVEN])
def test_dot_test_passes_operators_with_other_measurements(shape, dtype):
    assert testing.dot_test(Halved(dtype=dtype), shape, dtype) < 1e-5
    mask = np.random.default_rng(1).uniform(size=shape) < 0.4
    testing.dot_test(Frequencies(dtype=dtype), shape, dtype, data={"mask": mask})
    stack = operators.Stack([Halved(dtype=dtype), Frequencies(dtype=dtype)])
    testing.dot_test(stack, shape, dtype, data=[None, {"mask": mask}])


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("symbolic", "states measurements .* of another size or dtype"),
        ("norm", r"operator_norm is 0.4, but there are images with"),
        ("forward", r"bind\(...\).forward\(u\) is not"),
        ("adjoint", r"bind\(...\).adjoint\(v\) is not"),
        ("normal", r"bind\(...\).normal\(u\) is not"),
    ],
)
def test_dot_test_fails_operators_that_contradict_themselves(fault, message):
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        testing.dot_test(Halved(fault, dtype="float64"), EVEN, "float64")


@pytest.mark.parametrize(
    ("fault", "message"),
    [("symbolic", "'float64'.*'complex128'"), ("real part", "drops the imaginary part")],
)
def test_dot_test_fails_an_imaginary_part_that_is_dropped(fault, message):
    mask = np.ones((1, 13, 18, 1))
    with pytest.raises(AssertionError, match=f"(?s){message}"):
        testing.dot_test(Frequencies(fault, dtype="float64"), ODD, "float64", data={"mask": mask})


def test_dot_test_asks_for_the_batch_and_for_the_size_of_the_image():
    class Flat(Halved):
        def call(self, u, data=None):
            return tf.reshape(u, [-1])

        def adjoint(self, v, data=None, image_shape=None):
            return tf.reshape(v, image_shape)

    with pytest.raises(AssertionError, match="batch on its first axis"):
        testing.dot_test(Flat(), ODD)

    class Small(Halved):
        def adjoint(self, v, data=None, image_shape=None):
            return 0.25 * tf.repeat(tf.repeat(v, 2, 1), 2, 2)

    testing.dot_test(Small(), EVEN)
    with pytest.raises(AssertionError, match="forgets the size of the image"):
        testing.dot_test(Small(), ODD)

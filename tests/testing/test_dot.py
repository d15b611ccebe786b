"""`dot_test` passes what is right and, above all, fails what is wrong, saying why."""

from itertools import product

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import operators, testing
from tests.variants import covering

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


class Every(operators.LinearOperator):
    """Every second pixel; what it states can be sabotaged."""

    def __init__(self, fault=None, **kwargs):
        super().__init__(dtype="float64", **kwargs)
        self.fault = fault

    def call(self, u, data=None):
        return u[:, ::2, ::2]

    def measurement_shape(self, image_shape, data_shape=None):
        batch, height, width, channels = image_shape
        if self.fault == "measurement shape":
            return (batch, height, width, channels)
        return (batch, (height + 1) // 2, (width + 1) // 2, channels)

    def compute_output_spec(self, u, data=None):
        if self.fault == "output spec":
            return keras.KerasTensor(u.shape, u.dtype)
        if self.fault == "batch":
            spec = super().compute_output_spec(u)
            return keras.KerasTensor((int(u.shape[0]), *spec.shape[1:]), spec.dtype)
        return super().compute_output_spec(u, data)

    def adjoint(self, v, data=None, image_shape=None):
        back = super().adjoint(v, data, image_shape)
        return back[:, :-1] if self.fault == "adjoint" else back

    def bind(self, image_shape, data=None, dtype=None):
        bound = super().bind(image_shape, data, dtype)
        if self.fault in ("forward", "normal"):
            right = getattr(bound, self.fault)
            bound = bound._replace(**{self.fault: lambda u: 2 * right(u)})
        if self.fault == "spectrum":
            bound = bound._replace(spectrum=lambda: tf.ones((1, 13, 18)))
        return bound

    def operator_norm(self, data=None, image_shape=None):
        return tf.constant(0.9 if self.fault == "norm" else 1.0, tf.float64)

    def smallest_singular_value(self, data=None):
        return tf.constant(0.9 if self.fault == "smallest" else 0.0, tf.float64)


@pytest.mark.parametrize("shape", [ODD, EVEN])
def test_dot_test_passes_an_operator_to_other_sizes(shape):
    testing.dot_test(Every(), shape, "float64")


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("output spec", "forgets a stride or takes complex"),
        ("measurement shape", "`measurement_shape` states"),
        ("batch", "of an unknown batch raised"),
        ("adjoint", "forgets the size"),
        ("forward", r"forward\(u\)` is not what call"),
        ("normal", r"normal\(u\)` is not what call"),
        ("spectrum", "the spectrum has shape"),
        ("norm", "a step size from it would diverge"),
        ("smallest", "smallest singular value is said to be"),
    ],
)
def test_dot_test_fails_an_operator_that_states_what_is_wrong(fault, cause):
    with pytest.raises(AssertionError, match=cause):
        testing.dot_test(Every(fault), ODD, "float64")


class KeptSize(operators.LinearOperator):
    """What every operator stated once: measurements of the shape and dtype of the images."""

    def compute_output_spec(self, u, data=None):
        return keras.KerasTensor(u.shape, self.compute_dtype)


def test_dot_test_fails_a_downsampling_whose_symbolic_model_has_the_size_of_the_image():
    class Half(KeptSize):
        def call(self, u, data=None):
            return tf.nn.avg_pool2d(u, 2, 2, "VALID")

    with pytest.raises(AssertionError, match=r"states measurements \[\(\(2, 12, 16, 1\)"):
        testing.dot_test(Half(), EVEN)


def test_dot_test_fails_a_fourier_transform_whose_symbolic_model_drops_the_imaginary_part():
    def transform(u, mask):
        return tf.signal.fft2d(tf.complex(u, tf.zeros_like(u))[..., 0])[..., None] * mask

    class Dropped(KeptSize):
        def call(self, u, data=None):
            return transform(u, tf.cast(data, tf.complex64))

    class Kept(operators.LinearOperator):
        def call(self, u, data=None):
            return transform(u, tf.cast(data, tf.complex64))

    mask = np.random.default_rng(1).uniform(size=EVEN) < 0.4
    with pytest.raises(AssertionError, match="'float32'.*'complex64'"):
        testing.dot_test(Dropped(), EVEN, data=mask)
    testing.dot_test(Kept(), EVEN, data=mask)


MASKS = np.random.default_rng(2).uniform(size=(2, 13, 18, 1))
OPERATORS = {
    "identity": (operators.Identity, None),
    "mask": (operators.Mask, MASKS),
    "blur": (lambda dtype: operators.MotionBlur(5, 30.0, "reflect", dtype=dtype), None),
    "downsample": (lambda dtype: operators.Downsample((2, 3), dtype=dtype), None),
    "fourier": (operators.FourierMask, MASKS),
    "compose": (
        lambda dtype: operators.FourierMask(dtype=dtype) @ operators.BoxBlur(3, dtype=dtype),
        [MASKS, None],
    ),
    "sum": (
        lambda dtype: operators.Mask(dtype=dtype) - operators.BoxBlur(2, dtype=dtype),
        [MASKS, None],
    ),
    "stack": (
        lambda dtype: operators.Stack(
            [
                2 * operators.Downsample(2, dtype=dtype),
                operators.FourierMask(dtype=dtype),
                operators.Identity(dtype=dtype),
            ]
        ),
        [None, MASKS, None],
    ),
}


@pytest.mark.parametrize(("name", "dtype"), covering(product(OPERATORS, ["float32", "float64"])))
def test_dot_test_passes_all_operators(name, dtype):
    make, data = OPERATORS[name]
    for channels in (1, 3):
        testing.dot_test(make(dtype=dtype), (2, 13, 18, channels), dtype, data=data)


def test_dot_test_fails_a_stack_with_one_wrong_adjoint():
    class Wrong(operators.BoxBlur):
        def bind(self, image_shape, data=None, dtype=None):
            bound = super().bind(image_shape, data, dtype)
            return bound._replace(adjoint=bound.forward)

    stack = operators.Stack([operators.Identity(), Wrong((2, 3), padding="zero")])
    with pytest.raises(AssertionError, match="even kernel shifted"):
        testing.dot_test(stack, ODD)


def test_dot_test_fails_an_adjoint_that_drops_the_imaginary_part():
    class Fourier:
        def __call__(self, u):
            return tf.signal.fft2d(tf.cast(u[..., 0], "complex128"))

        def adjoint(self, v):
            v = tf.cast(tf.math.real(v), v.dtype)
            return tf.math.real(tf.signal.ifft2d(v) * tf.cast(tf.size(v[0]), v.dtype))[..., None]

    with pytest.raises(AssertionError, match="drops the imaginary part"):
        testing.dot_test(Fourier(), ODD, "float64")


def test_dot_test_asks_for_the_batch():
    class Flat:
        def __call__(self, u):
            return tf.reshape(u, [-1])

        def adjoint(self, v):
            return tf.reshape(v, ODD)

    with pytest.raises(AssertionError, match="no batch on the first axis"):
        testing.dot_test(Flat(), ODD)

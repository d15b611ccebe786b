"""What a person's own operator gets from its call alone, and what a bound operator holds."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import operators
from deq_keras.numerics import partial


@keras.saving.register_keras_serializable(package="test")
class Sums(operators.LinearOperator):
    """A call alone, to measurements of another rank: the sum of each row times a weight."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.weight = self.add_weight(shape=(), initializer="ones", name="weight")

    def call(self, u, data=None):
        return self.weight * tf.reduce_sum(u, axis=2)


class Coils(operators.LinearOperator):
    """A call alone, to complex measurements, with data of two parts."""

    def call(self, u, data=None):
        mask, maps = data
        x = tf.complex(u, tf.zeros_like(u)) * maps
        x = tf.signal.fft2d(tf.transpose(x, [0, 3, 1, 2])) / np.sqrt(30)
        return x * tf.cast(mask, x.dtype)

    def image_shape(self, measurement_shape, data_shape=None):
        batch, _, height, width = measurement_shape
        return batch, height, width, 1


def normal(seed, shape):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape))


def cnormal(seed, shape):
    return tf.complex(normal(seed, shape), normal(seed + 1, shape))


def real_inner(a, b):
    return float(tf.reduce_sum(tf.math.real(a * tf.math.conj(b))))


SHAPE = (2, 5, 6, 1)
DATA = (tf.cast(normal(3, (2, 1, 5, 6)) > 0, tf.float64), cnormal(4, (2, 5, 6, 3)))


def test_adjoint_by_differentiation():
    sums, u, v = Sums(dtype="float64"), normal(1, SHAPE), normal(2, (2, 5, 1))
    np.testing.assert_allclose(
        sums.adjoint(v, image_shape=SHAPE), np.broadcast_to(v[:, :, None], SHAPE)
    )
    np.testing.assert_allclose(
        sums.bind(SHAPE).normal(u), 0 * u + tf.reduce_sum(u, 2, keepdims=True)
    )


def test_adjoint_of_complex_measurements_with_several_data():
    coils, u, v = Coils(dtype="float64"), normal(1, SHAPE), cnormal(6, (2, 3, 5, 6))
    back = coils.adjoint(v, DATA)
    assert back.dtype == tf.float64
    assert real_inner(coils(u, DATA), v) == pytest.approx(real_inner(u, back), rel=1e-12)
    bound = coils.bind(SHAPE, DATA)
    np.testing.assert_allclose(bound.forward(u), coils(u, DATA))
    np.testing.assert_allclose(bound.adjoint(v), back)
    np.testing.assert_allclose(bound.normal(u), bound.adjoint(bound.forward(u)), atol=1e-12)


def test_adjoint_in_a_graph_of_unknown_sizes_and_in_a_loop():
    coils, v = Coils(dtype="float64"), cnormal(6, (2, 3, 5, 6))
    signature = [
        tf.TensorSpec((None, 3, None, None), tf.complex128),
        tf.TensorSpec((None, 1, None, None), tf.float64),
        tf.TensorSpec((None, None, None, 3), tf.complex128),
    ]

    @tf.function(input_signature=signature, autograph=False)
    def twice(v, mask, maps):
        bound = coils.bind((tf.shape(v)[0], *tf.unstack(tf.shape(v))[2:], 1), (mask, maps))
        u = bound.adjoint(v)
        return tf.while_loop(lambda i, u: i < 2, lambda i, u: (i + 1, bound.normal(u)), (0, u))[1]

    u = coils.adjoint(v, DATA)
    for _ in range(2):
        u = coils.adjoint(coils(u, DATA), DATA)
    np.testing.assert_allclose(twice(v, *DATA), u, atol=1e-12)


def test_adjoint_is_differentiable_in_measurements_and_data():
    coils, v, w = Coils(dtype="float64"), cnormal(6, (2, 3, 5, 6)), normal(8, SHAPE)
    mask, maps = DATA
    with tf.GradientTape() as tape:
        tape.watch([v, maps])
        value = tf.reduce_sum(coils.adjoint(v, (mask, maps)) * w)
    by_v, by_maps = tape.gradient(value, [v, maps])
    np.testing.assert_allclose(by_v, coils(w, DATA), atol=1e-12)
    # The value is linear in the maps: Re <S, g> is the value itself.
    assert real_inner(by_maps, maps) == pytest.approx(float(value), rel=1e-12)


def test_adjoint_without_a_size_or_of_another_says_so():
    sums = Sums(dtype="float64")
    with pytest.raises(ValueError, match="expected images of shape"):
        sums.adjoint(normal(1, (2, 5, 1)))
    with pytest.raises(ValueError, match=r"float64 \(2, 7, 1\). Received float64 \(2, 5, 1\)"):
        sums.adjoint(normal(1, (2, 5, 1)), image_shape=(2, 7, 6, 1))
    with pytest.raises(ValueError, match="needs the size of the images"):
        sums.adjoint(normal(1, (2, 5, 1)), image_shape=(2, 5, None, 1))


def test_call_that_has_no_derivative_says_so():
    class Rounded(operators.LinearOperator):
        def call(self, u, data=None):
            return tf.cast(tf.cast(u, tf.int32), u.dtype)

    with pytest.raises(ValueError, match="cannot be differentiated"):
        Rounded(dtype="float64").adjoint(normal(1, SHAPE))
    with pytest.raises(NotImplementedError, match="LinearOperator must define `call"):
        operators.LinearOperator().call(normal(1, SHAPE))


def test_norm_is_an_estimate_of_the_real_size():
    sums = Sums(dtype="float64")
    assert not sums.certified
    for width in (6, 11):
        norm = sums.operator_norm(image_shape=(None, 5, width, 1))
        assert float(norm) == pytest.approx(1.05 * np.sqrt(width), rel=1e-6)
    with pytest.raises(ValueError, match="estimated on images of the real size"):
        sums.operator_norm()
    with pytest.raises(ValueError, match=r"image_shape=\(2, None, 6, 1\)"):
        sums.operator_norm(image_shape=(2, None, 6, 1))
    with tf.GradientTape() as tape:
        norm = sums.operator_norm(image_shape=SHAPE)
    assert float(tape.gradient(norm, sums.weight)) == pytest.approx(float(norm), rel=1e-6)
    sums.weight.assign(0.0)
    assert float(sums.operator_norm(image_shape=SHAPE)) == 0


def test_norm_of_each_image_where_there_are_data():
    coils = Coils(dtype="float64")
    norms = tf.function(lambda *data: coils.operator_norm(data, SHAPE), autograph=False)(*DATA)
    for i in range(2):
        mask, maps = (part[i : i + 1] for part in DATA)
        basis = tf.reshape(tf.eye(30, dtype=tf.float64), (30, 5, 6, 1))
        matrix = tf.reshape(coils(basis, (mask, maps)), (30, -1)).numpy()
        exact = np.linalg.norm(np.concatenate([matrix.real, matrix.imag], 1), 2)
        assert exact <= norms[i] <= 1.06 * exact
        alone = coils.operator_norm((mask, maps), (1, *SHAPE[1:]))
        np.testing.assert_allclose(alone, norms[i : i + 1], rtol=1e-12)


def test_smallest_singular_value_is_not_known():
    assert float(Sums().smallest_singular_value()) == 0


def test_symbolic_models_state_shape_and_dtype(tmp_path):
    sums = Sums(dtype="float64")
    assert sums.measurement_shape((None, 5, 6, 1)) == (None, 5, 1)
    assert sums.compute_output_shape((None, None, None, 2)) == (None, None, 2)
    output = sums(keras.Input((5, 6, 1), dtype="float64"))
    assert output.shape == (None, 5, 1)
    spec = Coils()(
        keras.Input((5, 6, 1)),
        (keras.Input((1, 5, 6)), keras.Input((5, 6, 3), dtype="complex64")),
    )
    assert (spec.shape, spec.dtype) == ((None, 3, 5, 6), "complex64")
    model = keras.Sequential([keras.Input((5, 6, 1)), Sums()])
    model.layers[0].weight.assign(3.0)
    model.save(tmp_path / "model.keras")
    u = tf.cast(normal(1, SHAPE), tf.float32)
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(u), model(u))


MASK = np.random.default_rng(0).random((5, 6))
KERNEL = np.random.default_rng(1).standard_normal((3, 3))
BOUND = {
    "sums": (lambda: Sums(dtype="float64"), None),
    "mask": (lambda: operators.Mask(MASK, True, dtype="float64"), None),
    "masks": (lambda: operators.Mask(dtype="float64"), normal(7, SHAPE)),
    "fft": (lambda: operators.Blur(KERNEL, "reflect", "fft", True, dtype="float64"), None),
    "circular": (lambda: operators.Blur(KERNEL, "circular", "fft", True, dtype="float64"), None),
    "downsample": (
        lambda: operators.Downsample(2, KERNEL, "reflect", trainable=True, dtype="float64"),
        None,
    ),
    "fourier": (lambda: operators.FourierMask(MASK, True, dtype="float64"), None),
    "fourier masks": (lambda: operators.FourierMask(dtype="float64"), normal(7, SHAPE)),
    "direct": (lambda: operators.Blur(KERNEL, "zero", "direct", True, dtype="float64"), None),
}


def everything(bound, u):
    y = bound.forward(u)
    known = [part() for part in (bound.spectrum, bound.diagonal) if part is not None]
    return [y, bound.adjoint(y), bound.normal(u), *known]


@pytest.mark.parametrize("name", BOUND)
def test_bound_operator_holds_what_it_depends_on(name):
    make, data = BOUND[name]
    operator, u = make(), normal(1, SHAPE)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([u] if data is None else [u, data])
        bound = operator.bind(SHAPE, data)
        before = everything(bound, u)
        frozen = everything(partial.stopped(bound), tf.stop_gradient(u))
        total = tf.add_n([tf.reduce_sum(tf.math.real(part)) for part in before[:3]])
        cut = tf.add_n([tf.reduce_sum(tf.math.real(part)) for part in frozen])
    sources = [w.value for w in operator.weights] + ([] if data is None else [data])
    assert all(g is not None for g in tape.gradient(total, sources))
    assert all(g is None for g in tape.gradient(cut, sources))
    for w in operator.weights:
        w.assign(7 * w + 1)
    for old, stopped, new in zip(before, frozen, everything(bound, u), strict=True):
        np.testing.assert_array_equal(old, new)
        np.testing.assert_array_equal(old, stopped)


@pytest.mark.parametrize("name", BOUND)
def test_bound_operator_for_some_rows(name):
    make, data = BOUND[name]
    operator, u = make(), normal(1, SHAPE)
    bound = operator.bind(SHAPE, data)
    rows = partial.take_rows(bound, tf.constant([1, 0, 1]))
    taken = everything(rows, tf.gather(u, [1, 0, 1]))
    for part, some in list(zip(everything(bound, u), taken, strict=True))[:3]:
        np.testing.assert_allclose(some, tf.gather(part, [1, 0, 1]), atol=1e-13)

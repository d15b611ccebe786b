"""Compositions, sums, multiples and stacks of operators, against their matrices."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import operators
from deq_keras.numerics import partial

RNG = np.random.default_rng(0)
SHAPE = (2, 7, 6, 1)
MASK = RNG.random((7, 6))
MASKS = tf.constant(RNG.random(SHAPE))
BLUR = operators.Blur(RNG.standard_normal((3, 4)), "circular", dtype="float64")
OTHER = operators.Blur(RNG.standard_normal((2, 3)), "reflect", "direct", dtype="float64")
FIXED = operators.Mask(MASK, dtype="float64")
FREE = operators.Mask(dtype="float64")


@keras.saving.register_keras_serializable(package="test")
class Columns(operators.LinearOperator):
    """Measurements of another shape and dtype, of which nothing is stated."""

    def call(self, u, data=None):
        sums = tf.reduce_sum(u, axis=1)
        return tf.complex(sums, 2 * sums)


COLUMNS = Columns(dtype="float64")

# name -> (operator, data)
CASES = {
    "compose": (BLUR @ OTHER, None),
    "compose three": (FREE @ BLUR @ FIXED, [MASKS, None, None]),
    "compose columns": (COLUMNS @ BLUR, None),
    "sum": (BLUR + FREE + OTHER, [None, MASKS, None]),
    "difference": (BLUR - OTHER, None),
    "scaled": (-2.5 * FREE, MASKS),
    "scaled sum": (0.5 * (BLUR + FIXED), None),
    "stack": (operators.Stack([BLUR, FREE, COLUMNS]), [None, MASKS, None]),
    "stack of compositions": (2 * operators.Stack([FIXED @ BLUR, OTHER]) @ FIXED, None),
}


@pytest.fixture(params=CASES)
def case(request):
    return CASES[request.param]


def normal(seed, shape=SHAPE):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape))


def flat(y):
    """Measurements as real rows."""
    parts = []
    for leaf in tf.nest.flatten(y):
        both = [tf.math.real(leaf), tf.math.imag(leaf)] if leaf.dtype.is_complex else [leaf]
        parts += [tf.reshape(part, (part.shape[0], -1)) for part in both]
    return tf.concat(parts, 1).numpy()


def matrix(operator, data):
    """The matrix for the first image."""
    basis = tf.reshape(tf.eye(42, dtype=tf.float64), (42, 7, 6, 1))
    first = (
        None if data is None else tf.nest.map_structure(lambda d: d if d is None else d[:1], data)
    )
    return flat(operator(basis, first)).T


def test_formulas():
    u = normal(1)
    for operator, data, expected in (
        (BLUR @ OTHER, None, BLUR(OTHER(u))),
        (FREE @ BLUR, [MASKS, None], MASKS * BLUR(u)),
        (BLUR + FREE, [None, MASKS], BLUR(u) + MASKS * u),
        (BLUR - FIXED, None, BLUR(u) - FIXED(u)),
        (-BLUR, None, -BLUR(u)),
        (BLUR * 3, None, 3 * BLUR(u)),
        (np.float64(3) * BLUR, None, 3 * BLUR(u)),
    ):
        np.testing.assert_allclose(operator(u, data), expected, atol=1e-12)
    first, second = operators.Stack([BLUR, COLUMNS])(u)
    np.testing.assert_array_equal(first, BLUR(u))
    np.testing.assert_array_equal(second, COLUMNS(u))


def test_adjoint_and_normal(case):
    operator, data = case
    u, y = normal(1), operator(normal(2), data)
    back = operator.adjoint(y, data, image_shape=SHAPE)
    inner = np.sum(flat(operator(u, data)) * flat(y))
    assert float(tf.reduce_sum(u * back)) == pytest.approx(inner, rel=1e-12)
    bound = operator.bind(SHAPE, data)
    np.testing.assert_allclose(flat(bound.forward(u)), flat(operator(u, data)), atol=1e-12)
    np.testing.assert_allclose(bound.adjoint(y), back, atol=1e-12)
    twice = operator.adjoint(operator(u, data), data, image_shape=SHAPE)
    np.testing.assert_allclose(bound.normal(u), twice, atol=1e-10)


def test_norm_and_smallest_singular_value(case):
    operator, data = case
    parts = [operator]
    while any(isinstance(part, operators.combined.Combined) for part in parts):
        parts = [p for part in parts for p in getattr(part, "operators", [part])]
    assert operator.certified == (COLUMNS not in parts)
    exact = np.linalg.svd(matrix(operator, data), compute_uv=False)
    norm = tf.reshape(operator.operator_norm(data, SHAPE), (-1,))[0]
    assert exact.max() <= float(norm) * (1 + 1e-12)
    values = exact if len(exact) == 42 and matrix(operator, data).shape[0] >= 42 else [0.0]
    assert float(operator.smallest_singular_value()) <= min(values) + 1e-12


def test_norms_of_multiples_of_the_identity_are_exact():
    one = operators.Identity()
    for operator, norm in (
        (3 * one, 3),
        (2 * one @ (-4 * one), 8),
        (one + 2 * one, 3),
        (operators.Stack([3 * one, -4 * one]), 5),
    ):
        assert operator.certified
        assert float(operator.operator_norm()) == pytest.approx(norm, rel=1e-6)
    for operator, smallest in ((3 * one, 3), (operators.Stack([3 * one, 4 * one]), 5)):
        assert float(operator.smallest_singular_value()) == pytest.approx(smallest, rel=1e-6)


def test_spectra():
    circular = operators.Blur(RNG.standard_normal((2, 3)), dtype="float64")
    impulse = tf.constant(np.eye(1, 42).reshape(1, 7, 6, 1))
    for operator in (BLUR @ circular, 3 * BLUR, operators.Stack([BLUR, circular])):
        bound = operator.bind((1, 7, 6, 1))
        response = bound.normal(impulse).numpy()[0, :, :, 0]
        np.testing.assert_allclose(bound.spectrum()[0], np.fft.rfft2(response), atol=1e-10)
    for operator in (-3 * FIXED, operators.Stack([FIXED, BLUR])):
        dense = matrix(operator, None)
        found = np.broadcast_to(operator.bind((1, 7, 6, 1)).diagonal(), (1, 7, 6, 1))
        np.testing.assert_allclose(found.ravel(), np.sum(dense**2, 0), atol=1e-12)
    for operator in (BLUR @ COLUMNS, operators.Stack([BLUR, COLUMNS]), BLUR + FIXED):
        if operator.operators[-1] is not COLUMNS or isinstance(operator, operators.Stack):
            assert operator.bind(SHAPE).spectrum is None


def test_rows_and_stopped_gradients(case):
    operator, data = case
    u, y = normal(1), operator(normal(2), data)
    bound = operator.bind(SHAPE, data)
    rows = partial.take_rows(bound, tf.constant([1]))
    np.testing.assert_allclose(rows.normal(u[1:]), bound.normal(u)[1:], atol=1e-10)
    taken = rows.adjoint(tf.nest.map_structure(lambda leaf: leaf[1:], y))
    np.testing.assert_allclose(taken, bound.adjoint(y)[1:], atol=1e-12)
    with tf.GradientTape() as tape:
        tape.watch(MASKS)
        value = tf.reduce_sum(partial.stopped(operator.bind(SHAPE, data)).normal(u))
    weights = [weight.value for weight in operator.weights]
    assert all(g is None for g in tape.gradient(value, [*weights, MASKS]))


def _without_identities(config):
    """The configuration without the numbers that say which operators are the same object."""
    if isinstance(config, list):
        return [_without_identities(part) for part in config]
    if isinstance(config, dict):
        items = config.items()
        return {k: _without_identities(v) for k, v in items if k != "shared_object_id"}
    return config


def test_configuration(case):
    operator, data = case
    config = keras.saving.serialize_keras_object(operator)
    copy = keras.saving.deserialize_keras_object(config)
    assert _without_identities(copy.get_config()) == _without_identities(operator.get_config())
    assert copy.compute_dtype == "float64"
    np.testing.assert_array_equal(flat(copy(normal(1), data)), flat(operator(normal(1), data)))


def test_file_of_a_symbolic_model(case, tmp_path):
    operator, data = case
    u = keras.Input((7, 6, 1), dtype="float64")
    masks = keras.Input((7, 6, 1), dtype="float64")
    symbolic = data
    if data is not None:
        symbolic = [d if d is None else masks for d in data] if isinstance(data, list) else masks
    output = operator(u, symbolic)
    inputs = [u] if data is None else [u, masks]
    model = keras.Model(inputs, output)
    arguments = [normal(1)] if data is None else [normal(1), MASKS]
    result = model(arguments)
    for spec, leaf in zip(tf.nest.flatten(output), tf.nest.flatten(result), strict=True):
        assert (spec.shape[1:], spec.dtype) == (leaf.shape[1:], leaf.dtype.name)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(flat(loaded(arguments)), flat(result))


def test_learned_weights_of_parts_are_saved(tmp_path):
    learned = operators.GaussianBlur(3, trainable=True)
    model = keras.Sequential([keras.Input((7, 6, 1)), operators.Mask(MASK) @ learned])
    assert len(model.trainable_weights) == 1
    learned.kernel.assign(learned.kernel + 1.0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.trainable_weights[0], learned.kernel)


def test_an_operator_that_occurs_twice_is_one_after_loading(tmp_path):
    learned = operators.GaussianBlur(3, trainable=True)
    operator = operators.Stack([operators.Mask(MASK) @ learned, 2 * learned]) @ learned
    model = keras.Sequential([keras.Input((7, 6, 1)), operator])
    learned.kernel.assign(learned.kernel + 1.0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert len(loaded.trainable_weights) == len(model.trainable_weights) == 1
    np.testing.assert_array_equal(loaded.trainable_weights[0], learned.kernel)
    u = tf.cast(normal(1), tf.float32)
    np.testing.assert_array_equal(flat(loaded(u)), flat(model(u)))


def test_shapes():
    stack = operators.Stack([BLUR, COLUMNS])
    assert stack.measurement_shape(SHAPE) == [SHAPE, (2, 6, 1)]
    assert stack.compute_output_shape((None, 7, 6, 1)) == [(None, 7, 6, 1), (None, 6, 1)]
    assert (COLUMNS @ BLUR).measurement_shape(SHAPE) == (2, 6, 1)
    assert (BLUR @ FIXED).image_shape(SHAPE) == SHAPE
    assert (BLUR + FIXED).image_shape((None, 7, None, 1)) == (None, 7, None, 1)


def test_unknown_sizes():
    operator = FREE @ BLUR @ (OTHER + FIXED)
    signature = [tf.TensorSpec((None, None, None, 1), tf.float64)] * 2

    @tf.function(input_signature=signature)  # with autograph, as people's own
    def both(u, masks):
        data = [masks, None, None]
        y = operator(u, data)
        return y, operator.adjoint(y, data)

    u, data = normal(1), [MASKS, None, None]
    y, back = both(u, MASKS)
    np.testing.assert_allclose(y, operator(u, data), atol=1e-12)
    np.testing.assert_allclose(back, operator.adjoint(y, data), atol=1e-12)


def test_nested_combinations_are_flat():
    assert len((BLUR @ FIXED @ OTHER).operators) == len((BLUR @ (FIXED @ OTHER)).operators) == 3
    assert len((BLUR + (FIXED - OTHER)).operators) == 3


def test_errors():
    for make in (operators.Compose, operators.Sum, operators.Stack):
        for wrong in ([], BLUR, [BLUR, 3.0]):
            with pytest.raises(ValueError, match="list of linear operators"):
                make(wrong)
        with pytest.raises(ValueError, match="one dtype"):
            make([BLUR, operators.Identity()])
        with pytest.raises(ValueError, match="entry for each of its 2"):
            make([BLUR, FREE]).call(normal(1), MASKS)
        with pytest.raises(ValueError, match="no mask of its own"):
            make([BLUR, FREE]).call(normal(1))
        with pytest.raises(ValueError, match="no per-image data"):
            make([BLUR, FREE]).call(normal(1), [MASKS, MASKS])
        with pytest.raises(ValueError, match="expected images of shape"):
            make([BLUR, OTHER]).call(normal(1, (7, 6)))
    with pytest.raises(ValueError, match="finite number"):
        operators.Scaled(BLUR, np.nan)
    with pytest.raises(TypeError):
        BLUR @ 3.0
    with pytest.raises(ValueError, match="list of 2 measurements"):
        operators.Stack([BLUR, OTHER]).adjoint(normal(1))
    with pytest.raises(ValueError, match="one shape and dtype"):
        (BLUR + COLUMNS).call(normal(1))
    with pytest.raises(ValueError, match="real images from each operator"):
        (BLUR @ Fourier(dtype="float64")).call(normal(1))
    with pytest.raises(ValueError, match="estimated on images"):
        (COLUMNS @ BLUR).operator_norm()


class Fourier(operators.LinearOperator):
    def call(self, u, data=None):
        return tf.complex(u, u)

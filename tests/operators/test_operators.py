"""What holds for every linear operator."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import operators

RNG = np.random.default_rng(0)
MASK = RNG.random((7, 6))
KERNEL = RNG.standard_normal((4, 3))
SHAPE = (2, 7, 6, 2)

# name -> (constructor, whether masks come with the images)
OPERATORS = {
    "identity": (operators.Identity, False),
    "mask": (lambda **kwargs: operators.Mask(MASK, **kwargs), False),
    "mask data": (operators.Mask, True),
    "gaussian": (lambda **kwargs: operators.GaussianBlur((5, 3), (1.0, 0.7), **kwargs), False),
    "box": (lambda **kwargs: operators.BoxBlur((2, 3), padding="zero", **kwargs), False),
    "diagonal": (lambda **kwargs: operators.DiagonalBlur(4, padding="reflect", **kwargs), False),
    "motion": (lambda **kwargs: operators.MotionBlur(3, 30.0, **kwargs), False),
}
for padding in ("circular", "zero", "reflect"):
    for method in ("direct", "fft"):
        OPERATORS[f"{padding} {method}"] = (
            lambda padding=padding, method=method, **kwargs: operators.Blur(
                KERNEL, padding, method, **kwargs
            ),
            False,
        )


@pytest.fixture(params=OPERATORS)
def case(request):
    """An operator in float64, and the rest of its arguments."""
    make, has_data = OPERATORS[request.param]
    data = (tf.constant(RNG.random((2, 7, 6, 1))),) if has_data else ()
    return make(dtype="float64"), data


def normal(seed, shape=SHAPE, dtype=tf.float64):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape), dtype)


def inner(a, b):
    return float(tf.reduce_sum(a * b))


def singular_values(operator, data, shape=(7, 6, 1)):
    basis = tf.reshape(tf.eye(int(np.prod(shape)), dtype=tf.float64), (-1, *shape))
    image = operator.call(basis, *(d[:1] for d in data))
    return np.linalg.svd(tf.reshape(image, (len(basis), -1)).numpy(), compute_uv=False)


def test_adjoint(case):
    operator, data = case
    u, v = normal(1), normal(2)
    back = operator.adjoint(v, *data)
    assert back.shape == u.shape
    assert inner(u, back) == pytest.approx(inner(operator(u, *data), v), rel=1e-12, abs=1e-12)


def test_normal_map(case):
    operator, data = case
    u = normal(1)
    expected = operator.adjoint(operator(u, *data), *data)
    np.testing.assert_allclose(operator.bind(u.shape, *data).normal(u), expected, atol=1e-12)


def test_certified_singular_values(case):
    operator, data = case
    exact = singular_values(operator, data)
    bound = float(tf.reduce_max(operator.operator_norm(*(d[:1] for d in data))))
    assert exact.max() <= bound * (1 + 1e-12)
    assert 0 <= float(operator.smallest_singular_value()) <= exact.min() + 1e-12


def test_float32(case):
    operator, data = case
    u = normal(1, dtype=tf.float32)
    single = type(operator).from_config({**operator.get_config(), "dtype": "float32"})
    image = single(u, *(tf.cast(d, tf.float32) for d in data))
    assert image.dtype == tf.float32
    np.testing.assert_allclose(image, operator(tf.cast(u, tf.float64), *data), atol=1e-5)


def test_half_precision(case):
    operator, data = case
    policy = keras.DTypePolicy("mixed_float16")
    half = type(operator).from_config({**operator.get_config(), "dtype": policy})
    u = normal(1, dtype=tf.float32)
    image = half(u, *data)
    back = half.adjoint(image, *data)
    assert (
        image.dtype == back.dtype == half.bind(image.shape, *data).normal(image).dtype == tf.float16
    )
    np.testing.assert_allclose(image, operator(tf.cast(u, tf.float64), *data), atol=0.05)
    assert half.operator_norm(*data).dtype == tf.float32


def test_unknown_sizes(case):
    operator, data = case
    signature = [tf.TensorSpec((None, None, None, n), tf.float64) for n in (2, 1)[: 1 + len(data)]]

    @tf.function(input_signature=signature, autograph=False)
    def everything(u, *data):
        image = operator(u, *data)
        bound = operator.bind(tf.unstack(tf.shape(u), 4)[:3] + [2], *data)
        return image, operator.adjoint(image, *data), bound.normal(u)

    u = normal(1)
    image, back, normal_image = everything(u, *data)
    np.testing.assert_allclose(image, operator(u, *data), atol=1e-12)
    np.testing.assert_allclose(back, operator.adjoint(image, *data), atol=1e-12)
    np.testing.assert_allclose(normal_image, back, atol=1e-12)


def test_inside_a_loop(case):
    operator, data = case

    @tf.function(autograph=False)
    def power(u):
        normal_map = operator.bind(u.shape, *data).normal

        def body(i, u, w):
            image = operator.call(w, *data)
            return i + 1, normal_map(u), operator.adjoint(image, *data)

        return tf.while_loop(lambda i, u, w: i < 3, body, (0, u, u))[1:]

    u, w = power(normal(1))
    np.testing.assert_allclose(u, w, rtol=1e-9, atol=1e-9)


def test_images_do_not_mix(case):
    operator, data = case
    u = normal(1)
    alone = operator(u[1:], *(d[1:] for d in data))
    np.testing.assert_allclose(operator(u, *data)[1:], alone, atol=1e-13)


def test_channels_do_not_mix(case):
    operator, data = case
    u = normal(1)
    np.testing.assert_allclose(operator(u, *data)[..., 1:], operator(u[..., 1:], *data), atol=1e-13)


def test_configuration(case):
    operator, data = case
    copy = type(operator).from_config(operator.get_config())
    assert copy.get_config() == operator.get_config()
    np.testing.assert_array_equal(copy(normal(1), *data), operator(normal(1), *data))


def test_saved_model_file(case, tmp_path):
    operator, data = case
    inputs = [keras.Input((None, None, n), dtype="float64") for n in (2, 1)[: 1 + len(data)]]
    output = operator(*inputs)
    assert tf.TensorShape(output.shape).is_compatible_with((None, None, None, 2))
    assert output.shape[3] == 2
    assert output.dtype == "float64"
    model = keras.Model(inputs, output)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    arguments = [normal(1), *data]
    np.testing.assert_array_equal(loaded(arguments), model(arguments))


def test_sequential(tmp_path):
    model = keras.Sequential([keras.Input((7, 6, 1)), operators.Mask(MASK), operators.BoxBlur(3)])
    model.save(tmp_path / "model.keras")
    u = normal(1, (2, 7, 6, 1), tf.float32)
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(u), model(u))
    assert model.trainable_weights == []


@pytest.mark.parametrize("shape", [(7, 6), (2, 7, 6), (2, 7, 6, None), (1, 2, 7, 6, 1)])
def test_wrong_rank(case, shape):
    operator, data = case
    with pytest.raises(ValueError, match="expected images of shape"):
        operator.build(shape, *(d.shape for d in data))
    if None not in shape:
        for method in (operator, operator.adjoint):
            with pytest.raises(ValueError, match="expected images of shape"):
                method(normal(1, shape), *data)


def test_unexpected_data(case):
    operator, data = case
    with pytest.raises(ValueError, match="no per-image data|has no mask of its own"):
        operator.call(normal(1), *(() if data else (tf.ones((2, 1, 1, 1)),)))


def test_building_again_changes_nothing(case):
    operator, data = case
    shapes = [d.shape for d in data]
    operator.build(SHAPE, *shapes)
    weights = [id(w) for w in operator.weights]
    operator.build((None, None, None, 2), *shapes)
    assert [id(w) for w in operator.weights] == weights


@pytest.mark.parametrize("trainable", [False, True])
def test_what_is_learned(trainable):
    for operator in (
        operators.Mask(MASK, trainable=trainable),
        operators.Blur(KERNEL, trainable=trainable),
        operators.GaussianBlur(3, trainable=trainable),
    ):
        assert len(operator.trainable_weights) == int(trainable)
        assert operator.get_config()["trainable"] is trainable
        # Unfreezing a model around it must not make a fixed operator learnable.
        model = keras.Sequential([keras.Input((7, 6, 1)), operator])
        model.trainable = False
        assert model.trainable_weights == []
        model.trainable = True
        assert len(model.trainable_weights) == int(trainable)


def test_learned_weights_are_saved(tmp_path):
    blur = operators.GaussianBlur(3, trainable=True)
    model = keras.Sequential([keras.Input((7, 6, 1)), blur])
    blur.kernel.assign(blur.kernel + 1.0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.layers[-1].kernel, blur.kernel)


def test_unknown_options_of_the_constructor():
    with pytest.raises(ValueError, match="Unrecognized"):
        operators.Identity(kernel_size=3)

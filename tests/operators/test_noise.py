"""Noise is a function of the seed and the number of the image, with the right moments."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import operators

NOISES = {
    "gaussian": (operators.GaussianNoise, operators.gaussian_noise, 0.3),
    "poisson": (operators.PoissonNoise, operators.poisson_noise, 20.0),
}


@pytest.fixture(params=NOISES)
def noise(request):
    return NOISES[request.param]


def images(batch=5):
    return tf.constant(np.random.default_rng(0).random((batch, 6, 7, 2)), tf.float32)


def test_independent_of_the_batch(noise):
    layer = noise[0](noise[2], seed=3)
    y, index = images(), tf.constant([7, 3, 11, 2, 2**40], tf.int64)
    together = layer(y, index)
    assert together.shape == y.shape
    for i in range(5):
        np.testing.assert_array_equal(together[i], layer(y[i : i + 1], index[i : i + 1])[0])
    order = [4, 2, 0, 1, 3]
    shuffled = layer(tf.gather(y, order), tf.gather(index, order))
    np.testing.assert_array_equal(shuffled, tf.gather(together, order))


def test_layer_is_the_function(noise):
    layer, function, strength = noise
    y = images()
    expected = function(y[1], strength, 3, 8)
    np.testing.assert_array_equal(layer(strength, 3)(y, tf.range(7, 12))[1], expected)
    dataset = tf.data.Dataset.from_tensor_slices((y, tf.range(7, 12)))
    mapped = dataset.map(lambda image, index: function(image, strength, 3, index))
    np.testing.assert_array_equal(list(mapped)[1], expected)


def test_graph_of_unknown_sizes(noise):
    layer = noise[0](noise[2])
    y, index = images(), tf.range(5, dtype=tf.int64)
    signature = [tf.TensorSpec((None, None, None, 2)), tf.TensorSpec((None,), tf.int64)]
    graph = tf.function(layer, input_signature=signature)
    np.testing.assert_allclose(graph(y, index), layer(y, index), rtol=1e-6)


def test_depends_on_seed_and_index(noise):
    _, function, strength = noise
    y = images()[0]
    draws = [function(y, strength, s, i).numpy() for s, i in ((0, 0), (0, 1), (1, 0), (1, 1))]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert np.abs(a - b).max() > 0


@pytest.mark.parametrize("dtype", [tf.float16, tf.float32, tf.float64])
def test_dtype(noise, dtype):
    assert noise[1](tf.cast(images()[0], dtype), noise[2], 0, 0).dtype == dtype


def test_moments_of_gaussian_noise():
    y = tf.fill((200, 200, 1), 0.5)
    error = operators.gaussian_noise(y, 0.2, seed=1, index=2).numpy() - 0.5
    assert error.mean() == pytest.approx(0, abs=5 * 0.2 / 200)
    assert error.std() == pytest.approx(0.2, rel=5 / 200)
    neighbour = operators.gaussian_noise(y, 0.2, seed=1, index=3).numpy() - 0.5
    assert np.mean(error * neighbour) == pytest.approx(0, abs=5 * 0.2**2 / 200)


def test_moments_of_poisson_noise():
    y = tf.fill((200, 200, 1), 0.5)
    counts = 30 * operators.poisson_noise(y, 30.0, seed=1, index=2).numpy()
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-4)
    assert counts.mean() == pytest.approx(15, abs=5 * np.sqrt(15) / 200)
    assert counts.var() == pytest.approx(15, rel=0.05)
    assert not operators.poisson_noise(-y, 30.0, seed=1, index=2).numpy().any()


def test_no_noise():
    y = images()
    np.testing.assert_array_equal(operators.GaussianNoise(0)(y, tf.range(5)), y)


def test_gradients():
    y = images()
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(y)
        gaussian = operators.GaussianNoise(0.1)(y, tf.range(5))
        poisson = operators.PoissonNoise(10.0)(y, tf.range(5))
    np.testing.assert_array_equal(tape.gradient(gaussian, y), tf.ones_like(y))
    assert tape.gradient(poisson, y) is None


def test_configuration(noise, tmp_path):
    layer = noise[0](noise[2], seed=3)
    copy = type(layer).from_config(layer.get_config())
    y, index = images(), tf.range(5, dtype=tf.int64)
    np.testing.assert_array_equal(copy(y, index), layer(y, index))
    inputs = [keras.Input((None, None, 2)), keras.Input((), dtype="int64")]
    model = keras.Model(inputs, layer(*inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded([y, index]), layer(y, index))


def test_errors(noise):
    for value in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="Expected `(stddev|peak)`"):
            noise[0](value)
    with pytest.raises(ValueError, match="peak"):
        operators.PoissonNoise(0)
    with pytest.raises(ValueError, match="seed"):
        noise[0](noise[2], seed=0.5)
    layer = noise[0](noise[2])
    for index in (tf.range(4), tf.ones(5), tf.ones((5, 1), tf.int64)):
        with pytest.raises(ValueError, match="expected `index`"):
            layer(images(), index)


@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 4, 3, 2, 1)])
@pytest.mark.parametrize("dtype", [tf.float32, tf.complex64, tf.complex128])
def test_gaussian_noise_of_measurements_of_any_rank_and_dtype(shape, dtype):
    y = tf.cast(np.random.default_rng(0).random(shape), dtype)
    layer = operators.GaussianNoise(0.3, seed=3)
    index = tf.range(5, dtype=tf.int64)
    noisy = layer(y, index)
    assert (noisy.shape, noisy.dtype) == (y.shape, y.dtype)
    np.testing.assert_array_equal(noisy[1], operators.gaussian_noise(y[1], 0.3, 3, 1))
    stated = layer(keras.Input(shape[1:], dtype=dtype.name), keras.Input((), dtype="int64"))
    assert (stated.shape, stated.dtype) == ((None, *shape[1:]), dtype.name)


def test_moments_of_complex_gaussian_noise():
    """The standard deviation is that of each part, and the parts are independent."""
    y = tf.fill((200, 200), tf.constant(0.5 + 2j, tf.complex64))
    error = operators.gaussian_noise(y, 0.2, seed=1, index=2).numpy() - (0.5 + 2j)
    for part in (error.real, error.imag):
        assert part.mean() == pytest.approx(0, abs=5 * 0.2 / 200)
        assert part.std() == pytest.approx(0.2, rel=5 / 200)
    assert np.mean(error.real * error.imag) == pytest.approx(0, abs=5 * 0.2**2 / 200)


def test_poisson_noise_refuses_complex_measurements():
    y = tf.zeros((5, 3), tf.complex64)
    with pytest.raises(ValueError, match="expects real measurements. Received complex64"):
        operators.PoissonNoise(10.0)(y, tf.range(5))


def test_noise_of_several_measurements(noise):
    layer, function, strength = noise
    y = [images(), images()[:, 0]]
    noisy = layer(strength, 3)(y, tf.range(5))
    np.testing.assert_array_equal(noisy[0], layer(strength, 3)(y[0], tf.range(5)))
    assert noisy[1].shape == y[1].shape
    one = function([part[2] for part in y], strength, 3, 2)
    for part, whole in zip(one, noisy, strict=True):
        np.testing.assert_array_equal(part, whole[2])
    # The second measurement has noise of its own.
    same = function([y[0][0], y[0][0]], strength, 3, 0)
    assert np.abs(same[0] - same[1]).max() > 0


def test_photons_of_no_number_are_no_number_and_the_others_do_not_notice():
    # Without a guard TensorFlow looks for such a number for ever.
    y = images(1)[0].numpy()
    expected = operators.poisson_noise(y, 20.0, 3, 8).numpy()
    bad = [(0, 0, 0), (1, 2, 1), (5, 6, 0)]
    for place, value in zip(bad, (np.nan, np.inf, np.nan), strict=True):
        y[place] = value
    noisy = operators.PoissonNoise(20.0, seed=3)(y[None], tf.constant([8], tf.int64))[0].numpy()
    wrong = np.zeros(y.shape, bool)
    wrong[tuple(zip(*bad, strict=True))] = True
    assert np.isnan(noisy[wrong]).all()
    np.testing.assert_array_equal(noisy[~wrong], expected[~wrong])


@pytest.mark.parametrize("peak", [np.nan, -2.0, np.inf, 0.0])
def test_peak_that_is_none_is_refused_or_makes_no_number(peak):
    y = tf.constant([[[0.0, 0.5, -1.0]]])
    with pytest.raises(ValueError, match="`peak`"):
        operators.poisson_noise(y, peak, 0, 0)
    assert np.isnan(operators.poisson_noise(y, tf.constant(peak, tf.float32), 0, 0)).all()

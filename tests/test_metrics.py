"""PSNR and SSIM: their values are scikit-image's, and each image counts once."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from deq_keras import metrics
from tests.variants import marked


def _scene(height, width, channels, seed=0):
    """A smooth image with edges, and noise on it that leaves [0, 1] in places."""
    rng = np.random.default_rng(seed)
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    phases = rng.uniform(0, 6, channels)
    truth = 0.5 + 0.4 * np.sin(0.2 * x[..., None] + 0.1 * y[..., None] + phases)
    truth = np.where((x + 2 * y)[..., None] % 23 < 7, 0.95, truth)
    return truth, truth + 0.08 * rng.standard_normal(truth.shape)


def _reference_ssim(truth, estimate, max_value=1.0, sigma=1.5):
    options = {"gaussian_weights": True, "use_sample_covariance": False, "channel_axis": -1}
    return structural_similarity(truth, estimate, sigma=sigma, data_range=max_value, **options)


def _batch(*images):
    truths, estimates = zip(*images, strict=True)
    return np.stack(truths), np.stack(estimates)


SHAPES = [(11, 11, 1), (33, 47, 1), (32, 25, 3), (12, 41, 2)]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-11)])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_are_those_of_scikit_image(shape, dtype, tolerance):
    truth, estimate = _batch(_scene(*shape, seed=1), _scene(*shape, seed=2))
    arguments = truth.astype(dtype), estimate.astype(dtype)
    for ours, reference in (
        (metrics.psnr, lambda a, b: peak_signal_noise_ratio(a, b, data_range=1)),
        (metrics.ssim, _reference_ssim),
    ):
        values = ours(*arguments)
        assert values.shape == (2,)
        assert values.dtype == dtype
        expected = [reference(a, b) for a, b in zip(truth, estimate, strict=True)]
        np.testing.assert_allclose(values, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("level", [0.0, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("noise", [0.003, 0.02, 0.05])
def test_ssim_of_nearly_constant_images_survives_float32(level, noise):
    # tf.image.ssim misses 1e-4 here: the variance is a small difference of large numbers.
    rng = np.random.default_rng(0)
    truth = np.full((40, 37, 1), level)
    estimate = truth + noise * rng.standard_normal(truth.shape)
    value = metrics.ssim(truth[None].astype("float32"), estimate[None].astype("float32"))
    assert abs(float(value[0]) - _reference_ssim(truth, estimate)) < 2e-6


@pytest.mark.parametrize("sigma", [0.8, 2.0])
def test_ssim_of_another_window(sigma):
    truth, estimate = _scene(31, 34, 3)
    value = metrics.ssim(
        truth[None], estimate[None], filter_size=2 * int(3.5 * sigma + 0.5) + 1, filter_sigma=sigma
    )
    np.testing.assert_allclose(value[0], _reference_ssim(truth, estimate, sigma=sigma), rtol=1e-11)


@pytest.mark.parametrize("function", [metrics.psnr, metrics.ssim])
def test_max_value_only_rescales(function):
    truth, estimate = (image[None] for image in _scene(20, 21, 1))
    scaled = function(255 * truth, 255 * estimate, max_value=255)
    np.testing.assert_allclose(scaled, function(truth, estimate), rtol=1e-12)


def test_integer_images_are_compared_as_numbers():
    truth = np.full((1, 12, 12, 1), 250, np.uint8)
    estimate = np.full((1, 12, 12, 1), 10, np.uint8)  # the difference wraps in uint8
    np.testing.assert_allclose(
        metrics.psnr(truth, estimate, 255), 20 * np.log10(255 / 240), rtol=1e-5
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_float32(dtype):
    truth, estimate = (tf.cast(image[None], dtype) for image in _scene(24, 25, 1))
    for function in (metrics.psnr, metrics.ssim):
        value = function(truth, estimate)
        exact = function(tf.cast(truth, "float64"), tf.cast(estimate, "float64"))
        assert value.dtype == "float32"
        np.testing.assert_allclose(value, exact, rtol=1e-5)


def test_identical_images():
    truth = _scene(20, 20, 3)[0][None].astype("float32")
    assert np.isposinf(metrics.psnr(truth, truth)[0])
    np.testing.assert_allclose(metrics.ssim(truth, truth), 1, rtol=1e-6)


@pytest.mark.parametrize("function", [metrics.psnr, metrics.ssim])
def test_images_are_not_clipped(function):
    truth = np.ones((1, 16, 16, 1))
    estimate = truth + 0.1 * np.random.default_rng(0).uniform(size=truth.shape)
    assert function(truth, estimate)[0] < function(truth, np.clip(estimate, 0, 1))[0]


@pytest.mark.parametrize("function", [metrics.psnr, metrics.ssim])
def test_value_of_an_image_does_not_depend_on_its_batch(function):
    truth, estimate = _batch(*(_scene(18, 23, 1, seed) for seed in range(3)))
    alone = [function(truth[i : i + 1], estimate[i : i + 1])[0] for i in range(3)]
    np.testing.assert_allclose(function(truth, estimate), alone, rtol=1e-13)


@pytest.mark.parametrize("metric", [metrics.PSNR, metrics.SSIM])
def test_metric_is_the_mean_over_images_of_batches_of_different_sizes(metric):
    batches = [
        _batch(_scene(20, 31, 1, 1), _scene(20, 31, 1, 2), _scene(20, 31, 1, 3)),
        _batch(_scene(15, 14, 3, 4)),
    ]
    function = {metrics.PSNR: metrics.psnr, metrics.SSIM: metrics.ssim}[metric]
    values = np.concatenate([function(*batch) for batch in batches])
    eager, traced = metric(dtype="float64"), metric(dtype="float64")
    update = tf.function(traced.update_state, autograph=False)
    for batch in batches:
        eager.update_state(*batch)
        update(*(tf.constant(images) for images in batch))
    np.testing.assert_allclose(eager.result(), values.mean(), rtol=1e-12)
    np.testing.assert_allclose(traced.result(), values.mean(), rtol=1e-12)
    eager.reset_state()
    assert eager.result() == 0


@pytest.mark.parametrize("metric", [metrics.PSNR, metrics.SSIM])
@pytest.mark.parametrize("shape", [(3,), (3, 1), (3, 1, 1)])
def test_sample_weight(metric, shape):
    truth, estimate = _batch(*(_scene(16, 19, 1, seed) for seed in range(3)))
    estimate[0] = truth[0]  # an infinite PSNR that weighs nothing
    weights = np.array([0.0, 1.0, 3.0])
    measure = metric(dtype="float64")
    values = measure.image_values(truth[1:], estimate[1:])
    measure.update_state(truth, estimate, np.reshape(weights, shape))
    np.testing.assert_allclose(measure.result(), (values[0] + 3 * values[1]) / 4, rtol=1e-12)


def test_scalar_sample_weight_weighs_a_whole_batch():
    first, second = (_batch(_scene(16, 16, 1, seed)) for seed in range(2))
    measure = metrics.PSNR(dtype="float64")
    measure.update_state(*first, sample_weight=3.0)
    measure.update_state(*second)
    expected = (3 * metrics.psnr(*first) + metrics.psnr(*second)) / 4
    np.testing.assert_allclose(measure.result(), expected[0], rtol=1e-12)


@pytest.mark.parametrize(
    "metric",
    [
        metrics.PSNR(max_value=255, name="quality"),
        metrics.SSIM(max_value=2.0, filter_size=7, filter_sigma=1.0, dtype="float64"),
    ],
)
def test_config_round_trip(metric):
    config = keras.saving.serialize_keras_object(metric)
    assert config["registered_name"] == f"deq_keras>{type(metric).__name__}"
    clone = keras.saving.deserialize_keras_object(config)
    assert clone.get_config() == metric.get_config()
    images = [image[None] for image in _scene(13, 12, 1)]
    assert clone(*images) == metric(*images)


@pytest.mark.parametrize("policy", marked(["float32", "float64", "mixed_float16"], ["float32"]))
def test_in_compile_and_fit_with_images_of_any_size(policy, tmp_path):
    scale = keras.layers.Conv2D(1, 1, kernel_initializer="ones", dtype=policy)
    model = keras.Sequential([keras.Input((None, None, 1)), scale])
    model.compile(
        keras.optimizers.SGD(0.0),
        "mse",
        metrics=[metrics.PSNR()],
        weighted_metrics=[metrics.SSIM()],
    )
    batches = [_batch(_scene(14, 17, 1, 1), _scene(14, 17, 1, 2)), _batch(_scene(21, 12, 1, 3))]
    images = tf.TensorSpec((None, None, None, 1))

    def generate():
        for truth, noisy in batches:
            weights = np.arange(1.0, 1 + len(truth))[:, None, None]  # as the loss wants them
            yield noisy.astype("float32"), truth.astype("float32"), weights.astype("float32")

    data = tf.data.Dataset.from_generator(
        generate, output_signature=(images, images, tf.TensorSpec((None, 1, 1)))
    ).apply(tf.data.experimental.assert_cardinality(len(batches)))
    stopping = keras.callbacks.EarlyStopping("val_psnr")  # infers that more is better
    model.optimizer.build(model.trainable_variables)
    options = {"validation_data": data, "shuffle": False, "callbacks": [stopping]}
    history = model.fit(data, verbose=0, **options).history
    logs = {name: history[f"val_{name}"][-1] for name in ("psnr", "ssim")}
    tolerance = 5e-3 if policy == "mixed_float16" else 1e-5
    psnr = np.concatenate([metrics.psnr(*batch) for batch in batches])
    ssim = np.concatenate([metrics.ssim(*batch) for batch in batches])
    np.testing.assert_allclose(logs["psnr"], psnr.mean(), rtol=tolerance)
    np.testing.assert_allclose(logs["ssim"], np.average(ssim, weights=[1, 2, 1]), rtol=tolerance)

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").evaluate(
        data, return_dict=True, verbose=0
    )
    np.testing.assert_allclose(again["psnr"], logs["psnr"], rtol=1e-6)


def test_monitors_know_that_more_is_better():
    assert metrics.PSNR()._direction == metrics.SSIM()._direction == "up"


@pytest.mark.parametrize("function", [metrics.psnr, metrics.ssim])
def test_mistakes_in_the_images_are_value_errors(function):
    images = tf.zeros((2, 12, 12, 1))
    with pytest.raises(ValueError, match=r"same shape.*\(2, 12, 12, 1\).*\(2, 12, 12, 3\)"):
        function(images, tf.zeros((2, 12, 12, 3)))
    with pytest.raises(ValueError, match=r"\(batch, height, width, channels\).*\(2, 12, 12\)"):
        function(images[..., 0], images)
    with pytest.raises(ValueError, match="real images"):
        function(tf.cast(images, "complex64"), images)
    for max_value in (0, -1.0, np.inf, "1", None):
        with pytest.raises(ValueError, match="max_value"):
            function(images, images, max_value)


def test_images_smaller_than_the_window():
    with pytest.raises(ValueError, match=r"at least 11 by 11.*\(1, 10, 20, 1\)"):
        metrics.ssim(tf.zeros((1, 10, 20, 1)), tf.zeros((1, 10, 20, 1)))
    options = {"input_signature": [tf.TensorSpec((None,) * 4)] * 2, "autograph": False}
    traced = tf.function(metrics.ssim, **options)
    with pytest.raises(tf.errors.InvalidArgumentError, match="smaller than the window"):
        traced(tf.zeros((1, 10, 20, 1)), tf.zeros((1, 10, 20, 1)))
    # XLA drops assertions, so the value itself has to tell.
    compiled = tf.function(metrics.ssim, jit_compile=True, **options)
    assert np.isnan(compiled(tf.zeros((1, 10, 20, 1)), tf.zeros((1, 10, 20, 1)))[0])


@pytest.mark.parametrize("function", [metrics.psnr, metrics.ssim])
def test_different_shapes_are_never_broadcast_in_a_graph(function):
    signature = [tf.TensorSpec((None,) * 4)] * 2
    traced = tf.function(function, input_signature=signature, autograph=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="shapes differ"):
        traced(tf.zeros((2, 12, 12, 1)), tf.zeros((2, 12, 12, 3)))


def test_mistakes_in_the_arguments_are_value_errors():
    with pytest.raises(ValueError, match="odd positive int"):
        metrics.SSIM(filter_size=10)
    with pytest.raises(ValueError, match="filter_sigma"):
        metrics.SSIM(filter_sigma=0.0)
    images = tf.zeros((2, 12, 12, 1))
    with pytest.raises(ValueError, match="one sample_weight for each image"):
        metrics.PSNR().update_state(images, images, tf.ones((2, 12, 12)))

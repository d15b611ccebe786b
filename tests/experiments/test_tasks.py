"""The measurements of the inverse problems: what they are, and that they can be made again."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk
from deq_keras.operators import gaussian_noise
from experiments import tasks
from experiments.configs import demo

NAMES = list(tasks.TASKS)
PICTURES = {
    "super_resolution": "pseudo-inverse",
    "fourier": "adjoint",
    "tomography": "filtered backprojection",
}
TRUTH = tf.constant(np.random.default_rng(0).uniform(size=(160, 200, 3)).astype(np.float32))
SEED = tf.constant(2**40 + 17, tf.int64)  # a stream's seed is an int64


def config(**entries):
    changed = demo.get_config()
    changed.update_from_flattened_dict(
        {name.replace("__", "."): value for name, value in entries.items()}
    )
    return changed


def index(number):
    return tf.constant(number, tf.int64)


def measurement(task, seed=SEED, number=3, truth=TRUTH):
    """`(y, operator data)` as arrays, the second `None` if there is none."""
    value = task.measure(truth, seed, index(number))
    return tuple(p.numpy() for p in value) if isinstance(value, tuple) else (value.numpy(), None)


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


@pytest.mark.parametrize("name", NAMES)
def test_measurements_are_a_function_of_seed_and_index(name):
    task = tasks.get(name, config())
    first = measurement(task)
    again = measurement(tasks.get(name, config()))
    in_graph = tf.nest.flatten(tf.function(task.measure, autograph=False)(TRUTH, SEED, index(3)))
    for part, other, graph in zip(first, again, [*in_graph, None][:2], strict=True):
        np.testing.assert_array_equal(part, other)
        if part is not None:
            np.testing.assert_allclose(part, graph, atol=1e-6)
    for other in (measurement(task, number=4), measurement(task, SEED + 1)):
        for part, different in zip(first, other, strict=True):
            assert part is None or np.mean(part != different) > 0.4


@pytest.mark.parametrize("name", NAMES)
def test_task_describes_itself(name):
    task = tasks.get(name, config())
    assert task.name == name
    assert task.title
    assert task.description.endswith(".")
    assert f"{config()[name].noise:g}" in task.description
    assert isinstance(task.operator(), dk.operators.LinearOperator)
    assert task.operator() is not task.operator()  # each layer builds its own


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("noise", [0.0, 0.03, 0.5])
def test_noise_is_gaussian_of_the_level_that_was_asked_for(name, noise):
    task = tasks.get(name, config(**{f"{name}__noise": noise}))
    y, data = measurement(task)
    clean = task.operator()(TRUTH[None], None if data is None else data[None])[0].numpy()
    seen = np.broadcast_to(True if data is None else data > 0, y.shape)
    errors = (y - clean)[seen]
    # Of complex noise each part has that level.
    errors = np.concatenate([errors.real, errors.imag]) if np.iscomplexobj(errors) else errors
    if noise == 0.0:
        np.testing.assert_allclose(errors, 0.0, atol=1e-6)
        return
    count = errors.size
    assert abs(errors.mean()) < 4 * noise / count**0.5
    assert errors.std() == pytest.approx(noise, rel=4 / (2 * count) ** 0.5)
    # Of a Gaussian 68.27 % are within one standard deviation.
    assert np.mean(np.abs(errors) < noise) == pytest.approx(0.6827, abs=2 / count**0.5)


@pytest.mark.parametrize("keep", [0.1, 0.5, 1.0])
def test_inpainting_keeps_that_share_of_whole_pixels(keep):
    y, mask = measurement(tasks.get("inpainting", config(inpainting__keep=keep)))
    assert set(np.unique(mask)) <= {0.0, 1.0}
    for channel in range(1, 3):
        np.testing.assert_array_equal(mask[..., channel], mask[..., 0])
    pixels = mask[..., 0].size
    assert mask.mean() == pytest.approx(keep, abs=4 * (keep * (1 - keep) / pixels) ** 0.5)
    assert np.all(y[mask == 0] == 0.0)


def test_mask_and_noise_are_independent():
    task = tasks.get("inpainting", config())
    limit = 4 / TRUTH[..., 0].shape.num_elements() ** 0.5
    y, mask = measurement(task)
    for number in (2, 3, 4):
        noise = gaussian_noise(TRUTH, 0.05, SEED, index(number)).numpy() - TRUTH.numpy()
        if number == 3:
            np.testing.assert_allclose((y - TRUTH.numpy())[mask > 0], noise[mask > 0], atol=1e-6)
        for channel in range(3):
            assert abs(correlation(mask[..., 0], noise[..., channel])) < limit
            # The size of the noise must not decide what is seen either.
            assert abs(correlation(mask[..., 0], np.abs(noise[..., channel]))) < limit
    _, following = measurement(task, number=4)
    assert abs(correlation(mask[..., 0], following[..., 0])) < limit


def test_noise_of_images_is_independent():
    limit = 4 / TRUTH.shape.num_elements() ** 0.5
    task = tasks.get("denoising", config())
    noises = [measurement(task, number=number)[0] - TRUTH.numpy() for number in (0, 1, 2)]
    assert abs(correlation(noises[0], noises[1])) < limit
    assert abs(correlation(noises[0], noises[2])) < limit
    assert abs(correlation(noises[0][1:], noises[0][:-1])) < limit


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("noise", [-0.1, float("nan"), float("inf")])
def test_wrong_noise_is_named(name, noise):
    with pytest.raises(ValueError, match=rf"Expected {name}\.noise, .* >= 0\. Received {noise}"):
        tasks.get(name, config(**{f"{name}__noise": noise}))


@pytest.mark.parametrize("keep", [0.0, -0.5, 1.01, float("nan")])
def test_wrong_share_of_pixels_is_named(keep):
    with pytest.raises(ValueError, match=rf"0 < inpainting\.keep <= 1\. Received {keep}"):
        tasks.get("inpainting", config(inpainting__keep=keep))


@pytest.mark.parametrize(
    ("entry", "value", "name"),
    [("deblurring__kernel_size", 0, "kernel_size"), ("deblurring__stddev", -1.0, "stddev")],
)
def test_wrong_blur_is_refused_at_once(entry, value, name):
    with pytest.raises(ValueError, match=name):
        tasks.get("deblurring", config(**{entry: value}))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("denoisin", "Did you mean 'denoising'"),
        ("inpaiting", "Did you mean 'inpainting'"),
        ("Deblurring", "Did you mean 'deblurring'"),
        ("", "Expected one of"),
        ("colour", r"'colour'\. Expected one of \['deblurring', 'denoising', 'fou"),
    ],
)
def test_unknown_task(name, hint):
    with pytest.raises(ValueError, match=hint):
        tasks.get(name, config())


# What is given to a model, and shown


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(None, None), (12, 20)])
def test_inputs_are_those_of_the_batches(name, size):
    task = tasks.get(name, config())
    inputs = task.inputs(3, size)
    value = task.measure(TRUTH[:12, :20], SEED, index(0))
    tf.nest.assert_same_structure(inputs, value)
    for symbolic, part in zip(tf.nest.flatten(inputs), tf.nest.flatten(value), strict=True):
        assert symbolic.dtype == part.dtype.name
        # A sinogram has as many rows as there are angles, whatever the size of the image.
        rows = config().tomography.angles if name == "tomography" else None
        known = part.shape[:2] if size[0] else (rows, None)
        assert symbolic.shape == (None, *known, part.shape[-1])
    assert tf.nest.flatten(inputs)[0].name == "measurement"
    batch = tf.nest.map_structure(lambda part: part[None], value)
    if name in PICTURES:
        assert task.measurement_label == f"Measurement ({PICTURES[name]})"
        return
    assert task.measurement_label == "Measurement"
    np.testing.assert_array_equal(task.picture(batch), tf.nest.flatten(batch)[0])


@pytest.mark.parametrize("name", PICTURES)
def test_the_picture_of_a_measurement_that_is_no_image(name):
    """Of the size of the truth and like it; another one for another measurement."""
    task = tasks.get(name, config(**{f"{name}__noise": 0.0}))
    rows, columns = np.mgrid[:40, : 40 if task.square else 36] / 40.0
    truth = tf.constant(0.5 + 0.3 * np.sin(6 * rows + 9 * columns**2)[..., None], tf.float32)
    measured = tf.nest.map_structure(lambda part: part[None], task.measure(truth, SEED, index(1)))
    picture = task.picture(measured)
    assert picture.dtype == tf.float32
    assert picture.shape == (1, *truth.shape)
    assert correlation(picture, truth) > 0.9
    if PICTURES[name] == "pseudo-inverse":
        np.testing.assert_allclose(task.operator()(picture), measured, atol=2e-2)


def test_model_of_a_measurement_that_is_complex_and_of_another_shape():
    def measure(truth, seed, index):
        mask = tf.ones(tf.shape(truth)[:2])
        return tf.signal.fft2d(tf.cast(truth[..., 0], tf.complex64)), (mask, truth[::2])

    def picture(measurement):
        return tf.math.real(tf.signal.ifft2d(measurement[0]))[..., None]

    task = tasks.Task("fourier", "Fourier", "All of it.", None, measure, picture, "inverse")
    assert task.measurement_label == "Measurement (inverse)"
    y, (mask, half) = task.inputs(1, (6, 8))
    assert (y.dtype, y.shape) == ("complex64", (None, 6, 8))
    assert (mask.dtype, mask.shape) == ("float32", (None, 6, 8))
    assert (half.dtype, half.shape) == ("float32", (None, 3, 8, 1))
    assert [part.name for part in (y, mask, half)] == ["measurement", "data", "data_1"]

    class Inverse(keras.layers.Layer):
        def call(self, inputs):
            return picture(inputs)

    model = keras.Model((y, (mask, half)), Inverse(autocast=False)((y, (mask, half))))
    truth = TRUTH[:6, :8, :1]
    measured = tf.nest.map_structure(lambda part: part[None], measure(truth, 0, 0))
    np.testing.assert_allclose(model(measured)[0], truth, atol=1e-5)
    np.testing.assert_allclose(task.picture(measured)[0], truth, atol=1e-5)

"""The measurements of the inverse problems: what they are, and that they can be made again."""

import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk
from deq_keras.operators import gaussian_noise
from experiments import tasks
from experiments.configs import demo

NAMES = ["denoising", "inpainting", "deblurring"]
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
    return tuple(part.numpy() for part in value) if task.with_data else (value.numpy(), None)


def correlation(a, b):
    return np.corrcoef(np.ravel(a), np.ravel(b))[0, 1]


@pytest.mark.parametrize("name", NAMES)
def test_measurements_are_a_function_of_seed_and_index(name):
    task = tasks.get(name, config())
    first = measurement(task)
    again = measurement(tasks.get(name, config()))
    in_graph = tf.nest.flatten(tf.function(task.measure)(TRUTH, SEED, index(3)))
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
    seen = np.ones(y.shape, bool) if data is None else data > 0
    errors = (y - clean)[seen]
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
        ("", "Expected some of"),
        ("tomography", r"'tomography'\. Expected some of \['deblurring', 'denoising', 'inp"),
    ],
)
def test_unknown_task(name, hint):
    with pytest.raises(ValueError, match=hint):
        tasks.get(name, config())

"""Batches as functions of the seed and the example's number, whoever computes them."""

import doctest
import itertools
from itertools import product

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deq_keras.operators import gaussian_noise
from tests.variants import covering, marked
from trainers import datasets
from trainers.datasets import pipeline
from trainers.datasets.images import ImageSet
from trainers.datasets.pipeline import evaluation_batches, measurement_spec, training_batches
from trainers.datasets.store import Store
from trainers.process import errors


def random_set(*shapes, channels=1, seed=0):
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (*shape, channels), dtype=np.uint8) for shape in shapes]
    return ImageSet(tuple(f"image {number}" for number in range(len(shapes))), tuple(images))


MIXED = random_set((13, 17), (40, 9), (8, 8), (21, 20), (11, 30))


def identity(images):
    return images


def blur(images):
    """Not the same bits for a batch as for an example, so it would show a wrong design."""
    kernel = tf.ones((3, 3, images.shape[-1], 1)) / 9.0
    return tf.nn.depthwise_conv2d(images, kernel, [1, 1, 1, 1], "SAME")


def measured(operator, stddev=0.0):
    def measure(truth, seed, index):
        return gaussian_noise(operator(truth[None])[0], stddev, seed, index)

    return measure


BLURRED = measured(blur, 0.1)
NOISY = measured(identity, 0.1)


def inpainting(truth, seed, index):
    """Half of the pixels, others in each example, and noise that is independent of which."""
    pixels = tf.concat([tf.shape(truth)[:2], [1]], 0)
    known = tf.random.stateless_uniform(pixels, tf.stack([seed + 1, index]), alg="philox") < 0.5
    y = gaussian_noise(truth, 0.1, seed, index) * tf.cast(known, truth.dtype)
    return y, known


def arrays(batch):
    return tf.nest.map_structure(np.asarray, batch)


def take(count, images=MIXED, measure=BLURRED, *, patch_size=8, batch_size=4, seed=0, **options):
    batches = training_batches(
        images, measure, patch_size=patch_size, batch_size=batch_size, seed=seed, **options
    )
    return [arrays(batch) for batch in batches.take(count)]


def joined(batches):
    return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *batches)


@pytest.fixture(scope="module")
def whole():
    """Ten batches of four in a row, which other ways to make them are compared with."""
    return take(10)


@pytest.fixture(scope="module")
def masked():
    """Six with a mask for each example."""
    return take(6, measure=inpainting)


def cut(examples, step, batch_size):
    """The batch of a step, of all examples in a row."""
    place = slice(step * batch_size, (step + 1) * batch_size)
    return tf.nest.map_structure(lambda array: array[place], examples)


def assert_same(first, second):
    tf.nest.map_structure(np.testing.assert_array_equal, first, second)


# What an example depends on.


def test_values_shapes_and_types():
    batches = training_batches(MIXED, measured(blur), patch_size=8, batch_size=4, seed=0)
    for spec in batches.element_spec:
        assert spec == tf.TensorSpec((4, 8, 8, 1), tf.float32)
    assert batches.cardinality() == tf.data.INFINITE_CARDINALITY
    for measurement, truth in map(arrays, batches.take(3)):
        assert truth.min() >= 0
        assert truth.max() <= 1
        np.testing.assert_allclose(measurement, blur(truth), atol=1e-6)


@pytest.mark.parametrize("start_step", marked([1, 3, 7], [3]))
def test_resuming_gives_the_tail_of_the_uninterrupted_run(whole, start_step):
    assert_same(joined(whole[start_step:]), joined(take(10 - start_step, start_step=start_step)))


def test_resuming_far_into_a_run_is_immediate():
    step = 10**12
    assert_same(joined(take(3, start_step=step)[1:]), joined(take(2, start_step=step + 1)))


def test_batch_size_does_not_change_an_example(whole):
    assert_same(joined(whole[:6]), joined(take(8, batch_size=3)))


def test_seeds_differ(whole):
    others = [take(1, seed=seed)[0][0] for seed in (1, -1, 2**40)]
    measurements = [whole[0][0], *others]
    for a, b in itertools.combinations(measurements, 2):
        assert np.mean(a == b) < 0.1


def context(pipelines, pipeline_id, replicas):
    return tf.distribute.InputContext(pipelines, pipeline_id, replicas)


@pytest.mark.parametrize(("workers", "batch_size"), covering(product([1, 2, 3], [8, 7])))
def test_workers_together_give_the_batches_of_one(whole, workers, batch_size):
    steps = 3
    parts = [
        take(steps, batch_size=batch_size, input_context=context(workers, worker, workers))
        for worker in range(workers)
    ]
    for step in range(steps):
        expected = cut(joined(whole), step, batch_size)
        assert_same(joined([part[step] for part in parts]), expected)
    sizes = [len(part[0][0]) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("batch_size", marked([8, 11], [11]))
def test_a_worker_with_several_replicas_yields_a_batch_for_each(whole, batch_size):
    steps, workers, per_worker = 3, 2, 2
    parts = [
        take(
            steps * per_worker,
            batch_size=batch_size,
            input_context=context(workers, worker, workers * per_worker),
        )
        for worker in range(workers)
    ]
    for step in range(steps):
        mine = slice(step * per_worker, (step + 1) * per_worker)
        batches = [batch for part in parts for batch in part[mine]]
        assert_same(joined(batches), cut(joined(whole), step, batch_size))
        sizes = [len(batch[0]) for batch in batches]
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("by_function", [True, False])
def test_a_strategy_gets_the_same_batches(whole, by_function):
    devices = [device.name for device in tf.config.list_logical_devices("CPU")]
    strategy = tf.distribute.MirroredStrategy(
        devices, cross_device_ops=tf.distribute.ReductionToOneDevice()
    )

    def batches(input_context=None):
        return training_batches(
            MIXED,
            BLURRED,
            patch_size=8,
            batch_size=4,
            seed=0,
            input_context=input_context,
        )

    if by_function:
        distributed = strategy.distribute_datasets_from_function(batches)
    else:
        distributed = strategy.experimental_distribute_dataset(batches())
    for expected, batch in zip(whole[:3], distributed, strict=False):
        parts = zip(*(strategy.experimental_local_results(part) for part in batch), strict=True)
        parts = list(parts)
        assert len(parts) == len(devices)
        assert_same(joined([arrays(part) for part in parts]), expected)


# Which photograph, which patch, which noise.


@pytest.mark.parametrize("count", [1, 5, 12])
def test_each_pass_sees_each_image_once_in_a_new_order(count):
    flat = [np.full((9, 8, 1), number, np.uint8) for number in range(count)]
    images = ImageSet(tuple(map(str, range(count))), tuple(flat))
    passes = 20
    truth = joined(take(passes, images, batch_size=count, measure=NOISY))[1]
    seen = np.rint(truth[:, 0, 0, 0] * 255).astype(int).reshape(passes, count)
    assert (np.sort(seen, axis=1) == np.arange(count)).all()
    if count > 1:
        assert len({tuple(order) for order in seen}) > passes // 2


def test_patches_are_windows_in_all_places_and_positions():
    height, width, size = 12, 20, 5
    number = np.arange(height * width, dtype=np.uint8).reshape(height, width, 1)  # 240 < 256
    images = ImageSet(("numbered",), (number,))
    truth = joined(take(60, images, patch_size=size, batch_size=32, measure=NOISY))[1]
    corners, positions = set(), set()
    for patch in np.rint(truth[..., 0] * 255).astype(int):
        rows, columns = np.divmod(patch, width)
        top, left = rows.min(), columns.min()
        window = number[top : top + size, left : left + size, 0]
        ways = [np.rot90(w, k) for w in (window, window.T) for k in range(4)]
        matches = [way for way, turned in enumerate(ways) if np.array_equal(turned, patch)]
        assert len(matches) == 1
        corners.add((top, left))
        positions.add(matches[0])
    assert positions == set(range(8))
    assert {top for top, _ in corners} == set(range(height - size + 1))
    assert {left for _, left in corners} == set(range(width - size + 1))


def test_colour_channels_stay_together():
    grey = np.arange(15 * 11, dtype=np.uint8).reshape(15, 11, 1)
    images = ImageSet(("a", "b"), (np.concatenate([grey, grey + 40, grey + 80], -1),) * 2)
    truth = joined(take(4, images, measure=NOISY))[1]
    red, green, blue = np.moveaxis(np.rint(truth * 255).astype(int), -1, 0)
    np.testing.assert_array_equal(green, red + 40)
    np.testing.assert_array_equal(blue, red + 80)


def test_a_patch_may_be_the_whole_image():
    images = random_set((8, 8))
    truth = take(1, images, batch_size=1, measure=NOISY)[0][1][0, ..., 0]
    whole = images.images[0][..., 0] / np.float32(255)
    assert any(np.array_equal(np.rot90(w, k), truth) for w in (whole, whole.T) for k in range(4))


def test_noise_has_its_stddev_and_is_new_for_each_example():
    measurement, truth = joined(take(8, batch_size=32, measure=NOISY))
    noise = (measurement - truth).reshape(256, -1)
    count = noise.size
    assert abs(noise.mean()) < 5 * 0.1 / count**0.5
    assert abs(noise.std() / 0.1 - 1) < 5 / (2 * count) ** 0.5
    correlation = np.corrcoef(noise) - np.eye(256)
    assert np.abs(correlation).max() < 7 / noise.shape[1] ** 0.5


def test_measure_gets_one_image_and_the_number_of_the_example():
    def number(truth, seed, index):
        assert truth.shape == (8, 8, 1)
        assert seed.shape == index.shape == ()
        assert seed.dtype == index.dtype == tf.int64
        return index

    measurement = joined(take(3, batch_size=4, measure=number, start_step=5))[0]
    assert measurement.dtype == np.float32
    np.testing.assert_array_equal(measurement, np.arange(20, 32))


def test_measure_is_taken_as_it_is_written():
    def branch(truth, seed, index):
        return truth if index > 0 else -truth  # AutoGraph would mend it, at the price of surprises

    with pytest.raises(tf.errors.OperatorNotAllowedInGraphError, match="AutoGraph"):
        take(1, measure=branch)


def test_measure_may_change_the_shape():
    def pooled(images):
        return tf.nn.avg_pool2d(images, 2, 2, "VALID")

    measurement, truth = take(1, measure=measured(pooled))[0]
    assert measurement.shape == (4, 4, 4, 1)
    np.testing.assert_allclose(measurement, pooled(truth), atol=1e-6)


# A mask for each example.


def test_masks_come_with_the_measurements():
    batches = training_batches(MIXED, inpainting, patch_size=8, batch_size=32, seed=0)
    image = tf.TensorSpec((32, 8, 8, 1), tf.float32)
    assert batches.element_spec == ((image, image), image)
    (y, mask), truth = joined(map(arrays, batches.take(8)))
    assert set(np.unique(mask)) == {0, 1}
    assert abs(mask.mean() - 0.5) < 5 * 0.5 / mask.size**0.5
    assert not y[mask == 0].any()
    noise = (y - truth)[mask == 1]
    assert abs(noise.std() / 0.1 - 1) < 5 / (2 * noise.size) ** 0.5
    assert len({known.tobytes() for known in mask}) == len(mask)


def test_masks_are_functions_of_the_seed_and_the_number(masked):
    def masks(images=MIXED, **options):
        return joined(take(6, images, inpainting, **options))[0][1]

    (_, mask), _ = joined(masked)
    np.testing.assert_array_equal(mask, masks(random_set((9, 30), (50, 8), seed=1)))
    assert 0.4 < np.mean(mask == masks(seed=1)) < 0.6


def test_masks_resume_and_do_not_depend_on_the_batch(masked):
    assert_same(joined(masked[4:]), joined(take(2, measure=inpainting, start_step=4)))
    assert_same(joined(masked), joined(take(8, measure=inpainting, batch_size=3)))


@pytest.mark.parametrize("batch_size", marked([7, 8], [7]))
def test_workers_together_give_the_masks_of_one(masked, batch_size):
    # Two replicas each, and with 7 examples batches that are not of equal size.
    parts = [
        take(4, measure=inpainting, batch_size=batch_size, input_context=context(2, worker, 4))
        for worker in range(2)
    ]
    for step in range(2):
        mine = slice(2 * step, 2 * step + 2)
        batches = [batch for part in parts for batch in part[mine]]
        assert_same(joined(batches), cut(joined(masked), step, batch_size))


def test_evaluation_masks_never_change_and_are_not_those_of_training():
    images = random_set(*[(16, 16)] * 4)
    first, second = (evaluate(images, measure=inpainting, batch_size=4) for _ in range(2))
    assert_same(first, second)
    (_, mask), _ = first[0]
    (_, trained), _ = take(1, images, inpainting, patch_size=16)[0]
    assert 0.4 < np.mean(mask == trained) < 0.6


# Evaluation.


def evaluate(images, *, measure=BLURRED, seed=0, **options):
    return [arrays(batch) for batch in evaluation_batches(images, measure, seed=seed, **options)]


def test_evaluation_gives_every_image_once_and_whole():
    batches = evaluate(MIXED, batch_size=3)
    assert len(batches) == len(MIXED)
    for (_, truth), image in zip(batches, MIXED.images, strict=True):
        np.testing.assert_array_equal(truth, image[None] / np.float32(255))


def test_evaluation_is_the_same_twice():
    batches = evaluation_batches(MIXED, BLURRED, seed=1)
    for first, second in zip(batches, batches, strict=True):
        assert_same(arrays(first), arrays(second))
    for first, second in zip(batches, evaluate(MIXED, seed=1), strict=True):
        assert_same(arrays(first), second)


def test_evaluation_noise_belongs_to_the_place_in_the_set():
    first_two = ImageSet(MIXED.names[:2], MIXED.images[:2])
    for part, whole in zip(evaluate(first_two), evaluate(MIXED), strict=False):
        assert_same(part, whole)
    same = random_set((9, 12), (9, 12), (9, 12))
    pairs = evaluate(same, batch_size=2)
    assert_same(joined(pairs), joined(evaluate(same)))
    assert [len(batch[0]) for batch in pairs] == [2, 1]
    repeated = ImageSet(("a", "b"), (same.images[0],) * 2)
    (first, _), (second, _) = evaluate(repeated)
    assert np.abs(first - second).max() > 0.05
    assert np.abs(first - evaluate(repeated, seed=1)[0][0]).max() > 0.05


ALIKE = random_set(*[(9, 12)] * 7)


@pytest.mark.parametrize(
    ("batch_size", "measure", "whole_images"),
    covering(product([2, 3, 7, 50], ["blur", "inpainting"], [True, False])),
)
def test_evaluation_is_the_same_for_any_batch_size(batch_size, measure, whole_images):
    images, crop = (ALIKE, None) if whole_images else (MIXED, 7)
    options = {"measure": {"blur": BLURRED, "inpainting": inpainting}[measure], "crop": crop}
    batches = evaluate(images, batch_size=batch_size, **options)
    assert len(batches) == -(-len(images) // batch_size)
    assert_same(joined(batches), joined(evaluate(images, **options)))


def test_evaluation_of_images_of_many_sizes_is_the_same_for_any_batch_size():
    assert_same(
        evaluate(MIXED, measure=inpainting, batch_size=3), evaluate(MIXED, measure=inpainting)
    )


def test_evaluation_noise_is_not_that_of_training():
    images = random_set((8, 8))
    trained, truth = take(1, images, batch_size=1, measure=NOISY)[0]
    batches = evaluation_batches(images, NOISY, seed=0)
    measurement, whole = map(np.asarray, next(iter(batches)))
    assert abs(np.corrcoef((trained - truth).ravel(), (measurement - whole).ravel())[0, 1]) < 0.5


@pytest.mark.parametrize("crop", [7, 8])
def test_evaluation_crops_the_centre(crop):
    truth = joined(evaluate(MIXED, crop=crop, batch_size=2))[1]
    assert truth.shape == (len(MIXED), crop, crop, 1)
    for patch, image in zip(truth, MIXED.images, strict=True):
        top, left = ((side - crop) // 2 for side in image.shape[:2])
        window = image[top : top + crop, left : left + crop]
        np.testing.assert_array_equal(patch, window / np.float32(255))


def test_evaluation_shapes_are_known_when_they_can_be():
    def spec(images, **options):
        dataset = evaluation_batches(images, NOISY, seed=0, **options)
        return dataset.element_spec[1].shape.as_list()

    assert spec(MIXED) == [None, None, None, 1]
    assert spec(MIXED, crop=6) == [None, 6, 6, 1]
    assert spec(random_set((9, 12), (9, 12), channels=3)) == [None, 9, 12, 3]


# Loading.


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("channels", [1, 3])
def test_load_photographs(cache, channels):
    splits = datasets.load("photographs", channels=channels, cache_dir=cache, max_side=96)
    assert {split: len(images) for split, images in splits.items()} == {
        "train": 7,
        "validation": 2,
        "test": 3,
    }
    names = [name for images in splits.values() for name in images.names]
    assert len(set(names)) == 12
    for images in splits.values():
        assert list(images.names) == sorted(images.names)
        assert images.channels == channels
        assert {max(image.shape) for image in images.images} == {96}


def test_load_a_folder_of_odd_sizes(tmp_path):
    rng = np.random.default_rng(0)
    for number in range(6):
        array = rng.integers(0, 256, (9 + 2 * number, 31 - number, 3), dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / f"{number}.png")
    splits = datasets.load("folder", data_dir=tmp_path, channels=3, seed=1)
    assert {split: len(images) for split, images in splits.items()} == {
        "train": 4,
        "validation": 1,
        "test": 1,
    }
    shapes = {image.shape for images in splits.values() for image in images.images}
    assert shapes == {(9 + 2 * number, 31 - number, 3) for number in range(6)}
    assert take(1, splits["train"], batch_size=5)[0][0].shape == (5, 8, 8, 3)


def test_the_graph_holds_no_copy_of_the_images():
    images = random_set((300, 400))
    store = Store.of(images)

    @tf.function
    def patch(draws):
        return store.patch(tf.constant(0, tf.int64), 8, draws)

    graph = patch.get_concrete_function(tf.TensorSpec([3], tf.int64)).graph
    assert graph.as_graph_def().ByteSize() < 300 * 400 / 4


# Mistakes.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"patch_size": 9}, r"`patch_size` is 9, larger than 1 of 5 images: 'image 2' \(8 x 8\)"),
        ({"patch_size": 12}, r"larger than 3 of 5 images: 'image 1' .*'image 2' .*'image 4'"),
        ({"patch_size": 0}, "patch_size=0"),
        ({"patch_size": 8.0}, r"patch_size=8\.0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"start_step": -1}, "start_step=-1"),
        ({"seed": 0.5}, r"seed=0\.5"),
        ({"batch_size": 1, "input_context": context(2, 0, 2)}, "2 replicas, 2 workers"),
    ],
)
def test_training_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        take(1, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"crop": 9}, "`crop` is 9.*'image 2'"), ({"crop": 0}, "crop=0"), ({"batch_size": 0}, "=0")],
)
def test_evaluation_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        evaluate(MIXED, **options)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda u: None, "Received: None"),
        (lambda u: (), r"Received: \(\)"),
        (lambda u: [u, u], "nested tuple of tensors"),
        (lambda u: (u, {"mask": u}), "nested tuple of tensors.*'mask'"),
        (lambda u: (u, tf.constant("mask")), "dtype string"),
        (lambda u: u[None], r"without a batch axis.*\(1, 8, 8, 1\)"),
    ],
)
def test_measurements_of_another_kind_are_refused(wrong, message):
    def measure(truth, seed, index):
        return wrong(truth)

    with pytest.raises(ValueError, match=message):
        take(1, measure=measure)
    with pytest.raises(ValueError, match=message):
        evaluate(random_set((8, 8)), measure=measure)


def spectrum(truth, seed, index):
    """A measurement that is complex, of another shape, and with data of its own."""
    return tf.signal.rfft2d(truth[..., 0]), (truth[::2] > 0.5, tf.ones(4, tf.float64))


def test_measurements_may_be_complex_and_of_another_shape():
    images = random_set((8, 12), (8, 12))
    ((y, (mask, ones)), truth), *_ = evaluate(images, measure=spectrum, batch_size=2)
    assert (y.dtype, mask.dtype, ones.dtype) == (np.complex64, np.float32, np.float32)
    np.testing.assert_allclose(y, np.fft.rfft2(truth[..., 0]), atol=1e-4)
    np.testing.assert_array_equal(mask, truth[:, ::2] > 0.5)
    assert ones.shape == (2, 4)


@pytest.mark.parametrize("size", [(None, None), (8, 12)])
def test_spec_of_measurements_is_that_of_the_batches(size):
    y, (mask, ones) = measurement_spec(spectrum, 1, size)
    assert (y.dtype, mask.dtype, ones.dtype) == (tf.complex64, tf.float32, tf.float32)
    height, width = size
    assert y.shape.as_list() == [None, height, width and width // 2 + 1]
    assert mask.shape.as_list() == [None, height and height // 2, width, 1]
    assert ones.shape.as_list() == [None, 4]
    element, _ = evaluation_batches(random_set((8, 12)), spectrum, seed=0).element_spec
    for known, seen in zip((y, mask, ones), tf.nest.flatten(element), strict=True):
        assert known.is_compatible_with(seen)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "photograph"}, r"Unknown data set 'photograph'\. Did you mean 'photographs'"),
        ({"name": "folder"}, r"takes the arguments \['data_dir', .*missing .*'data_dir'"),
        ({"data_dir": "x"}, r"'photographs' takes the arguments \['cache_dir'\]"),
        ({"channels": 2}, "channels=2"),
        ({"max_side": 0}, "max_side=0"),
    ],
    ids=str,
)
def test_load_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        datasets.load(**arguments)


@pytest.mark.parametrize(
    ("names", "images", "message"),
    [
        ((), (), "at least one image"),
        (("a",), (np.zeros((4, 4, 1), np.uint8),) * 2, "2 images and 1 names"),
        (("a",), (np.zeros((4, 4, 1), np.float32),), "'a' with dtype float32"),
        (("a",), (np.zeros((4, 4), np.uint8),), r"shape \(4, 4\)"),
        (("a",), (np.zeros((4, 0, 1), np.uint8),), r"shape \(4, 0, 1\)"),
        (
            ("a", "b"),
            (np.zeros((4, 4, 1), np.uint8), np.zeros((4, 4, 3), np.uint8)),
            "'a' has 1, 'b' has 3",
        ),
    ],
)
def test_image_set_refuses(names, images, message):
    with pytest.raises(ValueError, match=message):
        ImageSet(names, images)


@pytest.mark.parametrize("module", [pipeline, datasets, errors])
def test_examples_in_docstrings(module, cache, monkeypatch):
    monkeypatch.setenv("DEQ_KERAS_DATA", str(cache))
    found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0


def test_what_a_loss_without_a_truth_is_given_depends_on_the_example_alone(whole):
    def supervise(measure, seed, index):
        return measure(seed, index), measure(seed + 2, index)

    (y, (truth, target)), second = take(2, supervise=supervise)
    assert_same((y, truth), whole[0])
    assert np.std(target - y) > 0.1
    assert_same(take(1, start_step=1, supervise=supervise)[0], second)
    parts = [
        take(1, input_context=context(2, worker, 2), supervise=supervise)[0] for worker in range(2)
    ]
    assert_same(joined(parts), (y, (truth, target)))
    batches = evaluation_batches(MIXED, BLURRED, seed=0, supervise=supervise)
    _, (one, other) = next(iter(batches))
    assert one.shape == other.shape == (1, 13, 17, 1)

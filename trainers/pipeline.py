"""Photographs to batches of (measurement, truth), the same for any number of workers.

Everything about an example (which photograph, which patch, how it is turned, which noise) is a
function of the seed and the example's number alone. So a run is resumed by `start_step`, with
nothing saved; the sequence of global batches does not depend on the number of workers; and no
shuffle buffer has to be filled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from trainers.datasets.images import ImageSet, check_images
from trainers.datasets.loading import load
from trainers.datasets.store import Store

__all__ = [
    "ImageSet",
    "check_images",
    "evaluation_batches",
    "gaussian_noise",
    "load",
    "training_batches",
]


def gaussian_noise(stddev: float) -> Callable:
    """White Gaussian noise as a `noise_fn`, drawn statelessly.

    Args:
        stddev: standard deviation on the scale of [0, 1] images. The noisy image is not clipped.

    Returns:
        A function of (clean image, seed, index) to the noisy image.
    """
    if not (np.isscalar(stddev) and np.isfinite(stddev) and stddev >= 0):
        raise ValueError(f"`stddev` must be a finite number >= 0. Received: stddev={stddev!r}.")

    def noise_fn(clean, seed, index):
        # Philox by name: what "auto" chooses depends on the device.
        noise = tf.random.stateless_normal(
            tf.shape(clean), tf.stack([seed, index]), dtype=clean.dtype, alg="philox"
        )
        return clean + tf.cast(stddev, clean.dtype) * noise

    return noise_fn


def _stream(seed: int, name: str) -> tf.Tensor:
    """A seed of its own for each use, lest the noise repeat the numbers that chose the patch."""
    if not isinstance(seed, int):
        raise ValueError(f"`seed` must be an integer. Received: seed={seed!r}.")
    digest = hashlib.sha256(f"deq_keras/{name}/{seed}".encode()).digest()
    return tf.constant(int.from_bytes(digest[:8], "big") >> 1, tf.int64)


def _measure(truth, operator_fn, noise_fn, seed, index):
    clean = tf.cast(operator_fn(truth[None]), tf.float32)
    if clean.shape.rank is None or clean.shape.rank < 1 or clean.shape[0] not in (None, 1):
        raise ValueError(
            "`operator_fn` must map a batch of images to a batch of as many measurements. "
            f"Received: shape {clean.shape} for a batch of one image of shape {truth.shape}."
        )
    measurement = noise_fn(clean[0], seed, index)
    if not measurement.shape.is_compatible_with(clean.shape[1:]):
        raise ValueError(
            "`noise_fn` must keep the shape of what it is given. Received: shape "
            f"{measurement.shape} for a clean measurement of shape {clean.shape[1:]}."
        )
    return measurement, truth


def _check_fits(images: ImageSet, size: int, argument: str) -> None:
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"`{argument}` must be a positive integer. Received: {argument}={size!r}.")
    small = [
        f"{name!r} ({image.shape[0]} x {image.shape[1]})"
        for name, image in zip(images.names, images.images, strict=True)
        if min(image.shape[:2]) < size
    ]
    if small:
        raise ValueError(
            f"`{argument}` is {size}, larger than {len(small)} of {len(images)} images: "
            f"{', '.join(small[:5])}{', ...' if len(small) > 5 else ''}. Choose a smaller one, or "
            "remove these images."
        )


def _share(batch_size: int, context: tf.distribute.InputContext | None) -> tuple[int, list[int]]:
    """This pipeline's part of a global batch: the first example, and the sizes of its batches."""
    if context is None:
        return 0, [batch_size]
    pipelines, this = context.num_input_pipelines, context.input_pipeline_id
    replicas = max(context.num_replicas_in_sync, pipelines)
    if replicas % pipelines or batch_size < replicas:
        raise ValueError(
            "`batch_size` is that of the global batch: every replica needs an example of it, and "
            f"every worker as many replicas. Received: batch_size={batch_size}, {replicas} "
            f"replicas, {pipelines} workers."
        )
    cuts = [batch_size * replica // replicas for replica in range(replicas + 1)]
    per_worker = replicas // pipelines
    mine = cuts[this * per_worker : (this + 1) * per_worker + 1]
    return mine[0], [stop - start for start, stop in zip(mine, mine[1:], strict=False)]


def _check_count(value: int, name: str, least: int) -> None:
    if not isinstance(value, int) or value < least:
        raise ValueError(f"`{name}` must be an integer >= {least}. Received: {name}={value!r}.")


def _with_options(dataset: tf.data.Dataset, policy: tf.data.experimental.AutoShardPolicy):
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_distribute.auto_shard_policy = policy
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)


def training_batches(
    images: ImageSet,
    operator_fn: Callable,
    noise_fn: Callable,
    *,
    patch_size: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    input_context: tf.distribute.InputContext | None = None,
) -> tf.data.Dataset:
    """An endless sequence of batches of random patches and their measurements.

    In every pass over the images each gives one patch, in a fresh random order: images count
    alike, whatever their size. The patch's place is uniform over the image, and it is turned and
    mirrored into one of the 8 positions of a square. Example `n`, which is in batch
    `n // batch_size`, depends on `seed` and `n` alone.

    Args:
        images: the training images.
        operator_fn: a batch of images `(batch, patch_size, patch_size, channels)`, float32 on
            [0, 1], to the batch of clean measurements. It is given one example at a time, so that
            the others of a batch cannot matter, in a graph on the CPU, without AutoGraph.
        noise_fn: a function of (clean measurement without a batch axis, seed, index) to the noisy
            one, with stateless random operations, for instance `gaussian_noise(0.05)`. The int64
            scalars `seed` and `index` make a seed for those: `tf.stack([seed, index])`.
        patch_size: height and width of a patch in pixels.
        batch_size: the size of the global batch, of all workers together.
        seed: another seed, other examples.
        start_step: the number of batches to leave out at the beginning, without computing them.
        input_context: from `strategy.distribute_datasets_from_function`. The worker yields its
            contiguous slice of each global batch, cut again into one batch after the other for
            its replicas. If they cannot be of equal size, some are larger by one example.

    Returns:
        A dataset of `(measurement, truth)`, float32 `(batch, ...)`.

    Raises:
        ValueError: a wrong argument, a patch larger than an image (named), or a batch with less
            than an example for each replica.

    Example:

    >>> images = ImageSet(("a",), (np.zeros((32, 48, 1), np.uint8),))
    >>> batches = training_batches(
    ...     images, lambda u: u, gaussian_noise(0.1), patch_size=16, batch_size=4, seed=0
    ... )
    >>> next(iter(batches))[0].shape
    TensorShape([4, 16, 16, 1])
    """
    _check_fits(images, patch_size, "patch_size")
    _check_count(batch_size, "batch_size", 1)
    _check_count(start_step, "start_step", 0)
    first, sizes = _share(batch_size, input_context)
    local = sum(sizes)
    store = Store.of(images)
    order_seed, patch_seed, noise_seed = (_stream(seed, use) for use in ("order", "patch", "noise"))

    def permutation(number):
        indices = tf.range(len(images), dtype=tf.int64)
        pair = tf.stack([order_seed, number])
        return tf.random.experimental.stateless_shuffle(indices, pair, alg="philox")

    @tf.autograph.experimental.do_not_convert
    def example(index, image):
        pair = tf.stack([patch_seed, index])
        draws = tf.random.stateless_uniform([3], pair, 0, 2**62, tf.int64, alg="philox")
        truth = store.patch(image, patch_size, draws)
        return _measure(truth, operator_fn, noise_fn, noise_seed, index)

    number = start_step * batch_size
    passes = tf.data.Dataset.counter(number // len(images)).map(permutation)
    order = passes.unbatch().skip(number % len(images))
    chosen = tf.data.Dataset.zip((tf.data.Dataset.counter(number), order))
    if local < batch_size:
        chosen = chosen.batch(batch_size, drop_remainder=True)
        chosen = chosen.map(lambda *both: tuple(x[first : first + local] for x in both)).unbatch()
    examples = chosen.map(example, tf.data.AUTOTUNE, deterministic=True)
    if len(set(sizes)) == 1:
        batches = examples.batch(sizes[0], drop_remainder=True)
    else:
        batches = examples.batch(local, drop_remainder=True).rebatch(sizes)
    # DATA lets `fit` under a strategy cut global batches up; with a context it is done already.
    policy = tf.data.experimental.AutoShardPolicy
    return _with_options(batches, policy.DATA if input_context is None else policy.OFF)


def evaluation_batches(
    images: ImageSet,
    operator_fn: Callable,
    noise_fn: Callable,
    *,
    seed: int,
    crop: int | None = None,
    batch_size: int = 1,
) -> tf.data.Dataset:
    """The images of a split once, in their order, each with a noise of its own that never changes.

    The noise depends on `seed` and the image's position in the set alone, and differs from that
    of `training_batches` with the same seed.

    Args:
        images: the validation or test images.
        operator_fn: see `training_batches`; given images of any size unless `crop` is set.
        noise_fn: see `training_batches`.
        seed: another seed, another noise.
        crop: take only the central square of so many pixels, None for whole images.
        batch_size: images in a batch, if all have the same size (always so with `crop`). Images
            of different sizes are never put together: then every batch holds one image.

    Returns:
        A finite dataset of `(measurement, truth)`, float32 `(batch, ...)`.

    Raises:
        ValueError: a wrong argument, or a crop larger than an image (named).
    """
    if crop is not None:
        _check_fits(images, crop, "crop")
    _check_count(batch_size, "batch_size", 1)
    shapes = {image.shape if crop is None else (crop, crop) for image in images.images}
    height, width = shapes.copy().pop()[:2] if len(shapes) == 1 else (None, None)
    store = Store.of(images)
    noise_seed = _stream(seed, "evaluation noise")

    @tf.autograph.experimental.do_not_convert
    def example(index):
        truth = tf.ensure_shape(store.whole(index, crop), [height, width, images.channels])
        return _measure(truth, operator_fn, noise_fn, noise_seed, index)

    indices = tf.data.Dataset.range(len(images))
    examples = indices.map(example, tf.data.AUTOTUNE, deterministic=True)
    batches = examples.batch(batch_size if len(shapes) == 1 else 1)
    return _with_options(batches, tf.data.experimental.AutoShardPolicy.DATA)

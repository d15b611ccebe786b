"""Pipeline from photographs to batches of (measurement, truth), for any number of workers.

Everything about an example (which photograph, which patch, how it is turned, how it is measured)
is a function of the seed and the example's number alone. So a run is resumed by `start_step`, with
nothing saved; the sequence of global batches does not depend on the number of workers; and no
shuffle buffer has to be filled.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import tensorflow as tf

from trainers.datasets.images import ImageSet
from trainers.datasets.store import Store


def _stream(seed: int, name: str) -> tf.Tensor:
    """A seed for each use, so that the noise does not repeat the numbers that chose the patch."""
    if not isinstance(seed, int):
        raise ValueError(f"`seed` must be an integer. Received: seed={seed!r}.")
    digest = hashlib.sha256(f"deq_keras/{name}/{seed}".encode()).digest()
    return tf.constant(int.from_bytes(digest[:8], "big") >> 1, tf.int64)


def _measurement(value, truth):
    """What `measure` returned, as float32 or complex64."""
    if isinstance(value, tuple) and value:
        return tuple(_measurement(part, truth) for part in value)
    # A list would become one tensor in tf.data.
    if value is None or isinstance(value, (tuple, list, dict)):
        raise ValueError(
            "`measure` must return a tensor or a nested tuple of tensors. "
            f"Received: {value!r} for an image of shape {truth.shape}."
        )
    tensor = tf.convert_to_tensor(value)
    kind = tensor.dtype
    if not (kind.is_floating or kind.is_integer or kind.is_bool or kind.is_complex):
        raise ValueError(
            "`measure` must return numbers, for they are cast to float32 or complex64. Received: "
            f"dtype {kind.name}."
        )
    if tensor.shape.rank == 4 and tensor.shape[0] == 1:
        raise ValueError(
            "`measure` must return the measurement of one image without a batch axis. Received: "
            f"shape {tensor.shape} for an image of shape {truth.shape}. Drop the axis with `[0]`, "
            "as in `operator(truth[None])[0]`."
        )
    return tf.cast(tensor, tf.complex64 if kind.is_complex else tf.float32)


def measurement_spec(
    measure: Callable, channels: int, size: tuple[int | None, int | None] = (None, None)
):
    """Says what batches of measurements of images look like, without measuring any.

    Args:
        measure: see `training_batches`.
        channels: of the images.
        size: height and width of the images, None where they are not known.

    Returns:
        A `tf.TensorSpec`, or a nested tuple of them in the structure that `measure` gives a
        measurement: shapes `(batch, ...)` with None for what is not known, and dtypes.

    Raises:
        ValueError: `measure` returns something that is not a measurement.

    Example:

    >>> measurement_spec(lambda truth, seed, index: (truth[::2], truth > 0.5), 1, (32, 48))[0]
    TensorSpec(shape=(None, 16, 48, 1), dtype=tf.float32, name=None)
    """

    @tf.autograph.experimental.do_not_convert
    def example(truth, seed, index):
        return _measurement(measure(truth, seed, index), truth)

    number = tf.TensorSpec((), tf.int64)
    image = tf.TensorSpec((*size, channels), tf.float32)
    traced = tf.function(example).get_concrete_function(image, number, number)
    return tf.nest.map_structure(
        lambda part: tf.TensorSpec((None, *part.shape), part.dtype), traced.structured_outputs
    )


def _example(measure, supervise, truth, seed, index):
    """`(measurement, truth)`, or `(input, (truth, target))` of a loss that needs no truth."""
    if supervise is None:
        return _measurement(measure(truth, seed, index), truth), truth
    parts = supervise(lambda *numbers: measure(truth, *numbers), seed, index)
    measurement, target = (_measurement(part, truth) for part in parts)
    return measurement, (truth, target)


def _order(count: int, seed: tf.Tensor, number) -> tf.Tensor:
    """The order of `count` images in a pass over them."""
    pair = tf.stack([seed, tf.cast(number, tf.int64)])
    indices = tf.range(count, dtype=tf.int64)
    return tf.random.experimental.stateless_shuffle(indices, pair, alg="philox")


def image_of_example(images: ImageSet, seed: int, number: int) -> str:
    """The name of the image that example `number` of `training_batches` is a patch of.

    Args:
        images: the training images.
        seed: that of the batches.
        number: from 0; `step * batch_size + position` for a place in a global batch.
    """
    passes, place = divmod(number, len(images))
    return images.names[int(_order(len(images), _stream(seed, "order"), passes)[place])]


def _check_fits(images: ImageSet, size: int, argument: str) -> None:
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"`{argument}` must be a positive integer. Received: {argument}={size!r}.")
    small = [n for n, image in enumerate(images.images) if min(image.shape[:2]) < size]
    if small:
        shown = [f"{images.names[n]!r} ({images.size(n)})" for n in small]
        was = [images.shrunk_from[n] for n in small] if images.shrunk_from else [None]
        shrunk = any(sides and min(sides) >= size for sides in was)
        raise ValueError(
            f"`{argument}` is {size}, larger than {len(small)} of {len(images)} images: "
            f"{', '.join(shown[:5])}{', ...' if len(shown) > 5 else ''}. Choose a smaller one, "
            f"{'a larger `max_side`, ' if shrunk else ''}or leave these images out."
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
    measure: Callable,
    *,
    patch_size: int,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    input_context: tf.distribute.InputContext | None = None,
    supervise: Callable | None = None,
) -> tf.data.Dataset:
    """An endless sequence of batches of random patches and their measurements.

    In every pass over the images each gives one patch, in a fresh random order: images count
    alike, whatever their size. The patch's place is uniform over the image, and it is turned and
    mirrored into one of the 8 positions of a square. Example `n`, which is in batch
    `n // batch_size`, depends on `seed` and `n` alone.

    Args:
        images: the training images.
        measure: a function of (truth, seed, index) to the measurement of one image: a tensor, or a
            nested tuple of tensors such as `(y, mask)`, of any shapes; real numbers are cast to
            float32, complex ones to complex64. The truth is
            `(patch_size, patch_size, channels)`, float32 on [0, 1]. The int64 scalars `seed` and
            `index`, the example's number, make the seed `tf.stack([seed, index])` of stateless
            random operations; for the second of two independent draws take `seed + 1`. It sees
            one example at a time, so that the others of a batch cannot matter, and runs in a
            graph on the CPU, without AutoGraph.
        patch_size: height and width of a patch in pixels.
        batch_size: the size of the global batch, of all workers together.
        seed: another seed, other examples.
        start_step: the number of batches to leave out at the beginning, without computing them.
        input_context: from `strategy.distribute_datasets_from_function`. The worker yields its
            contiguous slice of each global batch, cut again into one batch after the other for
            its replicas. If they cannot be of equal size, some are larger by one example.
        supervise: `prepare` of a `deq_keras.losses.MeasurementLoss`, which learns without clean
            images, or `None`.

    Returns:
        A dataset of `(measurement, truth)`, both `(batch, ...)`, where the measurement has the
        structure that `measure` gives it, for instance `((y, mask), truth)`; with `supervise` of
        `(input, (truth, target))`.

    Raises:
        ValueError: a wrong argument, a patch larger than an image (named), a batch with less than
            an example for each replica, or a measurement of another kind.

    Example:

    >>> import numpy as np
    >>> from deq_keras.operators import gaussian_noise
    >>> images = ImageSet(("a",), (np.zeros((32, 48, 1), np.uint8),))
    >>> def measure(truth, seed, index):
    ...     return gaussian_noise(truth, 0.1, seed, index)
    >>> batches = training_batches(images, measure, patch_size=16, batch_size=4, seed=0)
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

    @tf.autograph.experimental.do_not_convert
    def example(index, image):
        pair = tf.stack([patch_seed, index])
        draws = tf.random.stateless_uniform([3], pair, 0, 2**62, tf.int64, alg="philox")
        truth = store.patch(image, patch_size, draws)
        return _example(measure, supervise, truth, noise_seed, index)

    number = start_step * batch_size
    passes = tf.data.Dataset.counter(number // len(images)).map(
        lambda number: _order(len(images), order_seed, number)
    )
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
    measure: Callable,
    *,
    seed: int,
    crop: int | None = None,
    batch_size: int = 1,
    input_context: tf.distribute.InputContext | None = None,
    supervise: Callable | None = None,
) -> tf.data.Dataset:
    """The images of a split once, in their order, each with a noise of its own that never changes.

    The noise (or the mask, or whatever `measure` draws) depends on `seed` and the image's position
    in the set alone, and differs from that of `training_batches` with the same seed.

    Args:
        images: the validation or test images.
        measure: see `training_batches`; given images of any size unless `crop` is set.
        seed: another seed, another noise.
        crop: side in pixels of the central square to take, None for whole images.
        batch_size: images in a batch, if all have the same size (always so with `crop`). Images
            of different sizes are never put together: then every batch holds one image.
        input_context: the worker yields its share of the images, and reads those only: every n-th
            one of n workers.
        supervise: see `training_batches`.

    Returns:
        A finite dataset of `(measurement, truth)`, as `training_batches`. An example is the same
        for any `batch_size`.

    Raises:
        ValueError: a wrong argument, a crop larger than an image (named), or a measurement of
            another kind.
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
        return _example(measure, supervise, truth, noise_seed, index)

    indices = tf.data.Dataset.range(len(images))
    if input_context is not None:
        indices = indices.shard(input_context.num_input_pipelines, input_context.input_pipeline_id)
    examples = indices.map(example, tf.data.AUTOTUNE, deterministic=True)
    batches = examples.batch(batch_size if len(shapes) == 1 else 1)
    policy = tf.data.experimental.AutoShardPolicy
    return _with_options(batches, policy.DATA if input_context is None else policy.OFF)

"""Noise that is a function of a seed and the number of the image."""

import keras
import tensorflow as tf

from deq_keras.checks import positive
from deq_keras.config import described


def gaussian_noise(y, stddev, seed, index):
    """Adds Gaussian noise to the measurement of one image.

    Args:
        y: Measurement of any shape, real or complex, or a structure of several.
        stddev: Standard deviation on the scale of the measurement; of a complex one that of its
            real and of its imaginary part each.
        seed: Integer.
        index: Integer number of the image.

    Returns:
        `y + stddev * n` of the shape and dtype of `y`, where `n` depends on `seed`, `index` and
        the shape alone.

    Example:

    >>> noisy = deq_keras.operators.gaussian_noise(tf.zeros((8, 8, 1)), 0.1, seed=0, index=7)
    """
    return _each(lambda leaf, seeds: _add_gaussian(leaf, stddev, seeds), y, seed, index)


def poisson_noise(y, peak, seed, index):
    """Replaces the measurement of one image by photon counts.

    Args:
        y: Measurement of any shape, real, of value 1 for `peak` photons. Negative values count
            as 0.
        peak: Expected number of photons at a pixel of value 1, a number or a tensor.
        seed: Integer.
        index: Integer number of the image.

    Returns:
        `z / peak` with `z` Poisson of mean `peak * max(y, 0)`, a function of the arguments alone;
        NaN where this mean is not finite. No gradient passes through it.

    Raises:
        ValueError: If `y` is complex, or `peak` is a number that is not positive and finite. (A
            tensor `peak` that is not makes NaN.)

    Example:

    >>> noisy = deq_keras.operators.poisson_noise(tf.ones((8, 8, 1)), 30.0, seed=0, index=7)
    """
    peak = peak if tf.is_tensor(peak) else positive("peak", peak)
    return _each(lambda leaf, seeds: _count_photons(leaf, peak, seeds), y, seed, index)


class _Noise(keras.layers.Layer):
    """Noise for a batch: each image on its own, so nothing depends on the batch."""

    def __init__(self, seed=0, **kwargs):
        super().__init__(**kwargs)
        if isinstance(seed, bool) or int(seed) != seed:
            raise ValueError(f"Expected `seed` to be an integer. Received seed={seed!r}.")
        self.seed = int(seed)

    def build(self, y_shape, index_shape=None):
        self.built = True

    def call(self, y, index):
        index = tf.convert_to_tensor(index)
        shapes = [leaf.shape for leaf in tf.nest.flatten(y)]
        fits = all(shape[:1].is_compatible_with(index.shape) for shape in shapes)
        if not index.dtype.is_integer or not fits:
            raise ValueError(
                f"{type(self).__name__} expected `index` to hold an integer for each of the "
                f"measurements {shapes}. Received {index.dtype.name} of shape {index.shape}."
            )
        return tf.map_fn(
            lambda pair: self._one(*pair),
            (y, index),
            fn_output_signature=tf.nest.map_structure(
                lambda leaf: tf.TensorSpec(leaf.shape[1:], leaf.dtype), y
            ),
        )

    def __repr__(self):
        return described(self)

    def compute_output_shape(self, y_shape, index_shape=None):
        return y_shape

    def compute_output_spec(self, y, index):
        # The dtype may be complex.
        return tf.nest.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, leaf.dtype), y)


@keras.saving.register_keras_serializable(package="deq_keras")
class GaussianNoise(_Noise):
    """Adds Gaussian noise that is a function of the seed and each image's number.

    The noise of an image does not depend on the size of the batch, on its other images, or on
    the number of devices.

    Args:
        stddev: Standard deviation on the scale of the measurements; of complex ones that of their
            real and of their imaginary parts each.
        seed: Integer.
        **kwargs: `name` and `dtype` of the layer.

    Call arguments:
        y: Measurements `(batch, ...)` of any shape, real or complex, or a structure of several.
        index: Numbers of the images, int64 `(batch,)`.

    Returns:
        Noisy measurements of the shape of `y`.

    Raises:
        ValueError: If `stddev` is negative or not finite.

    Example:

    >>> noise = deq_keras.operators.GaussianNoise(stddev=0.05, seed=1)
    >>> y = noise(tf.ones((2, 8, 8, 1)), tf.constant([10, 11], tf.int64))
    """

    def __init__(self, stddev, seed=0, **kwargs):
        super().__init__(seed, **kwargs)
        self.stddev = positive("stddev", stddev, zero=True)

    def get_config(self):
        return {**super().get_config(), "stddev": self.stddev, "seed": self.seed}

    def _one(self, y, index):
        return gaussian_noise(y, self.stddev, self.seed, index)


@keras.saving.register_keras_serializable(package="deq_keras")
class PoissonNoise(_Noise):
    """Replaces measurements by photon counts, a function of the seed and each image's number.

    `z / peak` with `z` Poisson of mean `peak * max(y, 0)`. The noise of an image does not depend
    on the size of the batch, on its other images, or on the number of devices.

    Args:
        peak: Expected number of photons at a pixel of value 1; the fewer, the noisier.
        seed: Integer.
        **kwargs: `name` and `dtype` of the layer.

    Call arguments:
        y: Measurements `(batch, ...)` of any shape, real, of value 1 for `peak` photons.
        index: Numbers of the images, int64 `(batch,)`.

    Returns:
        Noisy measurements of the shape of `y`, NaN where `y` is not finite. No gradient passes
        through them.

    Raises:
        ValueError: If `peak` is not positive and finite, or the measurements are complex.

    Example:

    >>> noise = deq_keras.operators.PoissonNoise(peak=30.0, seed=1)
    >>> y = noise(tf.ones((2, 8, 8, 1)), tf.constant([10, 11], tf.int64))
    """

    def __init__(self, peak, seed=0, **kwargs):
        super().__init__(seed, **kwargs)
        self.peak = positive("peak", peak)
        self.supports_jit = False  # XLA has no Poisson numbers

    def get_config(self):
        return {**super().get_config(), "peak": self.peak, "seed": self.seed}

    def _one(self, y, index):
        return poisson_noise(y, self.peak, self.seed, index)


def _each(function, y, seed, index):
    """Applies a function of a tensor and its seeds; each of several tensors has its own."""
    seeds = tf.stack([tf.cast(seed, tf.int64), tf.cast(index, tf.int64)])
    leaves = []
    for place, leaf in enumerate(tf.nest.flatten(y)):
        own = tf.random.experimental.stateless_fold_in(seeds, place) if place else seeds
        leaves.append(function(tf.convert_to_tensor(leaf), own))
    return tf.nest.pack_sequence_as(y, leaves)


def _add_gaussian(y, stddev, seeds):
    real = y.dtype.real_dtype
    shape = tf.concat([[2], tf.shape(y)], 0) if y.dtype.is_complex else tf.shape(y)
    noise = tf.random.stateless_normal(shape, seeds, dtype=real, alg="philox")
    noise = tf.cast(stddev, real) * noise
    return y + (tf.complex(noise[0], noise[1]) if y.dtype.is_complex else noise)


def _count_photons(y, peak, seeds):
    if y.dtype.is_complex:
        raise ValueError(
            "Poisson noise counts photons, so it expects real measurements. Received "
            f"{y.dtype.name}. Use Gaussian noise for complex measurements."
        )
    peak = tf.cast(peak, y.dtype)
    rate = peak * tf.maximum(tf.stop_gradient(y), 0)
    # TensorFlow would look for a number of rate NaN, or of a negative one, for ever.
    possible = tf.math.is_finite(rate) & (rate >= 0) & (peak > 0)
    safe = tf.where(possible, rate, tf.zeros_like(rate))
    counts = tf.random.stateless_poisson(tf.shape(y), seeds, safe, y.dtype)
    return tf.where(possible, counts / peak, tf.constant(float("nan"), y.dtype))

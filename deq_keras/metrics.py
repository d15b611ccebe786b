"""Image quality: PSNR and SSIM, each image's own value averaged over the images seen.

The values are those of scikit-image (`peak_signal_noise_ratio(data_range=max_value)` and
`structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
data_range=max_value, channel_axis=-1)`). Nothing is clipped: an estimate that leaves
`[0, max_value]` is scored as it is. Clip it first if the score of a displayed image is wanted.
"""

import math

import keras
import numpy as np
import tensorflow as tf

_K1, _K2 = 0.01, 0.03  # Wang et al. (2004), section III.B


def psnr(truth, estimate, max_value: float = 1.0) -> tf.Tensor:
    """Peak signal-to-noise ratio of each image, in decibels.

    `10 log10(max_value² / mse)` with the mean square error over an image's pixels and channels.
    It is `inf` where the two images are identical, as in scikit-image. Images are not clipped.

    Args:
        truth: images `(batch, height, width, channels)` on `[0, max_value]`.
        estimate: images of the same shape.
        max_value: the largest value a pixel can have, above the least one, 0.

    Returns:
        Tensor `(batch,)`: float64 if either argument is, float32 otherwise (half precision
        and integers included).

    Raises:
        ValueError: if the images are not rank 4, differ in shape, or are complex.

    Example:

    >>> truth = tf.zeros((2, 8, 8, 1))
    >>> print(deq_keras.metrics.psnr(truth, truth + 0.1).numpy())
    [20. 20.]
    """
    max_value = _positive("max_value", max_value)
    mse = mean_squared_error(truth, estimate, max_value, "psnr")
    return -10.0 / math.log(10.0) * tf.math.log(mse)


def ssim(
    truth, estimate, max_value: float = 1.0, filter_size: int = 11, filter_sigma: float = 1.5
) -> tf.Tensor:
    """Structural similarity of each image: 1 for identical images, averaged over channels.

    The local means, variances and covariance are weighted with a Gaussian window. Only windows
    that lie wholly inside the image count, so no border has to be invented. Images are not
    clipped.

    Args:
        truth: images `(batch, height, width, channels)` on `[0, max_value]`.
        estimate: images of the same shape.
        max_value: the largest value a pixel can have, above the least one, 0.
        filter_size: odd side of the window in pixels. scikit-image uses
            `2 * int(3.5 * filter_sigma + 0.5) + 1`.
        filter_sigma: standard deviation of the window in pixels.

    Returns:
        Tensor `(batch,)`: float64 if either argument is, float32 otherwise (half precision
        and integers included).

    Raises:
        ValueError: if the images are not rank 4, differ in shape, are complex, or are smaller
            than the window; `tf.errors.InvalidArgumentError` where that is known only when a
            graph runs.

    Example:

    >>> truth = tf.random.uniform((2, 16, 16, 3))
    >>> print(deq_keras.metrics.ssim(truth, truth).numpy())
    [1. 1.]

    Reference: Wang, Bovik, Sheikh and Simoncelli, "Image quality assessment: from error
    visibility to structural similarity", IEEE Trans. Image Processing 13(4), 2004, eq. (13).
    """
    max_value = _positive("max_value", max_value)
    weights = _window(filter_size, filter_sigma)
    truth, estimate = _image_pair("ssim", truth, estimate, smallest=filter_size)
    truth, estimate = truth / max_value, estimate / max_value
    # Variances do not change with a shift. Without it, bright flat regions lose their variance
    # to rounding in float32 (tf.image.ssim is wrong by up to 2e-4 there, this by 2e-7).
    shift = tf.reduce_mean(truth, axis=[1, 2], keepdims=True)
    x, y = truth - shift, estimate - shift
    mean_x, mean_y = _window_mean(x, weights), _window_mean(y, weights)
    variances = _window_mean(x * x + y * y, weights) - mean_x * mean_x - mean_y * mean_y
    covariance = _window_mean(x * y, weights) - mean_x * mean_y
    mean_x, mean_y = mean_x + shift, mean_y + shift
    luminance = (2 * mean_x * mean_y + _K1**2) / (mean_x * mean_x + mean_y * mean_y + _K1**2)
    structure = (2 * covariance + _K2**2) / (variances + _K2**2)
    return tf.reduce_mean(luminance * structure, axis=[1, 2, 3])


class _ImageMean(keras.metrics.Mean):
    """Mean over images of a function `(truth, estimate) -> (batch,)`: `image_values`."""

    def __init__(self, max_value, name, dtype):
        super().__init__(name=name, dtype=dtype)
        self.max_value = _positive("max_value", max_value)
        self._direction = "up"  # lets EarlyStopping and ModelCheckpoint infer their mode

    def image_values(self, truth, estimate):
        raise NotImplementedError

    def update_state(self, y_true, y_pred, sample_weight=None):
        """Adds a batch.

        Args:
            y_true: true images `(batch, height, width, channels)`.
            y_pred: estimates of the same shape.
            sample_weight: `None`, a scalar, or a weight for each image: `(batch,)`, perhaps with
                axes of length 1 after it (Keras's losses of images want `(batch, 1, 1)`). An
                image of weight 0 counts for nothing, even where its value is infinite.
        """
        values = tf.cast(self.image_values(y_true, y_pred), self.dtype)
        if sample_weight is not None:
            sample_weight = tf.cast(sample_weight, self.dtype)
            shape = sample_weight.shape
            if shape.rank and any(length not in (None, 1) for length in shape[1:]):
                raise ValueError(
                    f"{type(self).__name__} expects one sample_weight for each image, of shape "
                    f"(batch,) or (batch, 1, 1). Received shape {tuple(shape)}. Average the "
                    "weights of an image first."
                )
            if shape.rank != 0:
                sample_weight = tf.reshape(sample_weight, [-1])
            sample_weight = sample_weight * tf.ones_like(values)
            values = tf.where(sample_weight == 0, tf.zeros_like(values), values)  # 0 * inf is NaN
        super().update_state(values, sample_weight=sample_weight)

    def get_config(self):
        return {**super().get_config(), "max_value": self.max_value}


@keras.saving.register_keras_serializable(package="deq_keras")
class PSNR(_ImageMean):
    """Mean over images of the peak signal-to-noise ratio, in decibels.

    Each image's own ratio is averaged, not the mean square errors. One estimate that equals its
    truth exactly makes the mean `inf`: see `psnr`. Images are not clipped.

    Args:
        max_value: the largest value a pixel can have, above the least one, 0.
        name: name of the metric.
        dtype: dtype of the accumulated mean. The values are computed in float32 at least.

    Example:

    >>> model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(1, 1)])
    >>> model.compile("adam", "mse", metrics=[deq_keras.metrics.PSNR()])
    """

    def __init__(self, max_value: float = 1.0, name: str = "psnr", dtype=None):
        super().__init__(max_value, name, dtype)

    def image_values(self, truth, estimate):
        """Each image's value, `(batch,)`."""
        return psnr(truth, estimate, self.max_value)


@keras.saving.register_keras_serializable(package="deq_keras")
class SSIM(_ImageMean):
    """Mean over images of the structural similarity: see `ssim`. Images are not clipped.

    Args:
        max_value: the largest value a pixel can have, above the least one, 0.
        name: name of the metric.
        filter_size: odd side of the Gaussian window in pixels.
        filter_sigma: standard deviation of the window in pixels.
        dtype: dtype of the accumulated mean. The values are computed in float32 at least.

    Example:

    >>> model = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(1, 1)])
    >>> model.compile("adam", "mse", metrics=[deq_keras.metrics.SSIM()])
    """

    def __init__(
        self,
        max_value: float = 1.0,
        name: str = "ssim",
        filter_size: int = 11,
        filter_sigma: float = 1.5,
        dtype=None,
    ):
        super().__init__(max_value, name, dtype)
        _window(filter_size, filter_sigma)
        self.filter_size = filter_size
        self.filter_sigma = filter_sigma

    def image_values(self, truth, estimate):
        """Each image's value, `(batch,)`."""
        return ssim(truth, estimate, self.max_value, self.filter_size, self.filter_sigma)

    def get_config(self):
        sizes = {"filter_size": self.filter_size, "filter_sigma": self.filter_sigma}
        return {**super().get_config(), **sizes}


def _positive(name, value):
    if not (np.isscalar(value) and np.isreal(value) and 0 < value < math.inf):
        raise ValueError(f"`{name}` must be a positive finite number. Received: {value!r}.")
    return float(value)


def mean_squared_error(
    truth, estimate, max_value: float = 1.0, name: str = "mean_squared_error"
) -> tf.Tensor:
    """Mean squared error of each image, relative to `max_value` squared.

    Args:
        truth: Images `(batch, height, width, channels)` on `[0, max_value]`.
        estimate: Images of the same shape.
        max_value: The largest value a pixel can have, above the least one, 0.
        name: Of the caller, for what is wrong with the images.

    Returns:
        Tensor `(batch,)`, as `psnr`.

    Raises:
        ValueError: As `psnr`.

    Example:

    >>> truth = tf.zeros((2, 8, 8, 1))
    >>> print(deq_keras.metrics.mean_squared_error(truth, truth + 0.5).numpy())
    [0.25 0.25]
    """
    truth, estimate = _image_pair(name, truth, estimate)
    return tf.reduce_mean(tf.square((estimate - truth) / max_value), axis=[1, 2, 3])


def _image_pair(name, truth, estimate, smallest=1):
    """Both as tensors of one shape and one dtype, float32 at least; raises if they do not fit."""
    truth, estimate = tf.convert_to_tensor(truth), tf.convert_to_tensor(estimate)
    for label, images in (("truth", truth), ("estimate", estimate)):
        if images.dtype.is_complex:
            raise ValueError(f"{name} expects real images. Received {label} of {images.dtype}.")
        if images.shape.rank not in (None, 4):
            raise ValueError(
                f"{name} expects images (batch, height, width, channels). Received {label} of "
                f"shape {tuple(images.shape)}. Add the axis that is missing."
            )
    if not truth.shape.is_compatible_with(estimate.shape):
        raise ValueError(
            f"{name} expects truth and estimate of the same shape. Received "
            f"{tuple(truth.shape)} and {tuple(estimate.shape)}."
        )
    shape = truth.shape.merge_with(estimate.shape).merge_with([None] * 4)
    if any(side is not None and side < smallest for side in shape[1:3]):
        raise ValueError(
            f"{name} expects images of at least {smallest} by {smallest} pixels, the size of its "
            f"window. Received shape {tuple(shape)}. Use larger images or a smaller filter_size."
        )
    # What is not known before a graph runs is checked when it does.
    sizes = tf.shape(truth)
    tf.debugging.assert_equal(sizes, tf.shape(estimate), f"{name}: the shapes differ.")
    tf.debugging.assert_greater_equal(
        sizes[1:3], smallest, f"{name}: an image is smaller than the window."
    )
    dtype = tf.float64 if tf.float64 in (truth.dtype, estimate.dtype) else tf.float32
    truth, estimate = tf.cast(truth, dtype), tf.cast(estimate, dtype)
    return tf.ensure_shape(truth, shape), tf.ensure_shape(estimate, shape)


def _window(filter_size, filter_sigma):
    """Weights of the normalised one-dimensional Gaussian window."""
    if not (isinstance(filter_size, int) and filter_size > 0 and filter_size % 2 == 1):
        raise ValueError(f"`filter_size` must be an odd positive int. Received: {filter_size!r}.")
    offsets = np.arange(filter_size) - filter_size // 2
    weights = np.exp(-0.5 * np.square(offsets / _positive("filter_sigma", filter_sigma)))
    return weights / weights.sum()


def _window_mean(images, weights):
    """Weighted mean over each window that lies inside the image.

    Sums of shifted images and not a convolution, because on recent GPUs convolutions of float32
    images are computed with ten bits of mantissa (TF32).
    """
    for axis in (1, 2):
        # No window fits a smaller image: its mean is NaN where assertions are compiled away (XLA).
        count = tf.maximum(tf.shape(images)[axis] - len(weights) + 1, 0)
        starts = range(len(weights))
        slices = [images[(slice(None),) * axis + (slice(i, i + count),)] for i in starts]
        images = tf.add_n([weight * part for weight, part in zip(weights, slices, strict=True)])
    return images

"""Masks, the operators of inpainting, and functions that make them."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.convolution import spectra
from deq_keras.operators.base import LinearOperator


@keras.saving.register_keras_serializable(package="deq_keras")
class Mask(LinearOperator):
    """`K u = mask * u`: inpainting, with 1 where a pixel is known and 0 where it is missing.

    The mask is either one for all images, or comes with each image as `data`. Weights other than
    0 and 1 are allowed, such as the reciprocals of noise levels.

    Args:
        mask: Array `(height, width)`, `(height, width, channels)` or
            `(1, height, width, channels)`. `None` (the default) if the mask comes as data.
        trainable: Whether the mask is learned. Its gradient can be taken in any case.
        **kwargs: `name` and `dtype` of the layer.

    Call arguments:
        u: Images `(batch, height, width, channels)`.
        data: Masks of a shape that can be broadcast to that of `u`, if `mask` is `None`.

    Returns:
        Measurements of the shape of `u`.

    Raises:
        ValueError: If the mask is empty, not finite, of another rank, or does not fit the images.

    Example:

    >>> masks = deq_keras.operators.random_mask((2, 32, 48, 1), keep=0.5, seed=1)
    >>> inpaint = deq_keras.operators.Mask()
    >>> y = inpaint(tf.ones((2, 32, 48, 1)), masks)
    """

    def __init__(self, mask=None, trainable=False, **kwargs):
        super().__init__(trainable=trainable, **kwargs)
        self._learned = bool(trainable)
        self._initial = None if mask is None else _four_axes(mask)
        self._shape = np.shape(mask)
        self.mask = None
        if mask is not None:
            self.mask = self.add_weight(
                shape=self._initial.shape,
                initializer=lambda shape, dtype: tf.constant(self._initial, dtype),
                trainable=self._learned,
                name="mask",
            )

    def call(self, u, data=None):
        return self._mask(u, data) * u

    def adjoint(self, v, data=None):
        return self.call(v, data)

    def normal_map(self, like, data=None):
        square = self._mask(like, data) ** 2
        return lambda u: square * u

    def normal_spectrum(self, like, data=None):
        # Far from a convolution; the diagonal makes up for that.
        mean = tf.reduce_mean(self.normal_diagonal(like, data), axis=(1, 2, 3))[:, None, None]
        height, width = spectra.size_of(like)
        return mean * tf.ones((1, height, width // 2 + 1), mean.dtype)

    def normal_diagonal(self, like, data=None):
        return tf.cast(self._mask(like, data) ** 2, spectra.real_dtype(like.dtype))

    def operator_norm(self, data=None):
        if self.mask is None and data is None:
            raise ValueError(
                "The norm of a Mask whose masks come as data depends on them. Pass them: "
                "`operator_norm(data)`."
            )
        if self.mask is not None:
            return tf.reduce_max(tf.abs(tf.convert_to_tensor(self.mask)))
        # For each image its own, so that a step size does not depend on the companions.
        size = tf.abs(tf.cast(data, self.variable_dtype))
        return tf.reduce_max(size, axis=[1, 2, 3]) if size.shape.rank == 4 else tf.reduce_max(size)

    def smallest_singular_value(self):
        if self.mask is None:
            return super().smallest_singular_value()
        return tf.reduce_min(tf.abs(tf.convert_to_tensor(self.mask)))

    def check_data_shape(self, u_shape, data_shape):
        if self.mask is not None:
            super().check_data_shape(u_shape, data_shape)
            data_shape = self.mask.shape
        elif data_shape is None:
            raise ValueError(
                "This Mask has no mask of its own: its masks come with the images. Call "
                "`operator(u, masks)`, or construct it with `Mask(mask)`."
            )
        fits = len(data_shape) == 4 and all(
            m in (1, None) or n is None or m == n for m, n in zip(data_shape, u_shape, strict=True)
        )
        if not fits:
            raise ValueError(
                f"Expected a mask of a shape that can be broadcast to that of the images, "
                f"{tuple(u_shape)}. Received a mask of shape {tuple(data_shape)}. Crop the images "
                "or make a mask for their size."
            )

    def get_config(self):
        config = super().get_config()
        mask = self._initial
        if mask is not None:
            # Zeros and ones take less space as integers.
            mask = mask.astype(int) if np.array_equal(mask, mask.astype(int)) else mask
            mask = mask.reshape(self._shape).tolist()
        config.update(mask=mask, trainable=self._learned and self.trainable)
        return config

    def _mask(self, u, data):
        self._check(u, data)
        return tf.cast(self.mask if self.mask is not None else data, u.dtype)


def random_mask(shape, keep, seed=0):
    """A mask in which each pixel is known with probability `keep`, independently.

    Args:
        shape: `(height, width)`, `(height, width, channels)` or `(batch, height, width, channels)`.
            The channels of a pixel are known or missing together.
        keep: Probability in [0, 1].
        seed: Integer; the mask is a function of it and the other arguments.

    Returns:
        A float32 array of zeros and ones.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> mask = deq_keras.operators.random_mask((64, 48), keep=0.3, seed=1)
    """
    shape = _mask_shape(shape)
    keep = _fraction("keep", keep)
    pixels = shape[:2] if len(shape) < 4 else shape[:3]
    known = np.random.default_rng(seed).random(pixels) < keep
    return _all_channels(known, shape)


def centre_mask(shape, fraction=0.5):
    """A mask in which a block in the centre is missing.

    Args:
        shape: As for `random_mask`.
        fraction: Height and width of the block in parts of the image's, in [0, 1].

    Returns:
        A float32 array of zeros and ones.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> mask = deq_keras.operators.centre_mask((64, 48), fraction=0.25)
    """
    shape = _mask_shape(shape)
    fraction = _fraction("fraction", fraction)
    known = np.ones(shape[:2] if len(shape) < 4 else shape[:3], bool)
    height, width = known.shape[-2:]
    rows, columns = round(fraction * height), round(fraction * width)
    top, left = (height - rows) // 2, (width - columns) // 2
    known[..., top : top + rows, left : left + columns] = False
    return _all_channels(known, shape)


def band_mask(shape, fraction=0.25, position=0.5):
    """A mask in which a horizontal band is missing.

    Args:
        shape: As for `random_mask`.
        fraction: Height of the band in parts of the image's, in [0, 1].
        position: Where the band lies: from 0, at the top, to 1, at the bottom.

    Returns:
        A float32 array of zeros and ones.

    Raises:
        ValueError: If an argument is out of range.

    Example:

    >>> mask = deq_keras.operators.band_mask((64, 48), fraction=0.25, position=0.5)
    """
    shape = _mask_shape(shape)
    fraction, position = _fraction("fraction", fraction), _fraction("position", position)
    known = np.ones(shape[:2] if len(shape) < 4 else shape[:3], bool)
    height = known.shape[-2]
    rows = round(fraction * height)
    top = round(position * (height - rows))
    known[..., top : top + rows, :] = False
    return _all_channels(known, shape)


def _four_axes(mask):
    array = np.asarray(mask, np.float64)
    shape = array.shape
    if array.ndim not in (2, 3, 4) or array.size == 0 or (array.ndim == 4 and shape[0] != 1):
        raise ValueError(
            "Expected `mask` of shape (height, width), (height, width, channels) or "
            f"(1, height, width, channels), not empty. Received shape {shape}. For a mask for "
            "each image use `Mask()` and pass the masks as data."
        )
    if not np.isfinite(array).all():
        raise ValueError("Expected `mask` to be finite. Received NaN or infinite values.")
    return array.reshape((1, *shape, 1) if array.ndim == 2 else (1, *shape)[-4:])


def _mask_shape(shape):
    shape = tuple(int(n) for n in shape)
    if len(shape) not in (2, 3, 4) or min(shape) < 1:
        raise ValueError(
            "Expected `shape` to be (height, width), (height, width, channels) or (batch, height, "
            f"width, channels), of positive integers. Received {shape}."
        )
    return shape


def _fraction(name, value):
    if not 0 <= value <= 1:
        raise ValueError(f"Expected `{name}` to be in [0, 1]. Received {name}={value!r}.")
    return float(value)


def _all_channels(known, shape):
    known = known if known.ndim == len(shape) else known[..., None]
    return np.array(np.broadcast_to(known, shape), np.float32)

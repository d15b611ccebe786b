"""PNG and JPEG files to images on [0, 1], and back to PNG, as operations of a graph."""

import tensorflow as tf

_HEADER = 33  # bytes: the signature of a PNG and its first chunk
_PNG = [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]
_JPEG = [0xFF, 0xD8, 0xFF]


def decode(content, channels, max_pixels, number=0):
    """An image from the content of a file; the size is read before anything is decoded.

    Args:
        content: A string: a PNG of 1 to 16 bits, or a JPEG.
        channels: 1 or 3. Colours become grey by their luma, grey becomes colours, alpha is dropped.
        max_pixels: Limit of height times width.
        number: Its number in the request, for messages.

    Returns:
        `(image, deep)`: float32 `(height, width, channels)` on [0, 1]; whether it had 16 bits.

    Raises:
        tf.errors.InvalidArgumentError: If it is no such file, is damaged, or is too large.

    Example:

    >>> content = tf.io.encode_png(tf.constant([[[0], [255]]], tf.uint8))
    >>> image, deep = decode(content, 1, max_pixels=4)
    >>> image[0, :, 0].numpy(), bool(deep)
    (array([0., 1.], dtype=float32), False)
    """
    header = tf.strings.substr(content, 0, _HEADER) + b"\0" * _HEADER
    header = tf.cast(tf.io.decode_raw(tf.strings.substr(header, 0, _HEADER), tf.uint8), tf.int64)
    is_png = tf.reduce_all(header[:8] == _PNG)
    is_jpeg = tf.reduce_all(header[:3] == _JPEG)
    known = tf.debugging.Assert(
        is_png | is_jpeg, ["Expected PNG or JPEG files. Received something else as number", number]
    )
    with tf.control_dependencies([known]):
        content = tf.identity(content)
    size = tf.cond(
        is_png,
        lambda: tf.stack([_number(header[20:24]), _number(header[16:20])]),
        lambda: tf.cast(tf.image.extract_jpeg_shape(content)[:2], tf.int64),
    )
    fits = tf.reduce_all(size > 0) & (size[0] <= max_pixels // tf.maximum(size[1], 1))
    small = tf.debugging.Assert(
        fits,
        [f"Expected at most {max_pixels} pixels. Received height, width and number", size, number],
    )
    with tf.control_dependencies([small]):
        content = tf.identity(content)
    deep = is_png & (header[24] == 16)

    def of_bytes():
        return tf.cast(tf.io.decode_png(content, channels, tf.uint8), tf.float32) / 255.0

    def of_words():
        return tf.cast(tf.io.decode_png(content, channels, tf.uint16), tf.float32) / 65535.0

    def of_jpeg():
        return tf.cast(tf.io.decode_jpeg(content, channels), tf.float32) / 255.0

    image = tf.cond(deep, of_words, lambda: tf.cond(is_png, of_bytes, of_jpeg))
    return tf.ensure_shape(image, (None, None, channels)), deep


def encode(image, deep):
    """A PNG of 8 bits, or of 16 where `deep`, from an image on [0, 1].

    Example:

    >>> image = tf.constant([[[0.2], [0.7]]])
    >>> again, _ = decode(encode(image, True), 1, max_pixels=4)
    >>> again[0, :, 0].numpy().round(4)
    array([0.2, 0.7], dtype=float32)
    """
    return tf.cond(
        deep,
        lambda: tf.io.encode_png(quantised(image, tf.uint16)),
        lambda: tf.io.encode_png(quantised(image, tf.uint8)),
    )


def quantised(image, dtype):
    """An image on [0, 1] as integers of a dtype, over their whole range; clipped and rounded."""
    return tf.cast(tf.round(tf.clip_by_value(image, 0.0, 1.0) * dtype.max), dtype)


def _number(big_endian):
    return tf.reduce_sum(big_endian * [2**24, 2**16, 2**8, 1])

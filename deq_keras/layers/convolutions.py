"""Keras's convolutions, in the form that is fast on a CPU where there is one."""

import keras

from deq_keras import convolution

_PADDINGS = {"same": "zero", "valid": "valid"}
_DTYPES = ("float32", "float64")  # half precision was not measured


@keras.saving.register_keras_serializable(package="deq_keras")
class Conv2D(keras.layers.Conv2D):
    """`keras.layers.Conv2D`, several times faster from many channels to few on a CPU.

    CPU kernels compute 16 output channels at the price of one, so a convolution from 32 channels to
    one, and the derivative by the input of one from one channel to 32, take up to six times as long
    as they need. Layers of a cell are evaluated, and differentiated by their input, in each step of
    a solve: the first and the last layer of a small cell may be most of its time.

    The function is that of Keras's layer up to rounding, and so are arguments, names and shapes of
    weights, configuration and saved files. What has strides, dilation, groups, channels first or
    half precision is computed by Keras. All derivatives, of any order and in forward and reverse
    mode, take the fast form too: see `deq_keras.convolution.correlate`.

    Args:
        filters: Number of output channels, > 0.
        kernel_size: Side of the kernel in pixels, or a pair `(height, width)`.
        *args, **kwargs: As in `keras.layers.Conv2D`.

    Call arguments:
        inputs: Images `(batch, height, width, channels)`.

    Returns:
        `(batch, height, width, filters)`; smaller if `padding="valid"`, Keras's default.

    Raises:
        ValueError: As `keras.layers.Conv2D`.

    Reference:
        docs/speed.md has the times.

    Example:

    >>> layer = deq_keras.layers.Conv2D(1, 5, padding="same")
    >>> u = tf.random.uniform((2, 16, 16, 32))
    >>> same = keras.layers.Conv2D.from_config(layer.get_config())
    >>> same.build(u.shape), layer.build(u.shape), same.set_weights(layer.get_weights())
    (None, None, None)
    >>> np.allclose(layer(u), same(u), atol=1e-5)
    True
    """

    def convolution_op(self, inputs, kernel):
        """The convolution itself, without bias and activation: Keras's hook for it."""
        plain = self.groups == 1 and _is_plain(self, inputs)
        if not plain or (self.padding == "valid" and _is_small(inputs, self.kernel_size)):
            return super().convolution_op(inputs, kernel)  # which says what is wrong with it
        return convolution.correlate(inputs, kernel, _PADDINGS[self.padding])


@keras.saving.register_keras_serializable(package="deq_keras")
class Conv2DTranspose(keras.layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose`, several times faster to few channels on a CPU.

    It is the adjoint of a convolution: with `padding="same"`, and the same kernel as a `Conv2D`, of
    that one. See `Conv2D` for what is faster and why; what has strides, dilation, output padding,
    channels first or half precision is computed by Keras.

    Args:
        filters: Number of output channels, > 0.
        kernel_size: Side of the kernel in pixels, or a pair `(height, width)`.
        *args, **kwargs: As in `keras.layers.Conv2DTranspose`.

    Call arguments:
        inputs: Images `(batch, height, width, channels)`.

    Returns:
        `(batch, height, width, filters)`; larger if `padding="valid"`, Keras's default.

    Raises:
        ValueError: As `keras.layers.Conv2DTranspose`.

    Example:

    >>> analysis = deq_keras.layers.Conv2D(8, 5, padding="same", use_bias=False)
    >>> synthesis = deq_keras.layers.Conv2DTranspose(1, 5, padding="same", use_bias=False)
    >>> u, v = tf.random.normal((1, 9, 12, 1)), tf.random.normal((1, 9, 12, 8))
    >>> analysis.build(u.shape), synthesis.build(v.shape)
    (None, None)
    >>> synthesis.set_weights(analysis.get_weights())
    >>> left, right = tf.reduce_sum(analysis(u) * v), tf.reduce_sum(u * synthesis(v))
    >>> np.allclose(left, right, rtol=1e-3, atol=1e-3)
    True
    """

    def call(self, inputs):
        if self.output_padding is not None or not _is_plain(self, inputs):
            return super().call(inputs)
        kernel = keras.ops.convert_to_tensor(self.kernel)
        outputs = convolution.correlate_adjoint(inputs, kernel, _PADDINGS[self.padding])
        if self.use_bias:
            outputs = keras.ops.add(outputs, self.bias)
        return outputs if self.activation is None else self.activation(outputs)


def _is_plain(layer, inputs):
    """Whether a layer is a convolution that `deq_keras.convolution` knows."""
    ones = all(n == 1 for n in (*layer.strides, *layer.dilation_rate))
    return ones and layer.data_format == "channels_last" and inputs.dtype in _DTYPES


def _is_small(inputs, kernel_size):
    sizes = zip(inputs.shape[1:3], kernel_size, strict=True)
    return any(n is not None and n < k for n, k in sizes)

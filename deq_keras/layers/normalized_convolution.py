"""A convolution with a certified Lipschitz constant."""

import keras
import tensorflow as tf

from deq_keras import checks, convolution
from deq_keras.checks import positive, positive_int
from deq_keras.config import described

# The largest slope of Keras's activations, rounded up.
_SLOPES = {
    "linear": 1.0,
    "relu": 1.0,
    "relu6": 1.0,
    "leaky_relu": 1.0,
    "elu": 1.0,
    "celu": 1.0,
    "selu": 1.7582,
    "tanh": 1.0,
    "hard_tanh": 1.0,
    "sigmoid": 0.25,
    "hard_sigmoid": 1 / 6,
    "softplus": 1.0,
    "softsign": 1.0,
    "soft_shrink": 1.0,
    "silu": 1.1,
    "gelu": 1.13,
}


@keras.saving.register_keras_serializable(package="deq_keras")
class NormalizedConv2D(keras.layers.Layer):
    """A convolution `sigma(a * u + b)` whose norm is certified to be at most `norm`.

    The kernel is divided by a certified bound on the norm of the convolution (as a linear map of
    images, for every image size: `deq_keras.convolution.norm_bound`), and the gradient flows
    through that division. Nothing changes in a call: training, evaluation and a saved model use
    the same function of the same weights, and a solver may iterate it.

    `keras.layers.SpectralNormalization` divides by the largest singular value of the *reshaped*
    kernel, which may be several times smaller than the norm of the convolution, by an estimate
    that each training step updates, and no gradient passes through it.

    Args:
        filters: Number of output channels.
        kernel_size: Side of the kernel in pixels, or a pair `(height, width)`.
        norm: Bound on the norm of the linear part, > 0.
        padding: What the kernel sees beyond the border: `"zero"`, `"circular"`, `"reflect"` or
            `"valid"` (nothing: the output is smaller). For `"reflect"` the bound is up to twice
            too large, so the layer contracts up to twice as much as needed.
        activation: A Keras activation, or `None`. See `lipschitz` for what is known of it.
        use_bias: Whether there is a `b`.
        always: Whether the kernel is also scaled *up* to the bound. By default only a kernel that
            exceeds it is divided: then the layer may contract as much as its loss asks for (a map
            forced to norm one has slow fixed points), initialisation and weight decay mean what
            they do elsewhere, and a zero kernel is no singular point.
        kernel_initializer: Keras initializer of the kernel.

    Call arguments:
        inputs: Images `(batch, height, width, channels)`.

    Reference:
        H. Gouk, E. Frank, B. Pfahringer, M. J. Cree: Regularisation of neural networks by
        enforcing Lipschitz continuity. Machine Learning 110 (2021).

    Example:

    >>> layer = deq_keras.layers.NormalizedConv2D(8, 3, norm=0.9, activation="relu")
    >>> layer(tf.random.uniform((2, 16, 16, 3))).shape
    TensorShape([2, 16, 16, 8])
    >>> float(layer.lipschitz()) <= 0.9
    True
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        norm: float = 1.0,
        padding: str = "zero",
        activation=None,
        use_bias: bool = True,
        always: bool = False,
        kernel_initializer="glorot_uniform",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.filters = positive_int("filters", filters)
        self.kernel_size = checks.kernel_size(kernel_size)
        self.norm = positive("norm", norm)
        self.padding = convolution.check_padding(padding)
        self.activation = keras.activations.get(activation)
        self.use_bias = bool(use_bias)
        self.always = bool(always)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.input_spec = keras.layers.InputSpec(ndim=4)

    def build(self, input_shape):
        channels = input_shape[-1]
        if channels is None:
            raise ValueError(
                f"{type(self).__name__} expected a known number of channels. Received shape "
                f"{tuple(input_shape)}."
            )
        self.kernel = self.add_weight(
            shape=(*self.kernel_size, channels, self.filters),
            initializer=self.kernel_initializer,
            autocast=False,  # the bound is computed in the precision of the weight
            name="kernel",
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.filters,), initializer="zeros", name="bias")
        self.input_spec = keras.layers.InputSpec(ndim=4, axes={-1: channels})
        self.built = True

    def call(self, inputs):
        kernel = tf.cast(self.normalized_kernel(), inputs.dtype)
        outputs = convolution.correlate(inputs, kernel, self.padding)
        if self.bias is not None:
            outputs += tf.cast(self.bias, outputs.dtype)
        return self.activation(outputs)

    def normalized_kernel(self) -> tf.Tensor:
        """The kernel that is applied, `(height, width, channels, filters)`."""
        kernel, bound = self._bound()
        if self.always:
            factor = self.norm / tf.where(bound > 0, bound, tf.ones_like(bound))
        else:
            factor = self.norm / tf.maximum(bound, self.norm)
        return factor * kernel

    def lipschitz(self) -> tf.Tensor:
        """A certified Lipschitz constant of the layer, for every image size: a scalar tensor.

        It is at most `norm` times the largest slope of the activation. In half precision the
        rounding of the kernel has to be added.

        Raises:
            ValueError: If no slope is known for the activation.
        """
        name = getattr(self.activation, "__name__", None)
        if name not in _SLOPES or keras.activations.get(name) is not self.activation:
            raise ValueError(
                f"Expected an activation of known slope for a Lipschitz constant: one of "
                f"{sorted(_SLOPES)}. Received activation={self.activation!r}. Use one of these, or "
                "`activation=None` and a layer of your own after it."
            )
        _, bound = self._bound()
        if self.always:
            linear = tf.where(bound > 0, tf.constant(self.norm, bound.dtype), tf.zeros_like(bound))
        else:
            linear = tf.minimum(bound, self.norm)
        return _SLOPES[name] * linear

    def _bound(self):
        kernel = tf.convert_to_tensor(self.kernel)
        return kernel, convolution.norm_bound(kernel, self.padding)

    def compute_output_shape(self, input_shape):
        sizes = input_shape[1:3]
        if self.padding == "valid":
            pairs = zip(sizes, self.kernel_size, strict=True)
            sizes = [None if n is None else n - k + 1 for n, k in pairs]
        return (input_shape[0], *sizes, self.filters)

    def __repr__(self):
        return described(self)

    def get_config(self):
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "norm": self.norm,
            "padding": self.padding,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "always": self.always,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
        }

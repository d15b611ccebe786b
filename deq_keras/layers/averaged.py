"""The mean of an image and of what a network makes of it."""

import functools

import keras

from deq_keras.checks import positive
from deq_keras.config import described, serialise
from deq_keras.layers.normalized_convolution import NormalizedConv2D


@keras.saving.register_keras_serializable(package="deq_keras")
class Averaged(keras.layers.Layer):
    """`u -> (1 - share) u + share T(u)`: a relaxed network, an averaged one if `T` does not expand.

    Plug-and-play steps with an averaged denoiser converge where they have a fixed point; with one
    that merely does not expand they may circle. The sum also keeps the details of an image, which
    a network of normalised convolutions alone loses.

    Args:
        layers: Keras layers whose composition is `T`, from images to images of the same shape; the
            first is applied first.
        share: Of `T`, in (0, 1].

    Call arguments:
        inputs: Images `(batch, height, width, channels)`.
        training: As everywhere in Keras; the layers find it in the context of the call.

    Raises:
        ValueError: If there are no layers, they change the number of channels, or the share is out
            of its range.

    Reference:
        Bauschke and Combettes, Convex analysis and monotone operator theory in Hilbert spaces,
        section 4.5.

    Example:

    >>> hidden = deq_keras.layers.NormalizedConv2D(8, 3, activation="relu")
    >>> layer = deq_keras.layers.Averaged([hidden, deq_keras.layers.NormalizedConv2D(1, 3)])
    >>> layer(tf.random.uniform((2, 16, 16, 1))).shape
    TensorShape([2, 16, 16, 1])
    >>> float(deq_keras.layers.averaged.certified_lipschitz(layer)) < 1.0 + 1e-6
    True
    """

    def __init__(self, layers: list[keras.layers.Layer], share: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        layers = list(layers) if isinstance(layers, list | tuple) else [layers]
        if not layers or not all(isinstance(layer, keras.layers.Layer) for layer in layers):
            raise ValueError(f"Expected `layers` to be Keras layers. Received {layers!r}.")
        self.layers = layers
        self.share = positive("share", share, upper=1)

    def build(self, input_shape):
        output = self._network(keras.KerasTensor(input_shape, self.compute_dtype))
        if output.shape[-1] != input_shape[-1]:
            raise ValueError(
                f"Expected `layers` that return {input_shape[-1]} channels, as many as their "
                f"images have. Received {output.shape[-1]}."
            )
        self.built = True

    def call(self, inputs, training=None):
        return (1.0 - self.share) * inputs + self.share * self._network(inputs)

    def _network(self, x):
        for layer in self.layers:
            x = layer(x)
        return x

    def compute_output_shape(self, input_shape):
        return input_shape

    def __repr__(self):
        return described(self)

    def get_config(self):
        layers = [serialise(layer) for layer in self.layers]
        return {**super().get_config(), "layers": layers, "share": self.share}

    @classmethod
    def from_config(cls, config):
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config["layers"]]
        return cls(**{**config, "layers": layers})


def certified_lipschitz(network):
    """A Lipschitz constant of a network for its current weights, a scalar tensor.

    Args:
        network: A Keras layer.

    Returns:
        That of a `NormalizedConv2D`, of an `Averaged` of such, and of a `keras.Sequential` of
        these; `None` for any other network.

    Example:

    >>> layer = deq_keras.layers.NormalizedConv2D(1, 3, norm=0.5)
    >>> layer.build((None, None, None, 1))
    >>> float(deq_keras.layers.averaged.certified_lipschitz(layer)) <= 0.5
    True
    """
    if isinstance(network, keras.Sequential):
        return _product(network.layers)
    if isinstance(network, Averaged):
        bound = _product(network.layers)
        return None if bound is None else 1.0 - network.share + network.share * bound
    if isinstance(network, NormalizedConv2D):
        try:
            return network.lipschitz()
        except ValueError:  # an activation of unknown slope
            return None
    return None


def _product(layers):
    bounds = [certified_lipschitz(layer) for layer in layers]
    if not bounds or any(bound is None for bound in bounds):
        return None
    return functools.reduce(lambda total, bound: total * bound, bounds)

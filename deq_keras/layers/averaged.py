"""The mean of an image and of what a network makes of it."""

import keras

from deq_keras.checks import positive
from deq_keras.config import deserialise, serialise
from deq_keras.layers.normalized_convolution import NormalizedConv2D


@keras.saving.register_keras_serializable(package="deq_keras")
class Averaged(keras.layers.Layer):
    """`u -> (1 - share) u + share T(u)`: a relaxed network, an averaged one if `T` does not expand.

    Plug-and-play steps with an averaged denoiser converge where they have a fixed point; with a
    nonexpansive one they may circle. The sum keeps what a network of normalised convolutions alone
    loses: the details of an image.

    Args:
        network: `T`, a Keras layer or model from images to images of the same shape.
        share: Of `T`, in (0, 1].

    Call arguments:
        inputs: Images `(batch, height, width, channels)`.

    Reference:
        Bauschke and Combettes, Convex analysis and monotone operator theory in Hilbert spaces,
        section 4.5.

    Example:

    >>> network = deq_keras.layers.NormalizedConv2D(1, 3, norm=0.5)
    >>> layer = deq_keras.layers.Averaged(network, share=0.5)
    >>> layer(tf.random.uniform((2, 16, 16, 1))).shape
    TensorShape([2, 16, 16, 1])
    >>> float(deq_keras.layers.averaged.certified_lipschitz(layer)) <= 0.75
    True
    """

    def __init__(self, network: keras.layers.Layer, share: float = 0.5, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(network, keras.layers.Layer):
            raise ValueError(f"Expected `network` to be a Keras layer. Received {network!r}.")
        self.network = network
        self.share = positive("share", share, upper=1)

    def build(self, input_shape):
        output = self.network(keras.KerasTensor(input_shape, self.compute_dtype))
        if output.shape[-1] != input_shape[-1]:
            raise ValueError(
                f"Expected a `network` that returns {input_shape[-1]} channels, as many as its "
                f"images have. Received {output.shape[-1]}."
            )
        self.built = True

    def call(self, inputs, training=None):
        return (1.0 - self.share) * inputs + self.share * self.network(inputs, training=training)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "network": serialise(self.network), "share": self.share}

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "network"))


def certified_lipschitz(network):
    """A Lipschitz constant of a network for its current weights, a scalar tensor.

    Args:
        network: A Keras layer.

    Returns:
        The product of what `NormalizedConv2D` certifies, and `Averaged` of such, in a
        `keras.Sequential`; `None` for any other network.

    Example:

    >>> network = deq_keras.denoisers.averaged_dncnn(depth=2, filters=4)
    >>> float(deq_keras.layers.averaged.certified_lipschitz(network)) <= 1.0 + 1e-6
    True
    """
    if isinstance(network, keras.Sequential):
        total = 1.0 if network.layers else None
        for layer in network.layers:
            bound = certified_lipschitz(layer)
            total = None if total is None or bound is None else total * bound
        return total
    if isinstance(network, Averaged):
        bound = certified_lipschitz(network.network)
        return None if bound is None else 1.0 - network.share + network.share * bound
    if isinstance(network, NormalizedConv2D):
        try:
            return network.lipschitz()
        except ValueError:  # an activation of unknown slope
            return None
    return None

"""The energy of what a denoiser changes."""

import keras
import tensorflow as tf

from deq_keras.checks import shape_4d
from deq_keras.config import deserialise, serialise
from deq_keras.numerics import partial
from deq_keras.priors.base import BoundPrior, Prior
from deq_keras.priors.noise_levels import check_given


@keras.saving.register_keras_serializable(package="deq_keras")
class DenoiserEnergy(Prior):
    """`R(u) = ||u - D(u)||^2 / 2` for any denoiser `D`: what it changes is noise, and costs.

        grad R(u) = (Id - J_D(u))^T (u - D(u)),

    by one vector-Jacobian product of the denoiser. `D` is trained as a denoiser
    (`deq_keras.layers.OneStepDenoiser`, or by itself), or by bilevel learning through
    `deq_keras.layers.Variational`, which starts well from there.

    Nothing is certified: `R >= 0` is in general not convex, and layers search along lines. The
    second derivative of `D` should exist, for the derivative of a minimiser needs it: take a smooth
    activation, such as `"elu"` or `"softplus"`, not `"relu"`.

    Args:
        denoiser: `D`, a Keras layer or model from images to images of the same shape, such as
            `deq_keras.denoisers.UNet()`. It is evaluated as in inference.
        takes_noise_level: Whether it is called as `denoiser([images, noise_level])`, with the
            standard deviation of each image's noise. `Variational` then takes the pair
            `(y, noise_level)`.

    Raises:
        ValueError: If `denoiser` is no Keras layer, or changes the number of channels.

    Reference:
        Cohen, Blau, Freedman and Rivlin, It has potential: gradient-driven denoisers for convergent
        solutions to inverse problems, NeurIPS 2021; Hurault, Leclaire and Papadakis, Gradient step
        denoiser for convergent plug-and-play, ICLR 2022.

    Example:

    >>> denoiser = deq_keras.denoisers.UNet(filters=(8, 16), blocks=1)
    >>> prior = deq_keras.priors.DenoiserEnergy(denoiser)
    >>> images = tf.random.uniform((2, 16, 24, 1))
    >>> prior.energy(images).shape, prior.gradient(images).shape
    (TensorShape([2]), TensorShape([2, 16, 24, 1]))
    """

    has_energy = True
    certified = False

    def __init__(self, denoiser: keras.layers.Layer, takes_noise_level: bool = False, **kwargs):
        if isinstance(denoiser, keras.layers.Layer):
            kwargs.setdefault("dtype", denoiser.dtype_policy)
        super().__init__(**kwargs)
        if not isinstance(denoiser, keras.layers.Layer):
            raise ValueError(f"Expected `denoiser` to be a Keras layer. Received {denoiser!r}.")
        self.denoiser = denoiser
        self.takes_noise_level = bool(takes_noise_level)

    def build(self, input_shape):
        shape = shape_4d(type(self).__name__, input_shape)
        image = keras.KerasTensor((None, None, None, shape[-1]), self.variable_dtype)
        level = keras.KerasTensor((None,), self.variable_dtype)
        output = self.denoiser([image, level] if self.takes_noise_level else image)
        if output.shape[-1] != shape[-1]:
            raise ValueError(
                f"Expected a `denoiser` that returns {shape[-1]} channels, as many as its images "
                f"have. Received {output.shape[-1]}."
            )
        if output.dtype != self.compute_dtype:
            raise ValueError(
                f"Expected a `denoiser` of the prior's dtype, {self.compute_dtype}. Received one "
                f"that returns {output.dtype}. Construct both with dtype={self.compute_dtype!r}."
            )
        self.built = True

    def denoise(self, y, weight=1.0, noise_level=None):
        """What the denoiser makes of noisy images. The weight does not matter.

        Args:
            y: Noisy images.
            weight: As in `Prior.denoise`.
            noise_level: `(batch,)` for a denoiser that takes it, else `None`.
        """
        self.ensure_built(y)
        check_given(type(self).__name__, self.takes_noise_level, noise_level)
        return self._denoised(y, *self._rows(noise_level))

    def bind(self, image_shape, noise_level=None):
        check_given(type(self).__name__, self.takes_noise_level, noise_level)

        def energy(u, *level):
            return 0.5 * tf.reduce_sum((u - self._denoised(u, *level)) ** 2, axis=(1, 2, 3))

        def gradient(u, *level):
            with tf.GradientTape(watch_accessed_variables=False) as tape:
                tape.watch(u)
                denoised = self._denoised(u, *level)
            residual = u - denoised
            return residual - tape.gradient(
                denoised,
                u,
                output_gradients=residual,
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )

        rows = self._rows(noise_level)
        return BoundPrior(*(partial.of_layer(self, part, rows) for part in (gradient, energy)))

    def _denoised(self, u, *level):
        result = self.denoiser([u, *level] if level else u, training=False)
        return tf.cast(result, u.dtype)

    def _rows(self, noise_level):
        return () if noise_level is None else (noise_level,)

    def get_config(self):
        return {
            **super().get_config(),
            "denoiser": serialise(self.denoiser),
            "takes_noise_level": self.takes_noise_level,
        }

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "denoiser"))

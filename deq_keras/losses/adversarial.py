"""The Keras model that learns a prior as a critic: low on clean images, high on noisy ones."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.checks import positive
from deq_keras.layers import OneStepDenoiser
from deq_keras.layers.cell import split_noise_level
from deq_keras.losses.base import OwnLossModel, mean_square
from deq_keras.numerics.rows import at_least_one, first_rows
from deq_keras.numerics.shapes import sizes_of
from deq_keras.priors.base import bind_prior


@keras.saving.register_keras_serializable(package="deq_keras")
class Adversarial(OwnLossModel):
    """A Keras model of a `OneStepDenoiser` that learns its prior by adversarial regularisation.

    With `C = lambda R`, pairs of clean and noisy images `u, y` and `s = ||y - u|| / sqrt(n)` for
    `n` pixels, the loss of a pair is

        (C(u) - C(y)) / (n s^2) + penalty max(||grad C(z)|| / (sqrt(n) s) - 1, 0)^2

    at a place `z` between `u` and `y`. So the prior becomes small on clean images and large on
    noisy ones, as far as its slope allows, and a critic that is perfect has the loss -1: it falls
    along the way from `y` to `u` with slope `s`. One gradient step on it, which is what the layer
    does, is then the best denoiser there is, and `lambda` the weight to start from in a
    `Variational` layer for denoising. No solve and no derivative of one is needed; for another
    operator fit the weight and one more number (`experiments.transfer`).

    Against the paper, norms are divided by the number of pixels and by the noise of each image, so
    patches of any size and noise say the same; places between the pairs of a batch are spread
    evenly, not drawn, so that a training that goes on is the same training.

    Args:
        inputs: As of a `keras.Model`.
        outputs: What a `deq_keras.layers.OneStepDenoiser` makes of them.
        penalty: Weight of the penalty, > 0. Slopes exceed the limit by about its reciprocal.
        **kwargs: Further arguments of `keras.Model`.

    Raises:
        ValueError: If there is not exactly one such layer, its prior has no energy, or it is
            compiled with another loss.

    Reference:
        Lunz, Oktem and Schonlieb, Adversarial regularizers in inverse problems, NeurIPS 2018.

    Example:

    >>> prior = deq_keras.priors.FieldsOfExperts(filters=8, kernel_size=5, sharpness=50.0)
    >>> inputs = keras.Input((None, None, 1))
    >>> layer = deq_keras.layers.OneStepDenoiser(prior, weight=0.01)
    >>> model = deq_keras.losses.Adversarial(inputs, layer(inputs))
    >>> model.compile(keras.optimizers.Adam(0.01), metrics=[deq_keras.metrics.PSNR()])
    >>> clean = tf.random.uniform((2, 16, 16, 1))
    >>> history = model.fit(clean + 0.1 * tf.random.normal(clean.shape), clean, verbose=0)
    """

    def __init__(self, *args, penalty: float = 10.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.penalty = positive("penalty", penalty)
        found = [layer for layer in self.layers if isinstance(layer, OneStepDenoiser)]
        if len(found) != 1 or not found[0].prior.has_energy:
            raise ValueError(
                "Adversarial expected a model of one `deq_keras.layers.OneStepDenoiser` whose "
                f"prior has an energy. Received {[layer.name for layer in self.layers]}."
            )

    def _values(self, x, y, y_pred, training):
        return self.values(x, y)

    def values(self, x, truth):
        """The loss of each pair, `(batch,)`.

        Args:
            x: Noisy images, with a prior that takes it the pair of them and noise levels.
            truth: Clean images.
        """
        (layer,) = (layer for layer in self.layers if isinstance(layer, OneStepDenoiser))
        noisy, level = split_noise_level(x, layer.prior)
        dtype = layer.variable_dtype
        level = None if level is None else tf.cast(level, dtype)
        pairs = tf.cast(noisy, dtype), tf.cast(truth, dtype), level
        (noisy, truth, level), count = at_least_one(pairs)
        prior = bind_prior(layer.prior, sizes_of(noisy), level)
        weight = tf.exp(tf.convert_to_tensor(layer.log_weight))
        rows = tf.shape(noisy)[0]
        place = (tf.cast(tf.range(rows), dtype) + 0.5) / tf.cast(rows, dtype)
        between = truth + place[:, None, None, None] * (noisy - truth)
        square = mean_square(noisy - truth)
        square = tf.maximum(square, float(np.finfo(square.dtype.as_numpy_dtype).eps))
        pixels = tf.cast(tf.reduce_prod(tf.shape(noisy)[1:]), dtype)
        gap = weight * (prior.energy(truth) - prior.energy(noisy)) / (pixels * square)
        slope = mean_square(weight * prior.gradient(between)) / square
        # The square root has no derivative at zero, and is not needed below the limit.
        excess = tf.sqrt(tf.maximum(slope, 1.0)) - 1.0
        return first_rows(gap + self.penalty * excess**2, count)

    def get_config(self):
        return {**super().get_config(), "penalty": self.penalty}

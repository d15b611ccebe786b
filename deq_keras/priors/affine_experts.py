"""Experts that are affine functions of the whole image: the paper's MNIST models."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.checks import positive_int
from deq_keras.priors import initializers
from deq_keras.priors.experts import Experts


@keras.saving.register_keras_serializable(package="deq_keras")
class AffineExperts(Experts):
    """Affine experts with tied weights: `R(u) = sum_i phi(chi_i (<w_i, u> + b_i)) / chi_i`.

    The image is seen as one vector, so it works at one size, known at build.

    Args:
        units: Number of experts. `None`: as many as pixels, as in the paper.
        activation: `sigma = phi'`; see `deq_keras.priors.potentials.get`. The paper uses
            `"relu"`, `"soft_shrinkage"` and `"identity"`.
        sharpness: Initial `chi` of each expert.
        max_sharpness: Training keeps `chi` at or below it, or `None`.
        use_bias: Whether there is a `b`.
        kernel_initializer: Keras initializer of the matrix `(pixels, units)`.
        bias_initializer: Keras initializer of `b`.
        normalize: Divide the matrix by a bound on its norm. The paper's matrices are free
            (`False`): see `Experts`.
        train_sharpness: Whether `chi` is trained. The paper has none.

    Reference:
        Riccio, Ehrhardt and Benning, arXiv:2206.13193, the experiments on MNIST.

    Example:

    >>> prior = deq_keras.priors.AffineExperts(units=64, activation="relu")
    >>> prior.gradient(tf.random.uniform((2, 28, 28, 1))).shape
    TensorShape([2, 28, 28, 1])
    """

    def __init__(
        self,
        units: int | None = None,
        activation="relu",
        sharpness: float = 1.0,
        max_sharpness: float | None = None,
        use_bias: bool = True,
        kernel_initializer="glorot_uniform",
        bias_initializer="zeros",
        normalize: bool = True,
        train_sharpness: bool = True,
        **kwargs,
    ):
        self.kernel_initializer = initializers.get(kernel_initializer)
        super().__init__(
            activation,
            sharpness,
            max_sharpness,
            use_bias,
            self.kernel_initializer,
            normalize,
            train_sharpness,
            **kwargs,
        )
        self.units = None if units is None else positive_int("units", units)
        self.bias_initializer = self._bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape):
        if len(input_shape) < 2 or None in input_shape[1:]:
            raise ValueError(
                f"{type(self).__name__} sees an image as one vector and expected a known size "
                f"(batch, ...). Received shape {tuple(input_shape)}."
            )
        self._image_shape = tuple(input_shape[1:])
        pixels = int(np.prod(input_shape[1:]))
        units = pixels if self.units is None else self.units
        self._build_experts((pixels, units), units)
        self.built = True

    def _analyse(self, u, weights):
        known = tf.TensorShape(u.shape)[1:].num_elements()
        if known is not None and known != weights.shape[0]:
            raise ValueError(
                f"{type(self).__name__} was built for images of {weights.shape[0]} values. "
                f"Received shape {tuple(u.shape)}."
            )
        return tf.linalg.matmul(tf.reshape(u, (tf.shape(u)[0], weights.shape[0])), weights)

    def _synthesise(self, v, weights, like):
        image = tf.reshape(tf.linalg.matmul(v, weights, transpose_b=True), tf.shape(like))
        return tf.ensure_shape(image, like.shape)

    def _norms(self, weights, size=None):
        norm = matrix_norm_bound(weights)
        return norm, norm

    def pictures(self):
        """The rows of the matrices as images, as those of fields of experts; none of vectors."""
        if len(self._image_shape) != 3:
            return {}
        c = self.coefficients()
        matrices = {"analysis": c.analysis}
        if not self.tied:
            matrices["synthesis"] = c.synthesis
        return {
            title: tf.reshape(tf.transpose(matrix), (-1, *self._image_shape))
            for title, matrix in matrices.items()
        }

    def get_config(self):
        config = super().get_config()
        config.update(
            units=self.units,
            kernel_initializer=keras.initializers.serialize(self.kernel_initializer),
            bias_initializer=keras.initializers.serialize(self.bias_initializer),
        )
        return config


@keras.saving.register_keras_serializable(package="deq_keras")
class UntiedAffineExperts(AffineExperts):
    """Affine experts with a matrix of their own for the synthesis: a learned map with no energy.

    Args are those of `AffineExperts`; the synthesis starts equal to the analysis where the
    initializer is deterministic, and `adopt` starts it from a trained prior.

    Example:

    >>> prior = deq_keras.priors.UntiedAffineExperts(units=16)
    >>> prior.has_energy, prior.gradient(tf.random.uniform((2, 8, 8, 1))).shape
    (False, TensorShape([2, 8, 8, 1]))
    """

    tied = False


def matrix_norm_bound(matrix, squarings: int = 6):
    """Certified upper bound on the spectral norm of a matrix, differentiable and tight.

    With `G = W^T W` and `q` squarings, `||W|| <= ||G^(2^q)||_F^(1 / 2^(q+1))`, at most a factor
    `rank^(1 / 2^(q+2))` too large. Each square is rescaled so that nothing overflows.

    Reference:
        Delattre, Barthelemy, Araujo and Allauzen, Efficient bound of Lipschitz constant for
        convolutional layers by Gram iteration, ICML 2023.
    """
    scale = tf.stop_gradient(tf.reduce_max(tf.abs(matrix)))  # fourth powers must not overflow
    positive = tf.not_equal(scale, 0)
    matrix /= tf.where(positive, scale, tf.ones_like(scale))
    tall = matrix.shape[0] >= matrix.shape[1]
    gram = tf.linalg.matmul(matrix, matrix, transpose_a=tall, transpose_b=not tall)
    gram = tf.where(positive, gram, tf.eye(tf.shape(gram)[0], dtype=gram.dtype))
    log_norm = tf.zeros((), matrix.dtype)
    for power in range(squarings + 1):
        size = tf.sqrt(tf.reduce_sum(gram * gram))
        log_norm += tf.math.log(size) / 2.0 ** (power + 1)
        gram /= size
        if power < squarings:
            gram = tf.linalg.matmul(gram, gram)
    # Rounding of the products must not turn the bound into an underestimate.
    slack = 1.0 + 4.0 * np.finfo(matrix.dtype.as_numpy_dtype).eps * max(matrix.shape)
    return tf.where(positive, scale * tf.exp(log_norm) * slack, tf.zeros_like(log_norm))

"""Fields of experts: convolutional priors."""

import math

import keras
import tensorflow as tf

from deq_keras import checks, convolution
from deq_keras.checks import positive, positive_int
from deq_keras.convolution.norm_bounds import norm_bounds
from deq_keras.numerics.partial import Partial
from deq_keras.priors import filtering, initializers
from deq_keras.priors.experts import Experts


@keras.saving.register_keras_serializable(package="deq_keras")
class FieldsOfExperts(Experts):
    """Convex fields of experts with tied filters: an energy and its gradient.

        R(u)      = sum_i sum_x phi(chi_i (a_i * u)(x)) / chi_i
        grad R(u) = A^T sigma(chi A u),      A u = (a_1 * u, ..., a_n * u),  sigma = phi'

    The filters are divided by a certified bound on the norm of the whole convolution `A` (for every
    image size, see `deq_keras.convolution.norm_bound`), so `grad R` has Lipschitz constant at most
    `max_i chi_i`, and less for images that are known not to be tiny. With `activation="tanh"`
    and two filters started as differences it is the paper's model of photographs.

    Args:
        filters: Number of experts.
        kernel_size: Side of the filters in pixels, or a pair `(height, width)`.
        activation: `sigma`: `"tanh"`, `"relu"`, `"soft_shrinkage"`, `"identity"` or
            `"smoothed_l1"`; see `deq_keras.priors.potentials.get`.
        sharpness: Initial `chi` of each expert (trained). The response of an expert changes from
            quadratic to linear near `1 / chi`, in units of the normalised filters' responses to
            images on [0, 1].
        max_sharpness: Training keeps `chi` at or below it, or `None`. Learned experts tend to the
            corner of the absolute value, where solves take ever more steps for ever less gain.
        padding: How filters see the boundary: `"reflect"` (the image is mirrored there), `"valid"`
            (only whole patches count, as in Roth and Black: pixels near the boundary are in fewer
            of them and stay noisier), `"zero"` (the paper's) or `"circular"`.
        zero_mean: Subtract its mean from each filter, in each channel: constant images then cost
            nothing, and training cannot drift to filters that penalise brightness. The paper's
            filters are free (`False`).
        use_bias: Add a trainable `b_i` to each response.
        filters_initializer: `"dct"`, `"first_order"`, `"second_order"` (the paper's two starts),
            `"random"`, or a Keras initializer for shape `(height, width, channels, filters)`.
        normalize: Divide the filters by a bound on the norm of the convolution; `False`: see
            `Experts`.
        train_sharpness: Whether `chi` is trained. The paper's is 100 for all (`False`).

    Reference:
        Roth and Black, Fields of experts, IJCV 2009; Riccio, Ehrhardt and Benning,
        arXiv:2206.13193, equation for `grad R` in section 4.

    Example:

    >>> prior = deq_keras.priors.FieldsOfExperts(filters=8, kernel_size=5)
    >>> images = tf.random.uniform((2, 32, 48, 1))
    >>> prior.energy(images).shape, prior.gradient(images).shape
    (TensorShape([2]), TensorShape([2, 32, 48, 1]))
    """

    def __init__(
        self,
        filters: int = 48,
        kernel_size: int | tuple[int, int] = 7,
        activation="tanh",
        sharpness: float = 500.0,
        max_sharpness: float | None = 5000.0,
        padding: str = "reflect",
        zero_mean: bool = True,
        use_bias: bool = False,
        filters_initializer="dct",
        normalize: bool = True,
        train_sharpness: bool = True,
        **kwargs,
    ):
        self.filters_initializer = initializers.get(filters_initializer)
        super().__init__(
            activation,
            sharpness,
            max_sharpness,
            use_bias,
            self.filters_initializer,
            normalize,
            train_sharpness,
            **kwargs,
        )
        self.filters = positive_int("filters", filters)
        self.kernel_size = checks.kernel_size(kernel_size)
        self.padding = convolution.check_padding(padding)
        self.zero_mean = bool(zero_mean)

    def build(self, input_shape):
        channels = self._check_shape(input_shape)
        self._build_experts((*self.kernel_size, channels, self.filters), self.filters)
        self.built = True

    def _check_shape(self, shape):
        channels = self.analysis.shape[2] if self.built else None
        name = type(self).__name__
        return filtering.check_images(name, shape, channels, self.kernel_size, self.padding)

    def _analyse(self, u, weights):
        self._check_shape(u.shape)
        return convolution.correlate(u, weights, self.padding)

    def _synthesise(self, v, weights, like):
        return tf.ensure_shape(convolution.correlate_adjoint(v, weights, self.padding), like.shape)

    def _size(self, image_shape):
        # For "reflect" alone the norm is smaller if images are known not to be tiny.
        return tuple(image_shape[1:3]) if self.padding == "reflect" else None

    def _hessian(self, c):
        """Both from the curvatures `d_i = chi_i sigma'(chi_i (a_i * u + b_i))`.

        If the prior is not tied, of both the part that is real and not negative.
        """

        def spectrum(u, c):
            found = filtering.hessian_spectrum(u, self._curvatures(u, c), c.analysis, c.synthesis)
            return found if self.tied else tf.maximum(found, 0)

        def diagonal(u, c):
            found = filtering.hessian_diagonal(
                u, self._curvatures(u, c), c.analysis, c.synthesis, self.padding
            )
            return found if self.tied else tf.maximum(found, 0)

        return Partial(spectrum, (c,)), Partial(diagonal, (c,))

    def _curvatures(self, u, c):
        return c.sharpness * self._respond(u, c, self.potential.curvature)

    def _project(self, weights):
        if not self.zero_mean:
            return weights
        return weights - tf.reduce_mean(weights, axis=(0, 1), keepdims=True)

    def _norms(self, weights, size=None):
        return norm_bounds(weights, self.padding, size)

    def parameter_norms(self, u, response):
        kh, kw = self.kernel_size
        sizes = convolution.same_sizes(self.analysis)
        seen = convolution.pad(u, sizes, self.padding)  # as it is for "valid"
        # All the places where a filter can meet a response; then, the boundary's share.
        spread = tf.pad(response, [[0, 0], [kh - 1, kh - 1], [kw - 1, kw - 1], [0, 0]])
        return _patch_norm(seen, kh, kw), self.boundary_factor() * _patch_norm(spread, kh, kw)

    def parameter_constant(self):
        # ||k * v|| <= ||k||_1 ||v|| for each channel, and ||k||_1 <= sqrt(pixels) ||k||_2.
        return self.boundary_factor() * math.sqrt(math.prod(self.kernel_size))

    def boundary_factor(self):
        # A mirrored pixel occurs at most twice in each dimension.
        return 2.0 if self.padding == "reflect" else 1.0

    def pictures(self):
        """The filters, as the map uses them: `"analysis"`, and `"synthesis"` if it is not tied."""
        c = self.coefficients()
        kernels = {"analysis": c.analysis}
        if not self.tied:
            kernels["synthesis"] = c.synthesis
        return {title: tf.transpose(kernel, [3, 0, 1, 2]) for title, kernel in kernels.items()}

    def remove_mean(self, u):
        if not self.zero_mean or self.padding == "zero":
            return u
        return u - tf.reduce_mean(u, axis=(1, 2), keepdims=True)

    def get_config(self):
        config = super().get_config()
        config.update(
            filters=self.filters,
            kernel_size=self.kernel_size,
            padding=self.padding,
            zero_mean=self.zero_mean,
            filters_initializer=keras.initializers.serialize(self.filters_initializer),
        )
        return config


def _patch_norm(images, kh, kw):
    """The spectral norm of the matrix of all patches of each image, `(batch,)`."""
    patches = tf.image.extract_patches(images, [1, kh, kw, 1], [1] * 4, [1] * 4, "VALID")
    rows = tf.reshape(patches, (tf.shape(images)[0], -1, kh * kw * images.shape[-1]))
    largest = tf.linalg.eigvalsh(tf.linalg.matmul(rows, rows, transpose_a=True))[:, -1]
    return tf.sqrt(tf.maximum(largest, 0.0))


@keras.saving.register_keras_serializable(package="deq_keras")
class UntiedFieldsOfExperts(FieldsOfExperts):
    """Fields of experts with separate synthesis filters: a learned map `S^T sigma(chi A u)`.

    It is the gradient of nothing unless `S = A`, so it has no energy: use it in `Equilibrium`.
    `S` starts equal to `A`, and `adopt` starts it from a trained prior.

    The Jacobian `S^T D A`, with a diagonal `0 <= D <= chi`, has the symmetric part

        P^T D P - Q^T D Q >= -rho,    P = (S + A) / 2,  Q = (S - A) / 2,  rho = ||sqrt(chi) Q||^2,

    so the map is `rho`-hypomonotone: `<g(a) - g(b), a - b> >= -rho ||a - b||^2`. With
    `hypomonotonicity` training keeps a certified bound on `rho` at or below a limit: where it would
    be above, `Q` is shrunk. If `lambda rho < 1`, a `GradientStep` for denoising is strongly
    monotone: there is one fixed point, and an error bound is certified; `max_weight` of the
    `GradientStep` keeps `lambda` there.

    Args:
        *args: Those of `FieldsOfExperts`.
        hypomonotonicity: Limit of `rho` > 0, or `None`.
        **kwargs: Those of `FieldsOfExperts`.

    Reference:
        Riccio, Ehrhardt and Benning, arXiv:2206.13193: the deep equilibrium model. Winston and
        Kolter, Monotone operator equilibrium networks, NeurIPS 2020, for well-posedness by
        parametrisation; the splitting above is for ridge maps.

    Example:

    >>> prior = deq_keras.priors.UntiedFieldsOfExperts(filters=8, kernel_size=5)
    >>> prior.has_energy, prior.gradient(tf.random.uniform((2, 32, 32, 1))).shape
    (False, TensorShape([2, 32, 32, 1]))
    >>> limited = deq_keras.priors.UntiedFieldsOfExperts(8, 5, hypomonotonicity=4.0)
    >>> limited.build((None, 32, 32, 1))
    >>> _ = limited.synthesis.assign(tf.random.normal(limited.synthesis.shape))
    >>> round(float(limited.strong_convexity()), 3)
    -4.0
    """

    tied = False

    def __init__(self, *args, hypomonotonicity: float | None = None, **kwargs):
        super().__init__(*args, **kwargs)
        if hypomonotonicity is not None:
            hypomonotonicity = positive("hypomonotonicity", hypomonotonicity)
        self.hypomonotonicity = hypomonotonicity

    def get_config(self):
        return {**super().get_config(), "hypomonotonicity": self.hypomonotonicity}

"""The contract of a prior (regulariser)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from deq_keras.config import described
from deq_keras.numerics import partial
from deq_keras.numerics.rows import at_least_one, first_rows
from deq_keras.numerics.shapes import sizes_of, tensors_of


class BoundPrior(NamedTuple):
    """A prior for its current weights and images of one shape: what does not change is computed.

    Attributes:
        gradient: `deq_keras.numerics.Partial`, `u -> grad R(u)`.
        energy: `Partial`, `u -> R(u)` `(batch,)`, or `None` if there is no energy.
        lipschitz: Certified Lipschitz constant of the gradient for images of this size, a scalar
            tensor; `None` if none is known.
        strong_convexity: Certified modulus, a scalar tensor, negative for a weakly convex prior;
            `None` if none is known.
        hessian_spectrum: `Partial`, `u -> (batch, height, width // 2 + 1)`: the Fourier spectrum of
            the Hessian at `u` as if it were a circular convolution, not negative. Preconditioners
            divide by it, so it need not be exact: coefficients that vary from pixel to pixel are
            replaced by their means, the boundary is forgotten, channels share their mean. Of a map
            without an energy what of its Jacobian's is real and not negative; or `None`.
        hessian_diagonal: `Partial`, `u -> diagonal of the Hessian`, of the shape of `u`, or what is
            near it, not negative; or `None`.
        work: About how many multiplications the linear maps of a gradient take for a pixel, a
            Python number: whether a Fourier transform is little beside it.
    """

    gradient: Callable
    energy: Callable | None = None
    lipschitz: Any = None
    strong_convexity: Any = None
    hessian_spectrum: Callable | None = None
    hessian_diagonal: Callable | None = None
    work: float = 0.0


class Prior(keras.layers.Layer):
    """Base class of priors `R`: an energy, its gradient, and what is certified about them.

    A subclass defines `energy(u) -> (batch,)`, and then its gradient is found by differentiation;
    or `gradient(u)` of the shape of `u`, for a learned map that is the gradient of nothing; or
    both. If it knows more, it says so:

    - `is_convex = True`: the energy is convex for all weights;
    - `gradient_lipschitz(size=None)`: a certified upper bound on the Lipschitz constant of the
      gradient, from the current weights. Without one, layers search along lines;
    - `strong_convexity()`: a certified modulus `m` with
      `<grad R(a) - grad R(b), a - b> >= m ||a - b||^2`: 0 or more for a convex prior, negative for
      a weakly convex one;
    - `bind(image_shape)`, in place of all these, for what is computed once and used often;
    - `takes_noise_level = True`: the energy depends on the noise level of each image, and
      `bind(image_shape, noise_level)` is given it: standard deviations, `(batch,)`.

    `prior(u)` is `prior.gradient(u)`. Images are `(batch, height, width, channels)` on [0, 1].

    Example:

    >>> @keras.saving.register_keras_serializable(package="example")
    ... class Tikhonov(deq_keras.priors.Prior):
    ...     is_convex = True
    ...     def energy(self, u):
    ...         return 0.5 * tf.reduce_sum(u**2, axis=(1, 2, 3))
    >>> Tikhonov().gradient(tf.ones((2, 8, 8, 1))).shape
    TensorShape([2, 8, 8, 1])
    """

    is_convex = False
    takes_noise_level = False

    @property
    def has_energy(self) -> bool:
        """Whether the prior has an energy; otherwise it is a learned map."""
        return type(self).energy is not Prior.energy

    @property
    def certified(self) -> bool:
        """Whether the prior certifies a Lipschitz constant of its gradient."""
        own = type(self)
        return own.gradient_lipschitz is not Prior.gradient_lipschitz or own.bind is not Prior.bind

    def bind(self, image_shape) -> BoundPrior:
        """The prior for its current weights, and images of a shape.

        Args:
            image_shape: `(batch, height, width, channels)`: integers, or scalar tensors where a
                size is known in a graph only.
        """
        gradient, energy = self._functions()
        return BoundPrior(
            partial.of_layer(self, gradient),
            None if energy is None else partial.of_layer(self, energy),
            self.gradient_lipschitz(image_shape[1:3]),
            self.strong_convexity(),
        )

    # Autograph would take seconds to read a prior that a tf.function calls, and changes nothing.
    @tf.autograph.experimental.do_not_convert
    def energy(self, u, noise_level=None) -> tf.Tensor:
        """Energy of each image of `u`, shape `(batch,)`.

        Args:
            u: Images.
            noise_level: `(batch,)` for a prior that takes it, else `None`.

        Raises:
            ValueError: If the prior has none.
        """
        bound, u, count = self._bound_for(u, noise_level)
        if bound.energy is None:
            raise ValueError(
                f"{type(self).__name__} has no energy: it is a learned map that is no gradient. "
                "Use it in `Equilibrium(GradientStep(operator, prior))`, and in `Variational` a "
                "prior with an energy, such as its tied form."
            )
        return first_rows(bound.energy(u), count)

    @tf.autograph.experimental.do_not_convert
    def gradient(self, u, noise_level=None) -> tf.Tensor:
        """Gradient of the energy at `u`, of the same shape as `u`; see `energy`."""
        bound, u, count = self._bound_for(u, noise_level)
        return first_rows(bound.gradient(u), count)

    @tf.autograph.experimental.do_not_convert
    def denoise(self, y, weight=1.0, noise_level=None) -> tf.Tensor:
        """Noisy images with one gradient step on the prior: `y - weight grad R(y)`.

        The best denoiser of Gaussian noise of variance `s^2` is `y + s^2 grad log p(y)`, with the
        density `p` of noisy images (Tweedie's formula). So a prior that is trained to denoise in
        one step has learned the gradient of `-s^2 log p`, and no solve was needed: denoising score
        matching (Vincent, Neural Computation 2011).

        Args:
            y: Noisy images.
            weight: Length of the step.
            noise_level: `(batch,)` for a prior that takes it, else `None`.

        Returns:
            Images of the shape of `y`.
        """
        bound, noisy, count = self._bound_for(y, noise_level)
        return y - weight * first_rows(bound.gradient(noisy), count)

    def gradient_lipschitz(self, size=None) -> tf.Tensor | None:
        """Certified upper bound on the Lipschitz constant of the gradient, a scalar tensor.

        Args:
            size: `(height, width)` of the smallest image it must hold for, integers or tensors;
                `None`: every image.

        Returns:
            `None` if none is known.
        """
        return None

    def strong_convexity(self) -> tf.Tensor | None:
        """Certified modulus, a scalar tensor, negative for a weakly convex prior, or `None`."""
        return tf.zeros((), self.variable_dtype) if self.is_convex else None

    def hessian_variation(self, p, size=None) -> tf.Tensor:
        """Certified `L`, `(batch,)`, with `||(Hess R(u) - Hess R(v)) p|| <= L ||u - v||`.

        Args:
            p: Images.
            size: As for `gradient_lipschitz`.

        Returns:
            Infinite numbers if nothing is known.
        """
        return tf.fill(tf.shape(p)[:1], tf.constant(float("inf"), p.dtype))

    def sensitivities(self, u, radius, size=None):
        """What is certified of the derivative of `grad R(u)` by each weight.

        Args:
            u: Images.
            radius: `(batch,)`, how far from `u` the Lipschitz constants have to hold.
            size: As for `gradient_lipschitz`.

        Returns:
            Dictionary from the attribute of a weight to a
            `deq_keras.priors.sensitivity.Sensitivity`, empty if nothing is known.
        """
        return {}

    def pictures(self) -> dict[str, tf.Tensor]:
        """What can be shown of the weights as pictures, for TensorBoard and reports.

        Returns:
            Dictionary of a title, such as `"analysis"`, to a tensor
            `(count, height, width, channels)`: one picture for each of the learned parts, on a
            scale of its own. Empty if there is nothing to show, as for a prior without filters.

        Example:

        >>> prior = deq_keras.priors.FieldsOfExperts(filters=8, kernel_size=5)
        >>> prior.build((None, 32, 32, 1))
        >>> prior.pictures()["analysis"].shape
        TensorShape([8, 5, 5, 1])
        """
        return {}

    def curves(self, t) -> dict[str, tf.Tensor]:
        """What the prior applies to responses of its filters, for plots: functions of one number.

        Args:
            t: Responses `(points,)`.

        Returns:
            Dictionary of `"potential"` (if there is an energy) and `"activation"`, its derivative,
            to a tensor `(experts, points)`. Empty by default.

        Example:

        >>> prior = deq_keras.priors.FieldsOfExperts(filters=8, kernel_size=5)
        >>> prior.build((None, 32, 32, 1))
        >>> prior.curves(tf.linspace(-1.0, 1.0, 5))["potential"].shape
        TensorShape([8, 5])
        """
        return {}

    def scalars(self) -> dict[str, tf.Tensor]:
        """What can be followed of the weights over a training: a name to a scalar tensor.

        Empty by default; experts say how sharp the sharpest of them is.

        Example:

        >>> prior = deq_keras.priors.FieldsOfExperts(filters=8, kernel_size=5, sharpness=100.0)
        >>> prior.build((None, 32, 32, 1))
        >>> {name: round(float(value)) for name, value in prior.scalars().items()}
        {'largest_sharpness': 100}
        """
        return {}

    def ensure_built(self, u):
        """Create the weights from the shape of `u` if they do not exist yet."""
        if not self.built:
            self.build(u.shape)

    def __repr__(self):
        return described(self)

    def call(self, u):
        return self.gradient(u)

    def compute_output_shape(self, input_shape):
        return input_shape

    def _bound_for(self, u, noise_level):
        """The prior bound for images, at least one of them, and how many there were."""
        self.ensure_built(u)
        (u, noise_level), count = at_least_one(tensors_of((tf.convert_to_tensor(u), noise_level)))
        return bind_prior(self, sizes_of(u), noise_level), u, count

    def _functions(self):
        """`(gradient, energy)` as the subclass defines them."""
        own = type(self)
        energy = self.energy if own.energy is not Prior.energy else None
        if own.gradient is not Prior.gradient:
            return self.gradient, energy
        if energy is None:
            raise NotImplementedError(
                f"{own.__name__} expected a method `energy(u)` or `gradient(u)`. Found neither. "
                "Define one of them: the gradient of an energy is found by differentiation."
            )

        def gradient(u):
            with tf.GradientTape() as tape:
                tape.watch(u)
                total = tf.reduce_sum(energy(u))
            return tape.gradient(total, u, unconnected_gradients=tf.UnconnectedGradients.ZERO)

        return gradient, energy


def bind_prior(prior, shape, noise_level) -> BoundPrior:
    """The prior for images of a shape, and their noise level unless it takes none."""
    return prior.bind(shape) if noise_level is None else prior.bind(shape, noise_level)

"""The contract of a prior (regulariser)."""

import keras
import tensorflow as tf


class Prior(keras.layers.Layer):
    """Base class of priors `R`: an energy, its gradient, and what is certified about them.

    A subclass defines

    - `gradient_map() -> callable`: a function `u -> grad R(u)` (for a prior without an energy: the
      learned map that stands in its place). All that does not depend on `u`, such as normalised
      filters, is computed once, outside the function; a solver then calls it many times.
    - `energy(u) -> (batch,)`, unless `has_energy` is `False`, and if it has weights to prepare also
      `energy_map()`, the same function with all that computed once;
    - `gradient_lipschitz(size=None)`: a certified upper bound on the Lipschitz constant of the
      map, from the current weights, for images of any size, or of at least this size;
    - `convexity()`: a certified modulus `m` with
      `<grad R(a) - grad R(b), a - b> >= m ||a - b||^2`: 0 or more for a convex prior, negative for
      a weakly convex one.

    and, where more is known than the default here says,

    - `hessian_spectrum_map()` and `hessian_diagonal_map()`: the Fourier spectrum of the Hessian
      and its diagonal, for preconditioners.

    The class attributes `has_energy` and `is_convex` state what holds for all weights; solvers and
    adjoints are chosen by them.

    `prior(u)` is `prior.gradient(u)`. Images are `(batch, height, width, channels)` on [0, 1].
    """

    has_energy = True
    is_convex = False

    def gradient_map(self):
        """The function `u -> grad R(u)` for the current weights."""
        raise NotImplementedError

    def gradient(self, u):
        """Gradient of the energy at `u`, of the same shape as `u`."""
        self.ensure_built(u)
        return self.gradient_map()(u)

    def energy(self, u):
        """Energy of each image of `u`, shape `(batch,)`."""
        raise NotImplementedError

    def energy_map(self):
        """The function `u -> R(u)`, `(batch,)`, for the current weights."""
        return self.energy

    def hessian_spectrum_map(self):
        """The function `u -> spectrum` of the Hessian at `u` as if it were a circular convolution.

        Preconditioners divide by it, so it need not be exact: coefficients that vary from pixel to
        pixel are replaced by their means for each image, the boundary is forgotten, and channels
        share their mean.

        Returns:
            A function of images that gives a real tensor `(batch, height, width // 2 + 1)`, not
            negative, at the frequencies of `tf.signal.rfft2d`; or `None` if there is none.
        """
        return None

    def hessian_diagonal_map(self):
        """The function `u -> diagonal` of the Hessian, or what is near it; not negative.

        Returns:
            A function of images that gives a tensor of their shape, or `None` if there is none.
        """
        return None

    def gradient_lipschitz(self, size=None):
        """Certified upper bound on the Lipschitz constant of the gradient, a scalar tensor.

        Args:
            size: `(height, width)` of the smallest image it must hold for, integers or a tensor;
                `None`: every image.
        """
        raise NotImplementedError

    def hessian_variation(self, p, size=None):
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

    def convexity(self):
        """Certified modulus of convexity, a scalar tensor; negative if weakly convex."""
        return tf.zeros((), self.variable_dtype)

    def pictures(self):
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

    def ensure_built(self, u):
        """Create the weights from the shape of `u` if they do not exist yet."""
        if not self.built:
            self.build(u.shape)

    def call(self, u):
        return self.gradient_map()(u)

    def compute_output_shape(self, input_shape):
        return input_shape

    def _no_energy(self):
        return ValueError(
            f"{type(self).__name__} has no energy: its two sets of weights are not tied, so the "
            "map is no gradient. Use its tied form with `Variational`, or this one with "
            "`Equilibrium`."
        )


def channels_of(shape, owner):
    """The static number of channels of a `(batch, height, width, channels)` shape."""
    if len(shape) != 4 or shape[-1] is None:
        raise ValueError(
            f"{owner} expected images of shape (batch, height, width, channels) with a known "
            f"number of channels. Received shape {tuple(shape)}."
        )
    return int(shape[-1])

"""The contract of a prior (regulariser)."""

import keras
import tensorflow as tf


class Prior(keras.layers.Layer):
    """Base class of priors `R`: an energy, its gradient, and what is certified about them.

    A subclass defines

    - `gradient_map() -> callable`: a function `u -> grad R(u)` (for a prior without an energy: the
      learned map that stands in its place). All that does not depend on `u`, such as normalised
      filters, is computed once, outside the function; a solver then calls it many times.
    - `energy(u) -> (batch,)`, unless `has_energy` is `False`;
    - `gradient_lipschitz()`: a certified upper bound on the Lipschitz constant of the map, from the
      current weights, for images of any size;
    - `convexity()`: a certified modulus `m` with
      `<grad R(a) - grad R(b), a - b> >= m ||a - b||^2`: 0 or more for a convex prior, negative for
      a weakly convex one.

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

    def gradient_lipschitz(self):
        """Certified upper bound on the Lipschitz constant of the gradient, a scalar tensor."""
        raise NotImplementedError

    def convexity(self):
        """Certified modulus of convexity, a scalar tensor; negative if weakly convex."""
        return tf.zeros((), self.variable_dtype)

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

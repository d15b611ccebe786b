"""The variational layer: the lower level of bilevel learning."""

import keras

from deq_keras.layers.cells import GradientStep, deserialise
from deq_keras.layers.equilibrium import Equilibrium


@keras.saving.register_keras_serializable(package="deq_keras")
class Variational(Equilibrium):
    """Maps a measurement to the minimiser of an energy.

        u*(y) = argmin_u E(u; y),    E(u; y) = ||K u - y||^2 / 2 + lambda R(u)

    Fitting a model with this layer is bilevel learning: the upper level is the loss, the lower
    level is this problem. It is the equilibrium of gradient steps on `E`, and the code says so:
    this is an `Equilibrium` of a `GradientStep`. What the energy adds is structure. The Jacobian is
    symmetric; for a convex energy the defaults are Nesterov's method with the certified step size,
    and conjugate gradients for the adjoint equation.

    Args:
        operator: `K`, a `deq_keras.operators.LinearOperator`.
        prior: `R`, a `deq_keras.priors.Prior` with an energy.
        weight: Initial `lambda`, the regularisation parameter, > 0; trained.
        train_weight: Whether `lambda` is trained.
        step_size: `tau` of the gradient steps; `None` for the certified one.
        solver: As in `Equilibrium`.
        adjoint: As in `Equilibrium`.

    Call arguments:
        inputs: The measurement `y`, `(batch, height, width, channels)` on [0, 1], or a pair
            `(y, data)` with per-image data of the operator.

    Raises:
        ValueError: If the prior has no energy.

    Reference:
        Riccio, Ehrhardt and Benning, arXiv:2206.13193; Kunisch and Pock, A bilevel optimization
        approach for parameter learning in variational models, SIAM J. Imaging Sci. 2013.

    Example:

    >>> prior = deq_keras.priors.FieldsOfExperts(filters=8, kernel_size=5)
    >>> layer = deq_keras.layers.Variational(deq_keras.operators.Identity(), prior)
    >>> noisy = tf.random.uniform((2, 32, 32, 1))
    >>> solution = layer.solve(noisy)
    >>> solution.value.shape, solution.converged.numpy()
    (TensorShape([2, 32, 32, 1]), array([ True,  True]))
    """

    def __init__(
        self,
        operator,
        prior,
        weight=0.1,
        train_weight=True,
        step_size=None,
        solver="auto",
        adjoint="implicit",
        **kwargs,
    ):
        cell = GradientStep(
            operator, prior, weight, train_weight, step_size, dtype=kwargs.get("dtype")
        )
        if not cell.has_energy:
            raise ValueError(
                f"Expected a `prior` with an energy. Received {type(prior).__name__}, which has "
                "none: use its tied form here, or Equilibrium(GradientStep(operator, prior))."
            )
        super().__init__(cell, solver, adjoint, **kwargs)

    @property
    def operator(self):
        """`K`."""
        return self.cell.operator

    @property
    def prior(self):
        """`R`."""
        return self.cell.prior

    def energy(self, u, y):
        """`E(u; y)` for each image, shape `(batch,)`."""
        self._ensure_built(y)
        return self.cell.energy(self._cast(u), self._cast(y))

    def energy_gradient(self, u, y):
        """`grad_u E(u; y)`, of the shape of `u`: zero at the minimiser."""
        self._ensure_built(y)
        return self.cell.gradient_map(self._cast(y))(self._cast(u))

    def get_config(self):
        config = super().get_config()
        del config["cell"]
        cell = self.cell.get_config()
        names = ("operator", "prior", "weight", "train_weight", "step_size")
        return {**config, **{name: cell[name] for name in names}}

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "operator", "prior", "solver", "adjoint"))

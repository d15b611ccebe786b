"""The variational layer: the lower level of bilevel learning."""

from __future__ import annotations

import keras
import tensorflow as tf

from deq_keras import adjoints, certificates, constraints, fidelities, solvers
from deq_keras.config import deserialise
from deq_keras.layers import hypergradients
from deq_keras.layers.equilibrium import Equilibrium
from deq_keras.layers.gradient_step import GradientStep
from deq_keras.operators import LinearOperator
from deq_keras.priors import Prior


@keras.saving.register_keras_serializable(package="deq_keras")
class Variational(Equilibrium):
    """Maps a measurement to the minimiser of an energy.

        u*(y) = argmin_u E(u; y),    E(u; y) = D(K u, y) + lambda R(u) + G(u)

    with the data fidelity `D`, `||K u - y||^2 / 2` by default, and a constraint `G`, by default
    none.

    Fitting a model with this layer is bilevel learning: the upper level is the loss, the lower
    level is this problem. It is the equilibrium of gradient steps on `E`, and the code says so:
    this is an `Equilibrium` of a `GradientStep`. What the energy adds is structure. Without a
    constraint the Jacobian is symmetric; the defaults are L-BFGS, with the certified step size as a
    start, and for a convex energy preconditioned conjugate gradients for the adjoint equation.

    Args:
        operator: `K`, a `deq_keras.operators.LinearOperator`.
        prior: `R`, a `deq_keras.priors.Prior` with an energy.
        weight: Initial `lambda`, the regularisation parameter, > 0; trained.
        train_weight: Whether `lambda` is trained.
        step_size: `tau` of the gradient steps; `None` for the certified one.
        solver: As in `Equilibrium`.
        adjoint: As in `Equilibrium`.
        fidelity: `D`, a name such as `"huber"` or a `deq_keras.fidelities.Fidelity`.
        constraint: `G`, a name such as `"non_negative"` or a `deq_keras.constraints.Constraint`.
        **kwargs: Further arguments of `Equilibrium`: `jacobian_regularizer`, `on_failure`, `name`,
            `dtype`.

    Call arguments:
        inputs: The measurement `y`, or a pair `(y, data)` with per-image data of the operator; with
            a prior that takes a noise level, the pair of that and the standard deviations
            `(batch,)`.
        initial_value: As in `Equilibrium`.

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
        operator: LinearOperator,
        prior: Prior,
        weight: float = 0.1,
        train_weight: bool = True,
        step_size: float | None = None,
        solver: str | solvers.Solver = "auto",
        adjoint: str | adjoints.Adjoint = "implicit",
        fidelity: str | fidelities.Fidelity = "least_squares",
        constraint: str | constraints.Constraint | None = None,
        **kwargs,
    ):
        step = (weight, train_weight, step_size, fidelity, constraint)
        cell = GradientStep(operator, prior, *step, dtype=kwargs.get("dtype"))
        if not cell.has_energy:
            raise ValueError(
                f"Expected a `prior` with an energy. Received {type(prior).__name__}, which has "
                "none: use its tied form here, or Equilibrium(GradientStep(operator, prior))."
            )
        super().__init__(cell, solver, adjoint, **kwargs)

    @property
    def operator(self) -> LinearOperator:
        """`K`."""
        return self.cell.operator

    @property
    def prior(self) -> Prior:
        """`R`."""
        return self.cell.prior

    def energy(self, u, y) -> tf.Tensor:
        """`E(u; y)` for each image, shape `(batch,)`."""
        self._ensure_built(y)
        return self.cell.energy(self._cast(u), self._cast(y))

    def energy_gradient(self, u, y) -> tf.Tensor:
        """The gradient of the smooth part of `E(u; y)`, of the shape of `u`.

        Without a constraint it is zero at the minimiser.
        """
        self._ensure_built(y)
        return self.cell.gradient(self._cast(u), self._cast(y))

    def hypergradient_bound(self, inputs, targets) -> dict[str, certificates.ErrorBound]:
        """How far derivatives of `||u - targets||^2 / 2` are from those at the exact minimiser.

        Solves for `u` and its adjoint equation as in training, with this layer's solvers, and
        bounds the error of the derivative by the measurement and by each weight, from both
        residuals and the constants that the parts certify. Finite where the energy is certified to
        be strongly convex and its Hessian Lipschitz continuous (with `"tanh"`, say).

        Args:
            inputs: As in a call.
            targets: Images of the shape of the result.

        Returns:
            Dictionary from `"measurement"`, `"log_weight"` and the names of the prior's weights to
            a `deq_keras.certificates.ErrorBound`, `(batch,)` each, in the Euclidean norm. For a sum
            over the batch the bounds add up.

        Raises:
            ValueError: If the layer's adjoint is not `Implicit`, or there is a constraint.
        """
        self._ensure_built(inputs)
        return hypergradients.bound(self, self._cast(inputs), self._cast(targets))

    def get_config(self):
        config = super().get_config()
        del config["cell"]
        cell = self.cell.get_config()
        names = ("operator", "prior", "weight", "train_weight", "step_size")
        names += ("fidelity", "constraint")
        return {**config, **{name: cell[name] for name in names}}

    @classmethod
    def from_config(cls, config):
        return cls(
            **deserialise(
                config,
                "operator",
                "prior",
                "solver",
                "adjoint",
                "fidelity",
                "constraint",
                "jacobian_regularizer",
            )
        )

"""The error of the hypergradient of a variational layer: what is certified of its energy."""

import tensorflow as tf

from deq_keras import adjoints, certificates
from deq_keras.adjoints.base import adjoint_operator
from deq_keras.layers.cell import split, split_noise_level
from deq_keras.numerics.rows import norm, to_rows
from deq_keras.numerics.shapes import sizes_of
from deq_keras.priors.base import bind_prior
from deq_keras.priors.sensitivity import Sensitivity


def bound(layer, y, targets):
    """The bounds that `deq_keras.layers.Variational.hypergradient_bound` returns.

    Args:
        layer: A built `deq_keras.layers.Variational`.
        y: Measurement, in the precision of the layer.
        targets: Images of the shape of the result.
    """
    check(layer)
    problem = layer.cell.bind(y).frozen()
    u = layer.choose_solver(problem).solve(problem).value
    # As in training: the derivative is attached to one more step.
    fu = problem.f(u)
    error = certificates.solution_error(problem, u).value
    d = fu - targets
    found = layer.adjoint.choose(problem).solve(adjoint_operator(problem, fu), d)
    tau = problem.step.length
    # I - J = tau Hess E, so the adjoint state of the energy is tau times that of the map.
    state, right_side = (norm(to_rows(x)[0]) for x in (found.value, d))
    modulus = problem.strong_convexity
    modulus = tf.zeros_like(tau) if modulus is None else modulus / tau
    variation = tau * hessian_variation(layer.cell, found.value)
    return {
        name: certificates.hypergradient_error(
            error, tau * state, found.residual * right_side, modulus, variation, sensitivity
        )
        for name, sensitivity in sensitivities(layer.cell, u, y, error).items()
    }


def sensitivities(cell, u, y, radius):
    """What is certified of `d grad E(u) / d theta` for each parameter `theta` of an energy.

    Args:
        cell: A `deq_keras.layers.GradientStep`.
        u: Images.
        y: Measurement.
        radius: `(batch,)`, how far from `u` the Lipschitz constants have to hold.

    Returns:
        Dictionary from `"measurement"`, `"log_weight"` and the names of the prior's weights to
        `deq_keras.priors.sensitivity.Sensitivity`.
    """
    y, noise_level = split_noise_level(y, cell.prior)
    (y, data), shape = split(y, cell.operator), sizes_of(u)
    prior, weight = bind_prior(cell.prior, shape, noise_level), tf.exp(cell.log_weight)
    ones, unknown = tf.ones_like(radius), _unknown(radius)
    of_measurement = unknown
    if cell.operator.certified:
        v = cell.operator.bind(shape, data, u.dtype).forward(u)
        of_measurement = cell.operator.operator_norm(data, shape) * ones
        of_measurement *= cell.fidelity.measurement_sensitivity(v, y)
    of_weight = unknown if prior.lipschitz is None else weight * prior.lipschitz * ones
    of_prior = cell.prior.sensitivities(u, radius, shape[1:3])
    return {
        "measurement": Sensitivity(
            of_measurement, 0.0 * ones if cell.fidelity.quadratic else unknown
        ),
        "log_weight": Sensitivity(weight * norm(to_rows(prior.gradient(u))[0]), of_weight),
        **{
            name: Sensitivity(weight * x.norm, weight * x.lipschitz) for name, x in of_prior.items()
        },
    }


def hessian_variation(cell, p):
    """Certified `L` with `||(Hess E(u) - Hess E(v)) p|| <= L ||u - v||`, `(batch,)`."""
    if not cell.fidelity.quadratic:
        return _unknown(p[:, 0, 0, 0])
    return tf.exp(cell.log_weight) * cell.prior.hessian_variation(p, sizes_of(p)[1:3])


def _unknown(like):
    return tf.fill(tf.shape(like), tf.constant(float("inf"), like.dtype))


def check(layer):
    """Raises a `ValueError` for a layer whose hypergradients no bound is known for."""
    if not isinstance(layer.adjoint, adjoints.Implicit):
        raise ValueError(
            "hypergradient_bound bounds the error of an implicit derivative and expected "
            f"adjoint='implicit'. Received {layer.adjoint!r}, which computes another derivative."
        )
    if layer.cell.constraint is not None:
        raise ValueError(
            "hypergradient_bound expected a smooth energy. Received one with the constraint "
            f"{layer.cell.constraint!r}, for which no bound is known."
        )

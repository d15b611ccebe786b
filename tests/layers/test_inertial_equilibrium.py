"""An inertial equilibrium of an energy that is not convex: i-DEQ, by parts of the library."""

import numpy as np
import tensorflow as tf

from deq_keras import layers, operators, priors, solvers


def model(solver):
    """Deconvolution with a weakly convex prior, which the data do not make convex."""
    prior = priors.RidgeRegularizer(
        (2,), 3, weak_convexity=0.95, scaling=8.0, sharpness=20.0, dtype="float64"
    )
    return layers.Variational(
        operators.GaussianBlur(kernel_size=5, stddev=1.5, dtype="float64"),
        prior,
        weight=0.3,
        solver=solver,
        dtype="float64",
    )


def edges(size, count=2):
    """Images with edges of several heights, blurred, with noise."""
    rng = np.random.default_rng(0)
    steps = rng.normal(size=(count, *size, 1)) * (rng.uniform(size=(count, *size, 1)) < 0.1)
    clean = 0.5 + 0.3 * steps.cumsum(axis=1).cumsum(axis=2) / 3
    return tf.constant(clean + 0.05 * rng.normal(size=clean.shape))


def test_inertia_reaches_a_critical_point_in_less_than_half_of_the_steps():
    y, options = edges((9, 8)), {"tolerance": 1e-5, "max_steps": 300}
    inertial, plain = (model(cls(**options)) for cls in (solvers.NonmonotoneAPG, solvers.Picard))
    for one in (inertial, plain):
        one.build(y.shape)  # in a graph it would be traced twice
    found, slow = (tf.function(one.solve, autograph=False)(y) for one in (inertial, plain))
    assert found.converged.numpy().all()
    assert (2 * found.steps < slow.steps).numpy().all()
    problem = inertial.cell.bind(y)
    assert not problem.convex
    assert float(problem.strong_convexity) == 0.0
    gradient = inertial.energy_gradient(found.value, y)
    assert np.linalg.norm(gradient) < 1e-4 * np.linalg.norm(inertial.operator.adjoint(y))
    assert (inertial.energy(found.value, y) < inertial.energy(y, y)).numpy().all()
    # Nearby it is a minimum.
    other = found.value + 1e-3 * np.random.default_rng(1).normal(size=y.shape)
    assert (inertial.energy(other, y) > inertial.energy(found.value, y)).numpy().all()

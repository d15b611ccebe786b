"""Derivatives in a direction, against differences of two solves; forward mode says where to go."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import adjoints, layers, linear_solvers, operators, priors, solvers
from tests.variants import marked

DTYPE = "float64"
Y = tf.constant(np.random.default_rng(0).random((2, 6, 7, 1)))
DY = tf.constant(np.random.default_rng(1).standard_normal((2, 6, 7, 1)))
MASK = tf.constant(0.8 + 0.4 * np.random.default_rng(2).random((2, 6, 7, 1)))
EXACT = adjoints.Implicit(linear_solvers.GMRES(tolerance=1e-12, max_steps=200))


def _layer(kind):
    options = {"solver": solvers.Picard(tolerance=1e-13), "dtype": DTYPE}
    mask = operators.Mask(dtype=DTYPE)
    if kind == "energy":
        prior = priors.FieldsOfExperts(2, 3, sharpness=3.0, padding="zero", dtype=DTYPE)
        return layers.Variational(mask, prior, weight=0.2, adjoint=EXACT, **options)
    prior = priors.UntiedFieldsOfExperts(2, 3, sharpness=3.0, padding="zero", dtype=DTYPE)
    cell = layers.GradientStep(mask, prior, weight=0.05, dtype=DTYPE)
    adjoint = "jacobian_free" if kind == "other adjoint" else EXACT
    return layers.Equilibrium(cell, adjoint=adjoint, **options)


KINDS = ["energy", "map", "other adjoint"]


@pytest.mark.parametrize("kind", marked(KINDS, KINDS[:2]))
def test_it_is_the_derivative(kind):
    layer, h = _layer(kind), 1e-5
    solution, tangent = layers.jvp(layer, (Y, MASK), (DY, None))
    assert solution.converged.numpy().all()
    ends = [layer.solve((Y + s * h * DY, MASK)).value for s in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * h)
    error = np.linalg.norm(tangent.value - expected) / np.linalg.norm(expected)
    assert error < (1e-3 if kind == "other adjoint" else 1e-6)  # whose solver stops earlier


def test_along_the_data_in_a_graph():
    layer, h = _layer("energy"), 1e-5
    layer.build((Y.shape, MASK.shape))
    along = tf.function(lambda m, dm: layers.jvp(layer, (Y, m), (None, dm))[1], autograph=False)
    tangent = along(MASK, DY)
    ends = [layer.solve((Y, MASK + s * h * DY)).value for s in (1, -1)]
    expected = (ends[0] - ends[1]) / (2 * h)
    assert np.linalg.norm(tangent.value - expected) < 1e-5 * np.linalg.norm(expected)


def test_wrong_tangents():
    layer = _layer("energy")
    with pytest.raises(ValueError, match="nested like the inputs"):
        layers.jvp(layer, (Y, MASK), DY)
    with pytest.raises(ValueError, match="1 are not None|0 are not None"):
        layers.jvp(layer, (Y, MASK), (None, None))
    fourier = layers.Variational(operators.FourierMask(), priors.TotalVariation())
    inputs = tf.zeros((1, 6, 7, 1), tf.complex64), tf.ones((1, 6, 7, 1))
    with pytest.raises(ValueError, match="Expected real inputs"):
        layers.jvp(fourier, inputs, inputs)


@pytest.mark.parametrize("higher_order", [False, True])
def test_forward_mode_names_it(higher_order):
    adjoint = adjoints.Implicit(higher_order=higher_order)
    options = {"solver": solvers.Picard(max_steps=3), "adjoint": adjoint}
    layer = layers.Variational(operators.Identity(), priors.TotalVariation(), **options)
    y = tf.ones((1, 6, 7, 1))
    layer.build(y.shape)

    def forward(y):
        with tf.autodiff.ForwardAccumulator(y, tf.ones_like(y)):
            return layer(y)

    for function in (forward, tf.function(forward, autograph=False)):
        with pytest.raises(LookupError, match=r"deq_keras\.layers\.jvp"):
            function(y)

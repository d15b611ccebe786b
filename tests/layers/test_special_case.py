"""Bilevel learning is a special case of equilibrium models (arXiv:2206.13193), in numbers."""

import numpy as np
import pytest
import tensorflow as tf

from deq_keras import adjoints, layers, linear_solvers, operators, priors, solvers

DTYPE, SHAPE = "float64", (2, 7, 6, 1)

PRIORS = {
    "fields": (priors.FieldsOfExperts, priors.UntiedFieldsOfExperts, (3, 3), {"sharpness": 5.0}),
    "free fields": (
        priors.FieldsOfExperts,
        priors.UntiedFieldsOfExperts,
        (3, 3),
        {"sharpness": 2.0, "normalize": False, "zero_mean": False, "padding": "zero"},
    ),
    "affine": (priors.AffineExperts, priors.UntiedAffineExperts, (5, "tanh"), {"normalize": False}),
}
OPERATORS = {
    "denoising": operators.Identity,
    "deblurring": lambda **kwargs: operators.DiagonalBlur(3, **kwargs),
}


@pytest.mark.parametrize(
    ("prior", "operator"),
    [
        # Their map is that of the next with filters that are normalised.
        pytest.param("fields", "denoising", marks=pytest.mark.slow),
        ("free fields", "deblurring"),
        pytest.param("affine", "deblurring", marks=pytest.mark.slow),
    ],
)
def test_tied_weights_give_the_same_images_and_gradients(prior, operator):
    tied, untied, arguments, options = PRIORS[prior]
    bilevel = layers.Variational(
        OPERATORS[operator](dtype=DTYPE),
        tied(*arguments, dtype=DTYPE, **options),
        0.3,
        solver=solvers.LBFGS(tolerance=1e-14),
        adjoint=adjoints.Implicit(linear_solvers.ConjugateGradient(tolerance=1e-14)),
        dtype=DTYPE,
    )
    equilibrium = layers.Equilibrium(
        layers.GradientStep(
            OPERATORS[operator](dtype=DTYPE),
            untied(*arguments, dtype=DTYPE, **options),
            0.3,
            dtype=DTYPE,
        ),
        solver=solvers.Anderson(tolerance=1e-14, max_steps=5000),
        adjoint=adjoints.Implicit(linear_solvers.GMRES(tolerance=1e-14)),
        dtype=DTYPE,
    )
    y, x = (tf.constant(np.random.default_rng(k).uniform(size=SHAPE)) for k in (0, 1))
    bilevel.build(SHAPE)
    equilibrium.build(SHAPE)
    equilibrium.cell.prior.adopt(bilevel.prior)

    def with_gradients(layer):
        @tf.function(autograph=False)
        def function():
            with tf.GradientTape() as tape:
                tape.watch(y)
                u = layer(y)
                loss = tf.reduce_mean((u - x) ** 2)
            weights = {weight.name: weight.value for weight in layer.trainable_weights}
            return u, tape.gradient(loss, {**weights, "measurement": y})

        return function()

    (u, expected), (v, found) = with_gradients(bilevel), with_gradients(equilibrium)
    np.testing.assert_allclose(v, u, rtol=0, atol=1e-10)
    found["analysis"] += found.pop("synthesis")  # A stands in both places
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        error = np.linalg.norm(found[name] - value)
        assert error < 1e-10 * max(np.linalg.norm(value), 1.0), name

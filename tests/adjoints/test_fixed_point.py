"""The adjoint equation by a solver of fixed points, as published codes solve it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import adjoints, layers, linear_solvers, operators, priors, solvers
from tests.adjoints.cells import DTYPE, IMAGES, PICARD, make

PUBLISHED = {
    "anderson": solvers.PlainAnderson(tolerance=1e-3, max_steps=50, stopping="batch"),
    "picard": solvers.Picard(tolerance=1e-14, max_steps=1000, stopping="batch"),
}


def _cell():
    return make("closed_over", None, None)


def _gradient_step():
    prior = priors.FieldsOfExperts(3, 3, sharpness=2.0, padding="circular", dtype=DTYPE)
    return layers.GradientStep(operators.Identity(dtype=DTYPE), prior, weight=0.3, dtype=DTYPE)


def _gradients(cell, adjoint, graph):
    keras.utils.set_random_seed(0)
    layer = layers.Equilibrium(cell(), solver=PICARD, adjoint=adjoint, dtype=DTYPE)
    layer.build(IMAGES.shape)

    def differentiate(y):
        with tf.GradientTape() as tape:
            tape.watch(y)
            loss = tf.reduce_sum(tf.sin(3.0 * layer(y)))
        return tape.gradient(loss, [y, *(weight.value for weight in layer.trainable_weights)])

    return (tf.function(differentiate, autograph=False) if graph else differentiate)(IMAGES)


@pytest.mark.parametrize(
    ("cell", "stopping", "graph"),
    [
        (_cell, "image", True),
        (_gradient_step, "batch", False),
        pytest.param(_cell, "batch", False, marks=pytest.mark.slow),
        pytest.param(_gradient_step, "image", True, marks=pytest.mark.slow),
    ],
)
def test_gradients_equal_unrolling(cell, stopping, graph):
    tight = solvers.Picard(tolerance=1e-15, max_steps=2000, stopping=stopping)
    adjoint = adjoints.Implicit(linear_solvers.FixedPoint(tight))
    expected = _gradients(cell, adjoints.Unrolled(60), graph)
    for one, other in zip(_gradients(cell, adjoint, graph), expected, strict=True):
        assert float(tf.norm(other)) > 1e-8
        assert float(tf.norm(one - other)) <= 1e-8 * float(tf.norm(other))


@pytest.mark.slow  # its gradients are above
@pytest.mark.parametrize("name", ["anderson", "picard"])
def test_trains_and_is_saved(name, tmp_path):
    solver = PUBLISHED[name]
    cell = layers.GradientStep(
        operators.Identity(), priors.UntiedFieldsOfExperts(filters=3, kernel_size=3)
    )
    adjoint = adjoints.Implicit(linear_solver=linear_solvers.FixedPoint(solver))
    layer = layers.Equilibrium(cell, solver=solver, adjoint=adjoint, name="published")
    model = keras.Sequential([keras.Input((None, None, 1)), layer])
    model.compile("adam", "mse")
    sharp = np.random.default_rng(0).uniform(size=(4, 12, 12, 1)).astype("float32")
    before = [weight.numpy() for weight in model.trainable_weights]
    history = model.fit(sharp + 0.1, sharp, batch_size=2, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    after = [weight.numpy() for weight in model.trainable_weights]
    assert all((a != b).any() for a, b in zip(before, after, strict=True))
    # The metrics see what the adjoint did, with one product for the true residual.
    assert 1 < history["published_backward_steps"][-1] <= solver.max_steps + 1
    assert history["published_backward_residual"][-1] > 0

    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    found = again.get_layer("published")
    assert found.solver.get_config() == solver.get_config()
    assert found.adjoint.get_config() == adjoint.get_config()
    assert type(found.adjoint.linear_solver.solver) is type(solver)
    np.testing.assert_array_equal(again(sharp), model(sharp))

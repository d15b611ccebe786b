"""The penalties on Jacobians: what they are, their configurations, and that they do their work."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import regularizers
from deq_keras.numerics.jacobian import hutchinson
from deq_keras.regularizers import FrobeniusPenalty, SpectralPenalty

SEED = (3, 5)


def normal(seed, shape):
    return tf.constant(np.random.default_rng(seed).standard_normal(shape))


# A matrix whose largest singular value is far above the others: few power iterations do.
LEFT, RIGHT = (np.linalg.qr(normal(seed, (6, 6)).numpy())[0] for seed in (0, 10))
WEIGHTS = tf.constant(LEFT @ np.diag([1.2, 0.3, 0.25, 0.2, 0.2, 0.1]) @ RIGHT)
Z = normal(1, (3, 6))


def tensor_map(z):
    return tf.tanh(z @ WEIGHTS + 0.1)


def dense(f, z):
    """The Jacobian of each image, `(batch, outputs, inputs)`, entry by entry."""
    with tf.GradientTape() as tape:
        tape.watch(z)
        value = f(z)
    return tape.batch_jacobian(value, z).numpy()


@pytest.mark.parametrize("name", ["jacobian_frobenius", "jacobian_spectral"])
def test_penalties(name):
    penalty = regularizers.get(name)
    assert regularizers.get(penalty) is penalty
    heavier = type(penalty)(weight=2.5)
    copy = regularizers.get(keras.saving.serialize_keras_object(heavier))
    assert type(copy) is type(penalty)
    assert copy.get_config() == heavier.get_config() != penalty.get_config()
    value = penalty(tensor_map, Z, SEED)
    assert value.shape == ()
    assert float(copy(tensor_map, Z, SEED)) == pytest.approx(2.5 * float(value), rel=1e-12)
    assert float(penalty(tensor_map, Z)) > 0


def test_what_the_penalties_are():
    frobenius = FrobeniusPenalty(probes=3)(tensor_map, Z, SEED)
    assert float(frobenius) == pytest.approx(
        float(tf.reduce_mean(hutchinson(tensor_map, Z, SEED, 3)))
    )
    squares = np.linalg.norm(dense(tensor_map, Z), 2, (1, 2)) ** 2
    spectral = SpectralPenalty(steps=20)(tensor_map, Z, SEED)
    assert float(spectral) == pytest.approx(squares.mean(), rel=1e-6)


def test_penalty_as_a_loss_of_a_layer():
    """Descent on it alone makes the map a contraction, in a graph, by name."""

    class Penalised(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(6, use_bias=False, kernel_initializer="orthogonal")
            self.penalty = regularizers.get("jacobian_spectral")

        def call(self, z):
            self.add_loss(self.penalty(self.dense, z, (0, 1)))
            return self.dense(z)

    layer = Penalised()
    model = keras.Sequential([keras.Input((6,)), layer])
    model.compile(keras.optimizers.SGD(0.1))
    data = np.random.default_rng(0).standard_normal((8, 6)).astype("float32")
    before = np.linalg.norm(layer.dense.kernel.numpy(), 2)
    model.fit(data, epochs=20, verbose=0)
    assert before == pytest.approx(1, rel=1e-5)
    assert np.linalg.norm(layer.dense.kernel.numpy(), 2) < 0.9


def test_errors():
    with pytest.raises(ValueError, match="weight"):
        FrobeniusPenalty(weight=-1)
    with pytest.raises(ValueError, match="jacobian_frobenius"):
        regularizers.get("jacobian_frobenious")
    with pytest.raises(TypeError, match="JacobianRegularizer"):
        regularizers.get(3)

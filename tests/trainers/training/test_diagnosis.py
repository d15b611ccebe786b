"""Of a step that is not finite the guilty image is named, and the model stays as it was."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras.layers.diagnostics import Diagnostic
from trainers.training.diagnosis import diagnose, one_by_one


class Root(keras.layers.Layer):
    """Finite itself at zero, with a slope that is not."""

    def build(self, shape):
        self.factor = self.add_weight(shape=(), initializer="ones", name="factor")
        self.seen = self.add_weight(shape=(), initializer="zeros", trainable=False, name="seen")

    def call(self, x, training=False):
        if training:
            self.seen.assign_add(1.0)
        return tf.sqrt(self.factor * x)


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((1,)), Root(), keras.layers.Dropout(0.0)])
    model.compile("sgd", "mse", metrics=["mae"], run_eagerly=True)
    model.train_on_batch(np.ones((2, 1)), np.zeros((2, 1)))
    return model


def images(values, truth=1.0):
    for number, value in enumerate(values):
        yield f"image {number}", (tf.constant([[value]]), tf.constant([[truth]]))


@pytest.mark.parametrize(
    ("values", "guilty"),
    [
        ([1.0, math.nan, 2.0], ["image 1 (loss nan, gradient norm nan)"]),
        ([1.0, math.inf], ["image 1 (loss inf, gradient norm nan)"]),
        ([-1.0, 4.0, -2.0], ["image 0 (loss nan, gradient norm nan)", "image 2 (loss nan"]),
        ([1.0, 0.0], ["image 1 (loss 1, gradient norm nan)"]),  # the loss itself is finite
    ],
)
def test_guilty_images_are_named(model, values, guilty):
    said = diagnose(model, images(values))
    assert said.startswith("Not finite alone: ")
    for text in guilty:
        assert text in said
    assert said.count("image ") == len(guilty)


def test_many_are_counted(model):
    said = diagnose(model, images([math.nan] * 7))
    assert said.count("image ") == 4
    assert said.endswith(" and 3 more.")
    assert "more" not in diagnose(model, images([math.nan] * 4))


def test_innocent_images(model):
    assert "see the other workers' logs" in diagnose(model, images([1.0, 2.0]))
    assert "see the other workers' logs" in diagnose(model, iter(()))


def test_weights_of_images_are_used(model):
    pair = (tf.constant([[math.nan]]), tf.constant([[1.0]]))
    assert "image" in diagnose(model, [("image", (*pair, tf.constant([1.0])))])
    big = (tf.constant([[4.0]]), tf.constant([[0.0]]), tf.constant([math.inf]))
    assert "loss inf" in diagnose(model, [("image", big)])


def test_model_stays_as_it_was(model):
    variables = [*model.variables, *model.optimizer.variables, *model.metrics_variables]
    before = [variable.numpy() for variable in variables]
    assert any(value.any() for value in before)
    diagnose(model, images([math.nan, 1.0]))
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.path)


class Solver(keras.layers.Layer):
    """Reports as the layers of `deq_keras` do: an entry an image."""

    def __init__(self):
        super().__init__()
        self.steps = Diagnostic(name="mine_forward_steps")
        self.residual = Diagnostic(name="mine_forward_residual")
        self.backward = Diagnostic(name="mine_backward_residual")  # its solve is not made
        self.other = keras.metrics.Mean("other")

    def call(self, x):
        self.steps.update_state(x[:, 0])
        self.residual.update_state(10 * x[:, 0])
        self.other.update_state(x[:, 0])
        return x


@pytest.mark.parametrize("eager", [True, False])
def test_solver_of_the_guilty_image_is_quoted(eager):
    """Each image with its own residual and steps, not the mean of the batch or of the epoch."""
    model = keras.Sequential([keras.Input((1,)), Solver(), Root()])
    model.compile("sgd", "mse", run_eagerly=eager)
    model.train_on_batch(np.full((2, 1), 50.0), np.zeros((2, 1)))
    data = ((2.0, 1.0), (3.0, math.nan), (4.0, math.nan))
    pairs = [(f"image {int(x)}", (tf.constant([[x]]), tf.constant([[y]]))) for x, y in data]
    expected = [
        f"image {n} (loss nan, gradient norm nan, mine_forward_steps {n}, "
        f"mine_forward_residual {10 * n}, mine_backward_residual nan)"
        for n in (3, 4)
    ]
    assert diagnose(model, iter(pairs)) == f"Not finite alone: {'; '.join(expected)}."


def test_images_one_by_one_have_their_place_and_name():
    groups = [
        (tf.constant([[0.0], [1.0]]), {"y": tf.constant([10, 11])}),
        (tf.zeros((0, 1)), {"y": tf.zeros(0, tf.int32)}),
        (tf.constant([[2.0]]), {"y": tf.constant([12])}),
    ]
    found = list(one_by_one(groups, 7, 4, lambda step, position: f"photo {step}/{position}"))
    names = [name for name, _ in found]
    assert names == [f"photo 7/{n}, image {n} of the global batch" for n in (4, 5, 6)]
    for number, (_, (x, y)) in enumerate(found):
        np.testing.assert_array_equal(x, [[number]])
        np.testing.assert_array_equal(y["y"], [10 + number])
    plain = [name for name, _ in one_by_one(groups, 7, 0, None)]
    assert plain == [f"image {n} of the global batch" for n in range(3)]

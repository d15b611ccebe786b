"""`layer_test` passes what is right and, above all, fails what is wrong, saying why."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from deq_keras import testing

_register = keras.saving.register_keras_serializable(package="test_testing")


@_register
class Scale(keras.layers.Layer):
    """A right layer, of which the wrong ones below each break one thing."""

    def __init__(self, power=1.0, **kwargs):
        super().__init__(**kwargs)
        self.power = power

    def build(self, input_shape):
        self.scale = self.add_weight(shape=(input_shape[-1],), initializer="ones")

    def call(self, u):
        return self.power * u * self.scale

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "power": self.power}


@_register
class NormalisesOverBatch(Scale):
    def call(self, u):
        return super().call(u) / tf.norm(u)


@_register
class ForgetsArgument(Scale):
    def get_config(self):
        return keras.layers.Layer.get_config(self)


@_register
class HidesArgument(ForgetsArgument):
    """Forgets it too, and keeps it under another name."""

    def __init__(self, factor=1.0, **kwargs):
        super().__init__(power=factor, **kwargs)


@_register
class MisreadsArgument(Scale):
    def __init__(self, power=1.0, **kwargs):
        super().__init__(power=2 * power, **kwargs)


@_register
class FixedDtype(Scale):
    def call(self, u):
        return tf.cast(super().call(u), "float32")


@_register
class EagerOnly(Scale):
    def call(self, u):
        return super().call(u) if float(tf.reduce_sum(u)) > 0 else u


@_register
class WrongShape(Scale):
    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], 7)


@_register
class NeedsSize(Scale):
    def build(self, input_shape):
        super().build(input_shape)
        self.weight = 1.0 / (input_shape[1] * input_shape[2])


@_register
class SizeOnBuild(Scale):
    def build(self, input_shape):
        super().build(input_shape)
        self.factor = 1.0 if input_shape[1] is None else 2.0

    def call(self, u):
        return self.factor * super().call(u)


@_register
class NoGradient(Scale):
    def call(self, u):
        return u * tf.stop_gradient(self.scale.value)


@_register
class InfiniteGradient(Scale):
    def call(self, u):
        return super().call(u) + tf.sqrt(self.scale - 1.0)  # sqrt(0), as its weight is 1


@_register
class NaNInTraining(Scale):
    def call(self, u, training=False):
        return super().call(u) * (np.nan if training else 1.0)


@_register
class Random(Scale):
    def call(self, u):
        return super().call(u) + tf.random.normal(tf.shape(u), dtype=u.dtype)


class NotRegistered(Scale):
    pass


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (Scale, {"power": 2.0}),
        (keras.layers.Conv2D, {"filters": 3, "kernel_size": (3, 2), "padding": "same"}),
        (keras.layers.Conv2D, {"filters": 2, "kernel_size": 3, "strides": 2, "dtype": "float64"}),
        (keras.layers.DepthwiseConv2D, {"kernel_size": 3}),
        (keras.layers.GroupNormalization, {"groups": 1}),
        (keras.layers.BatchNormalization, {}),
        (keras.layers.Dropout, {"rate": 0.5}),
        (keras.layers.GlobalAveragePooling2D, {}),
        (keras.layers.Dense, {"units": 2}),
    ],
)
def test_layer_test_passes_layers(cls, kwargs):
    testing.layer_test(cls, kwargs)


def test_layer_test_of_an_instance_keeps_its_weights():
    layer = keras.layers.Conv2D(2, 3, kernel_initializer="ones", dtype="mixed_float16")
    data = np.random.default_rng(3).uniform(size=(3, 9, 8, 2)).astype("float16")
    testing.layer_test(layer, input_data=data, rtol=1e-3)
    np.testing.assert_array_equal(layer.kernel, np.ones((3, 3, 2, 2)))
    with pytest.raises(ValueError, match="with a class only"):
        testing.layer_test(layer, {"filters": 2})


@pytest.mark.parametrize(
    ("cls", "cause", "switches"),
    [
        (NormalisesOverBatch, "over the batch", ["check_batch"]),
        (ForgetsArgument, "`power` is not in get_config", ["check_config", "check_saving"]),
        (MisreadsArgument, r"\['power'\] differ", ["check_config", "check_saving"]),
        (NotRegistered, "register_keras_serializable", ["check_saving"]),
        (FixedDtype, "output is float32, the compute dtype float64", ["check_dtype"]),
        (EagerOnly, "control flow", None),
        (WrongShape, r"7\) stated", ["check_output_shape", "check_saving"]),
        (NeedsSize, "needs a size", ["check_unknown_size"]),
        (SizeOnBuild, r"built for input shape \(None, None, None, 1\)", ["check_unknown_size"]),
        (NoGradient, "no gradient reaches", ["check_gradients", "check_fit"]),
        (InfiniteGradient, "has NaN or infinity", ["check_gradients", "check_fit"]),
        (NaNInTraining, "after a step of fit", ["check_fit"]),
        (Random, "randomness", None),
    ],
)
def test_layer_test_fails_a_wrong_layer_says_why_and_can_be_told_not_to(cls, cause, switches):
    kwargs = {"power": 3.0, "dtype": "float64"}
    with pytest.raises(AssertionError, match=cause):
        testing.layer_test(cls, kwargs)
    if switches:
        testing.layer_test(cls, kwargs, **dict.fromkeys(switches, False))


def test_layer_test_sees_a_forgotten_argument_of_a_layer_and_one_that_is_renamed():
    with pytest.raises(AssertionError, match="`power` is not in get_config"):
        testing.layer_test(ForgetsArgument(power=3.0))
    with pytest.raises(AssertionError, match="output of its copy is wrong"):
        testing.layer_test(HidesArgument(factor=3.0), check_fit=False)


def test_layer_test_wants_one_output_and_two_images():
    with pytest.raises(ValueError, match="two images"):
        testing.layer_test(Scale, input_shape=(1, 8, 8, 1))
    testing.layer_test(Scale, input_shape=(1, 8, 8, 1), check_batch=False)

    class Two(Scale):
        def call(self, u):
            return u, u

    with pytest.raises(ValueError, match="one tensor"):
        testing.layer_test(Two)

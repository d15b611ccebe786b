"""Partial functions: what they are made of can be stopped, replaced, and cut to some rows."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.numerics import partial
from deq_keras.numerics.partial import Partial


def _scale(u, a, b):
    return a * u + b


def test_a_call_passes_shared_then_rows():
    f = Partial(_scale, (tf.constant(2.0),), (tf.constant([[1.0], [3.0]]),))
    np.testing.assert_allclose(f(tf.ones((2, 1))), [[3.0], [5.0]])


def test_stopped_cuts_gradients_and_keeps_values():
    a, u = tf.constant(2.0), tf.ones((2, 1))
    with tf.GradientTape() as tape:
        tape.watch((a, u))
        f = Partial(_scale, (a,), (tf.zeros((2, 1)),))
        value, frozen = f(u), partial.stopped(f)(u)
        loss = tf.reduce_sum(frozen)
    np.testing.assert_array_equal(value, frozen)
    of_a, of_u = tape.gradient(loss, (a, u))
    assert of_a is None
    np.testing.assert_array_equal(of_u, tf.fill((2, 1), 2.0))


def test_stopped_treats_the_same_tensor_once():
    a = tf.constant(2.0)
    first, second = partial.stopped((Partial(_scale, (a,)), a))
    assert first.shared[0] is second
    assert len(partial.differentiable((a, a, tf.constant(1)))) == 1


def test_replaced_reaches_nested_functions():
    a, b = tf.constant(2.0), tf.constant(5.0)
    outer = Partial(lambda u, inner: inner(u), (Partial(_scale, (a,), (0.0,)),))
    assert float(partial.replaced(outer, [a], [b])(1.0)) == 5.0


def test_rows_can_be_taken_also_of_nested_functions():
    rows = tf.constant([[1.0], [2.0], [3.0]])
    inner = Partial(_scale, (1.0,), (rows,))
    outer = Partial(lambda u, inner, one: inner(u) + one, (inner,), (tf.constant([[10.0]]),))
    taken = partial.take_rows({"f": outer}, tf.constant([2, 0]))["f"]
    np.testing.assert_array_equal(taken(tf.zeros((2, 1))), [[13.0], [11.0]])


def test_a_function_of_a_layer_reads_a_snapshot_and_assigns_nothing():
    layer = keras.layers.BatchNormalization(momentum=0.5)
    u = tf.random.stateless_normal((8, 3), (0, 1)) + 4.0
    layer.build(u.shape)
    f = partial.of_layer(layer, lambda u: layer(u, training=True))
    before = [v.numpy() for v in layer.variables]
    first = f(u)
    for old, variable in zip(before, layer.variables, strict=True):
        np.testing.assert_array_equal(old, variable)
    layer.gamma.assign([3.0, 3.0, 3.0])
    np.testing.assert_array_equal(f(u), first)

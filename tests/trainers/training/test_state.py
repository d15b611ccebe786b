"""What is kept comes back exactly, on as many replicas as there are then."""

import math
import random

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainers.process.errors import ConfigurationError
from trainers.training import Options
from trainers.training.feed import Feed
from trainers.training.state import (
    ReplicaState,
    callback_state,
    decode,
    encode,
    restore_callback,
)
from trainers.training.step import Step

# Bytes


def same(new, old):
    """Whether two values are the same to the bit; tuples come back as lists."""
    if isinstance(old, (list, tuple)):
        return (
            type(new) is list
            and len(new) == len(old)
            and all(same(a, b) for a, b in zip(new, old, strict=True))
        )
    if isinstance(old, dict):
        return (
            type(new) is dict
            and list(new) == list(old)
            and all(same(new[key], old[key]) for key in old)
        )
    if isinstance(old, (np.ndarray, np.generic)):
        return (
            type(new) is type(old)
            and (new.dtype, new.shape) == (old.dtype, old.shape)
            and new.tobytes() == old.tobytes()
        )
    if isinstance(old, float):
        bits = (math.copysign(1, new), math.isnan(new)) == (math.copysign(1, old), math.isnan(old))
        return type(new) is float and bits and (new == old or math.isnan(old))
    return type(new) is type(old) and new == old


DTYPES = ("?", "i1", "u1", "i2", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16", "U5", "S3")
SCALARS = (
    *(None, True, False, 0, -1, 2**63, -(2**200), 10**400),
    *(0.0, -0.0, math.nan, math.inf, -math.inf, 5e-324, 1.7976931348623157e308, 0.1),
    *("", "é\0\n\u2028", "𝄞", "\ud800", 'a"b\\', "x" * 1000, "array", "dict"),
    *(np.float32(0.1), np.float64(math.nan), np.int64(-(2**63)), np.bool_(True), np.str_("é")),
)


def an_array(draw):
    dtype = np.dtype(draw.choice(DTYPES))
    shape = tuple(draw.choice((0, 1, 2, 5)) for _ in range(draw.randrange(4)))
    rng = np.random.default_rng(draw.randrange(2**32))
    if dtype.kind in "US":
        return (
            rng.choice(np.array(["", "a", "b c"], dtype), size=shape).astype(dtype).reshape(shape)
        )
    if dtype.kind == "b":
        return (rng.uniform(size=shape) < 0.5).reshape(shape)
    # Any bits: among them are infinities, NaN with a payload and denormal numbers.
    array = np.frombuffer(rng.bytes(math.prod(shape) * dtype.itemsize), dtype).reshape(shape)
    return draw.choice((array, np.asfortranarray(array), array.astype(dtype.newbyteorder(">"))))


def a_value(draw, depth=0):
    kind = draw.choice("sssaald" if depth < 4 else "sa")
    if kind == "s":
        return draw.choice(SCALARS)
    if kind == "a":
        return an_array(draw)
    parts = [a_value(draw, depth + 1) for _ in range(draw.randrange(4))]
    if kind == "l":
        return draw.choice((list, tuple))(parts)
    keys = draw.sample(("", "array", "dict", "scalar", "text", "a0", "é", "\0"), len(parts))
    return dict(zip(keys, parts, strict=True))


@pytest.mark.parametrize("seed", range(200))
def test_round_trip_is_exact(seed):
    value = a_value(random.Random(seed))
    assert same(decode(encode(value)), value)


@pytest.mark.parametrize("value", SCALARS, ids=lambda value: repr(value)[:20])
def test_round_trip_of_a_scalar_is_exact(value):
    assert same(decode(encode({"a": [value]})), {"a": [value]})


def test_an_array_of_one_is_no_number():
    assert decode(encode(np.array(3.0))).shape == ()
    assert isinstance(decode(encode(np.array(3.0))), np.ndarray)
    assert isinstance(decode(encode(np.float32(3.0))), np.float32)


class Odd:
    def __repr__(self):
        return "Odd()"


@pytest.mark.parametrize(
    "value",
    [
        Odd(),
        {1: 2},
        {None: 2},
        {"a": {("b",): 1}},
        {1, 2},
        b"bytes",
        1j,
        np.array([None, Odd()]),
        np.zeros(2, tf.bfloat16.as_numpy_dtype),
        np.zeros(2, [("a", "f4")]),
        keras.optimizers.SGD,
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_would_not_come_back_is_refused(value):
    with pytest.raises(ConfigurationError, match=r"`get_state`.*Received"):
        encode({"a": [value]})


@pytest.mark.parametrize("data", [b"", b"x", b"PK\x03\x04", b"\x93NUMPY", bytes(1000), b"{}"])
def test_bytes_of_something_else_are_refused(data):
    with pytest.raises(ValueError, match="."):
        decode(data)


def test_another_archive_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", a0=np.zeros(3))
    with pytest.raises(ValueError, match="not the state of a training"):
        decode((tmp_path / "a.npz").read_bytes())


def test_damaged_bytes_are_refused_or_what_they_were():
    value = {"a": np.arange(20.0), "b": [1, "x", None], "c": np.float32(0.1)}
    data = encode(value)
    draw = random.Random(0)
    for _ in range(300):
        changed = bytearray(data)
        if draw.random() < 0.5:
            changed[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        else:
            del changed[draw.randrange(len(data)) :]
        try:
            result = decode(bytes(changed))
        except ValueError:
            continue
        assert same(result, value)


# Replicas


def noisy():
    """A model with a seed and a metric; layers of its own would change nothing here."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dropout(0.5), keras.layers.GaussianNoise(1.0)]
    )
    model.compile("sgd", "mse", metrics=["mae"], run_eagerly=True)
    return model


def on(strategy):
    with strategy.scope():
        model = noisy()
        step = Step(model, strategy, Options())
    x = tf.zeros((2, 4))
    step.prepare(next(Feed(strategy).training(tf.data.Dataset.from_tensors((x, x)), 0))[0])
    return model, ReplicaState(model, strategy)


@pytest.fixture(scope="module")
def one(single):
    return on(single)


@pytest.fixture(scope="module")
def two(mirrored):
    return on(mirrored)


def random_state(state, seed):
    """Numbers of all kinds, another for each replica."""
    rng = np.random.default_rng(seed)
    replicas = state.strategy.num_replicas_in_sync
    size = sum(math.prod(variable.shape) for variable in state.metrics)
    metrics = (rng.normal(size=(replicas, size)) * 10.0 ** rng.integers(-30, 30)).astype("float32")
    seeds = rng.integers(0, 2**32, size=(replicas, 2 * len(state.counters)))
    return {"metrics": metrics.astype("float64"), "counters": seeds.astype("int64")}


def assert_equal(new, old):
    assert set(new) == set(old) == {"metrics", "counters"}
    for name in new:
        np.testing.assert_array_equal(new[name], old[name], strict=True)


def masks(model, strategy):
    """What the random layers do on each replica."""
    result = strategy.run(lambda: model(tf.ones((50, 4)), training=True))
    return [value.numpy() for value in strategy.experimental_local_results(result)]


@pytest.mark.parametrize("seed", range(3))
def test_state_of_each_replica_is_its_own_to_the_last_bit(one, two, seed):
    for _, state in (one, two):
        old = random_state(state, seed)
        state.write(old)
        assert_equal(state.read(), old)
        state.write(random_state(state, 99))
        state.write(decode(encode(old)))
        assert_equal(state.read(), old)


def test_numbers_that_are_none_are_kept(two):
    _, state = two
    old = random_state(state, 0)
    old["metrics"][0, :2] = math.nan, math.inf
    old["metrics"][1, 0] = -math.inf
    state.write(old)
    assert_equal(state.read(), old)


def test_there_is_something_to_keep(one, two):
    for model, state in (one, two):
        assert {"total", "count"} <= {variable.name for variable in state.metrics}
        assert len(state.counters) == 2
        assert all(v is not s for v in state.counters for s in model.trainable_variables)


def test_random_numbers_go_on_where_they_were(two):
    model, state = two
    state.separate_streams()
    masks(model, state.strategy)
    old = state.read()
    expected = masks(model, state.strategy)
    masks(model, state.strategy)
    state.write(old)
    for new, then in zip(masks(model, state.strategy), expected, strict=True):
        np.testing.assert_array_equal(new, then)


def test_replicas_draw_numbers_of_their_own(two):
    model, state = two
    equal = random_state(state, 0)
    equal["counters"][1] = equal["counters"][0]
    state.write(equal)
    first, second = masks(model, state.strategy)
    np.testing.assert_array_equal(first, second)
    state.write(equal)
    state.separate_streams()
    first, second = masks(model, state.strategy)
    assert (first != second).mean() > 0.3
    counters = state.read()["counters"]
    # The position in a stream is the same, and so is the stream of the first replica.
    np.testing.assert_array_equal(counters[0, 0::2], equal["counters"][0, 0::2])
    np.testing.assert_array_equal(counters[0, 1::2], counters[1, 1::2])


def test_one_replica_keeps_its_stream(one):
    model, state = one
    old = random_state(state, 0)
    state.write(old)
    state.separate_streams()
    assert_equal(state.read(), old)


def test_fewer_replicas_have_the_sum_of_the_metrics(one, two):
    old = random_state(two[1], 5)
    one[1].write(old)
    new = one[1].read()
    np.testing.assert_array_equal(
        new["metrics"][0], old["metrics"].sum(0).astype("float32").astype("float64")
    )
    np.testing.assert_array_equal(new["counters"], old["counters"][:1])


def test_more_replicas_have_the_sum_and_streams_of_their_own(one, two):
    old = random_state(one[1], 6)
    two[1].write(old)
    new = two[1].read()
    np.testing.assert_array_equal(new["metrics"].sum(0, keepdims=True), old["metrics"])
    np.testing.assert_array_equal(new["counters"][0], old["counters"][0])
    assert (new["counters"][0, 0::2] != new["counters"][1, 0::2]).all()
    first, second = masks(two[0], two[1].strategy)
    assert (first != second).mean() > 0.3


def test_result_of_a_metric_is_kept_when_their_number_changes(one, two):
    """The mean over what all replicas have seen, and not a mean of means."""
    metric = {id(model): model.metrics[-1].metrics[0] for model, _ in (one, two)}
    old = random_state(two[1], 0)
    old["metrics"][:] = np.arange(1, 1 + old["metrics"].size).reshape(old["metrics"].shape)
    for model, state in (two, one, two):
        state.write(old)
        results = float(metric[id(model)].result())
        columns = [v.path for v in state.metrics].index(metric[id(model)].variables[0].path)
        total, count = old["metrics"][:, columns : columns + 2].sum(0)
        assert results == pytest.approx(total / count, rel=1e-6)
        old = state.read()


# Callbacks


def model_with_a_rate():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    return model


def run(callback, model, losses, first=0):
    """What a callback does at the end of each epoch: the rate, and whether it stops."""
    done = []
    for epoch, loss in enumerate(losses, first):
        model.layers[0].kernel.assign([[loss]])
        callback.on_epoch_end(epoch, {"loss": loss, "val_loss": loss})
        done.append((float(model.optimizer.learning_rate), model.stop_training))
    return done


class Plain(keras.callbacks.Callback):
    """Remembers in attributes, some of which cannot be kept."""

    def __init__(self, limit):
        super().__init__()
        self.limit, self.seen, self.lock = limit, [], object()

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(logs["loss"])
        self.model.stop_training = sum(self.seen) > self.limit


class Own(keras.callbacks.Callback):
    """Says itself what it remembers."""

    def __init__(self):
        super().__init__()
        self.total = 0.0

    def get_state(self):
        return {"total": np.float64(self.total)}

    def set_state(self, state):
        self.total = float(state["total"])

    def on_epoch_end(self, epoch, logs=None):
        self.total += logs["loss"]
        self.model.stop_training = self.total > 12


LOSSES = [3.0, 2.0, 2.5, 2.2, 1.0, 1.5, 1.4, 1.3, 1.2]
CALLBACKS = {
    "early stopping": lambda: keras.callbacks.EarlyStopping(
        patience=3, restore_best_weights=True, min_delta=0.1
    ),
    "from the start": lambda: keras.callbacks.EarlyStopping(patience=2, start_from_epoch=3),
    "rate": lambda: keras.callbacks.ReduceLROnPlateau(patience=2, factor=0.5, cooldown=1),
    "plain": lambda: Plain(12.0),
    "own": Own,
}


@pytest.mark.parametrize("name", CALLBACKS)
def test_callback_goes_on_as_if_it_had_not_been_stopped(name):
    whole, model = CALLBACKS[name](), model_with_a_rate()
    whole.set_model(model)
    whole.on_train_begin()
    expected = run(whole, model, LOSSES)
    assert any(stop for _, stop in expected) or name == "rate"
    assert len({rate for rate, _ in expected}) > 2 or name != "rate"
    for cut in range(len(LOSSES)):
        model = model_with_a_rate()
        first = CALLBACKS[name]()
        first.set_model(model)
        first.on_train_begin()
        done = run(first, model, LOSSES[:cut])
        state = decode(encode(callback_state(first)))
        second = CALLBACKS[name]()
        second.set_model(model)
        second.on_train_begin()
        restore_callback(second, state)
        done += run(second, model, LOSSES[cut:], cut)
        assert done == expected
        for attribute in ("best", "best_epoch", "wait", "stopped_epoch", "cooldown_counter"):
            old = getattr(whole, attribute, None)
            assert getattr(second, attribute, None) == old, attribute


def test_what_a_constructor_was_given_may_change():
    first = keras.callbacks.EarlyStopping(patience=3)
    state = callback_state(first)
    second = keras.callbacks.EarlyStopping(patience=7)
    restore_callback(second, state)
    assert second.patience == 7
    assert state["name"] == "EarlyStopping"


def test_state_of_a_callback_is_what_can_be_kept():
    callback = Plain(1.0)
    callback.extra = {"a": [1, np.zeros(2)], "b": {"c": None}}
    callback.odd = {"a": object()}
    callback.keyed = {1: 2}
    assert set(callback_state(callback)["state"]) == {"seen", "extra"}

"""A step is that of one device on the whole batch: Keras's own, which `fit` makes.

All in float64, so that what is equal in mathematics is equal to twelve digits.
"""

import functools
import math
from typing import NamedTuple

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.variants import marked
from trainers.process.errors import ConfigurationError
from trainers.training import Options
from trainers.training.feed import Feed
from trainers.training.step import Step

SIZES = (7, 4, 1)  # none of which divides by two replicas as well as by three parts


@pytest.fixture(autouse=True)
def double():
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")


@pytest.fixture(params=marked(["one", "two"], ["two"]))
def strategy(request, single, mirrored):
    return single if request.param == "one" else mirrored


def batches(sizes=SIZES, weighted=False, seed=0):
    """Global batches, as NumPy has them."""
    rng = np.random.default_rng(seed)
    kinds = [(3,), (2,), ()][: 3 if weighted else 2]
    return [tuple(rng.uniform(0.1, 2, size=(n, *kind)) for kind in kinds) for n in sizes]


def dense(**options):
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, activation="tanh", **options),
            keras.layers.Dense(2, use_bias=False),
        ]
    )


def made(strategy, make=dense, optimizer=None, **compiled):
    """A compiled model in the scope of a strategy, with the same weights each time."""
    keras.utils.set_random_seed(0)
    with strategy.scope():
        model = make()
        compiled = {"loss": "mse", "metrics": ["mae"], "run_eagerly": True, **compiled}
        model.compile(optimizer() if optimizer else keras.optimizers.SGD(0.1), **compiled)
    return model


def dataset(data):
    """Batches of different lengths, joined rather than generated: nothing is traced."""
    return functools.reduce(tf.data.Dataset.concatenate, map(tf.data.Dataset.from_tensors, data))


def shares(data):
    """The same as what each replica gets of each batch, as a function of the input context."""

    def of_each(context, start):
        replicas = context.num_replicas_in_sync

        def share(batch, replica):
            return tf.nest.map_structure(lambda x: np.array_split(x, replicas)[replica], batch)

        return dataset([share(batch, n) for batch in data for n in range(replicas)])

    return of_each


class Result(NamedTuple):
    model: keras.Model
    step: Step
    outcomes: list
    start: list  # the weights before the first step


def train(strategy, data, options=None, watch=None, **kwargs):
    """A step for each batch; `watch` is called with model, step and outcome after each."""
    options, model = options or Options(), made(strategy, **kwargs)
    with strategy.scope():
        step = Step(model, strategy, options)
    start = [variable.numpy() for variable in model.trainable_variables]
    run = Feed(strategy).training(shares(data), 0, options.accumulation)
    outcomes = []
    for number in range(len(data)):
        parts = next(run)
        if number == 0:
            step.prepare(parts[0])
        outcomes.append(step.train(parts, False))
        if watch is not None:
            watch(model, step, outcomes[-1])
    return Result(model, step, outcomes, start)


def fit(data, single, **kwargs):
    """The same by Keras, on one device and on whole batches: the model, and its logs."""
    model = made(single, **kwargs)
    history = model.fit(dataset(data), epochs=1, shuffle=False, verbose=0).history
    return model, {name: values[0] for name, values in history.items()}


def mean_loss(result, data):
    """The mean over all images, of what each step has said."""
    sizes = [len(batch[0]) for batch in data]
    return np.average([outcome.loss for outcome in result.outcomes], weights=sizes)


def assert_same_values(new, old, rtol=1e-12):
    assert len(new) == len(old)
    for a, b in zip(new, old, strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=rtol, atol=rtol, err_msg=a.path)


def assert_same_model(new, old, rtol=1e-12):
    assert_same_values(new.trainable_variables, old.trainable_variables, rtol)
    assert_same_values(new.optimizer.variables, old.optimizer.variables, rtol)


def results(model):
    return {name: float(value) for name, value in model.get_metrics_result().items()}


# The gradient


@pytest.mark.parametrize("strategy", ["one", "two"], indirect=True)
@pytest.mark.parametrize(("parts", "n"), [(1, 7), (1, 1), (2, 7), (3, 7), (3, 2)])
def test_gradient_is_that_of_the_whole_batch(strategy, parts, n):
    data = batches((n,))
    result = train(
        strategy, data, Options(accumulation=parts), optimizer=lambda: keras.optimizers.SGD(1.0)
    )
    (outcome,), before = result.outcomes, list(map(tf.constant, result.start))
    x, y = (tf.constant(part) for part in data[0])
    first, bias, second = before
    with tf.GradientTape() as tape:
        tape.watch(before)
        loss = tf.reduce_mean((tf.tanh(x @ first + bias) @ second - y) ** 2)
    gradients = tape.gradient(loss, before)
    for variable, old, gradient in zip(
        result.model.trainable_variables, before, gradients, strict=True
    ):
        np.testing.assert_allclose(
            variable.numpy(), old - gradient, rtol=1e-12, atol=1e-14, err_msg=variable.path
        )
    norm = np.sqrt(sum(np.sum(np.square(gradient)) for gradient in gradients))
    assert outcome.loss == pytest.approx(float(loss), rel=1e-12)
    assert outcome.gradient_norm == pytest.approx(norm, rel=1e-12)
    assert (outcome.images, outcome.finite, outcome.stop) == (n, True, False)
    assert outcome.learning_rate == 1.0
    assert not outcome.rescaled


OPTIMIZERS = {
    "clipnorm": lambda: keras.optimizers.Adam(0.1, clipnorm=0.05),
    "global_clipnorm": lambda: keras.optimizers.Adam(0.1, global_clipnorm=0.05),
    "clipvalue": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True, clipvalue=0.02),
    "weight decay": lambda: keras.optimizers.AdamW(0.1, weight_decay=0.3),
    "average": lambda: keras.optimizers.SGD(
        0.1, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=2
    ),
    "schedule": lambda: keras.optimizers.RMSprop(
        keras.optimizers.schedules.ExponentialDecay(0.125, 1, 0.5)
    ),
    "Keras's accumulation": lambda: keras.optimizers.Adam(0.1, gradient_accumulation_steps=2),
    "loss scale": lambda: keras.optimizers.SGD(0.1, loss_scale_factor=64.0),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizer_does_what_it_does_on_one_device(mirrored, single, name):
    data = batches((7, 1, 4))
    new = train(mirrored, data, optimizer=OPTIMIZERS[name])
    old, logs = fit(data, single, optimizer=OPTIMIZERS[name])
    new.step.optimizer.finalize_variable_values(new.model.trainable_variables)  # as `fit` does
    assert_same_model(new.model, old)
    assert mean_loss(new, data) == pytest.approx(logs["loss"], rel=1e-12)
    if name == "schedule":
        rates = [outcome.learning_rate for outcome in new.outcomes]
        assert rates == [0.125, 0.0625, 0.03125]


@pytest.mark.parametrize("clip", [0.05, 1e9])
def test_gradient_is_clipped_after_it_was_summed(strategy, single, clip):
    data = batches((7, 3))
    new = train(strategy, data, Options(clip_norm=clip, accumulation=2))
    old, _ = fit(data, single, optimizer=lambda: keras.optimizers.SGD(0.1, global_clipnorm=clip))
    assert_same_model(new.model, old)
    # What is told is the norm before; clipped steps have the same length.
    assert all(outcome.gradient_norm > 0.05 for outcome in new.outcomes)


def test_average_of_the_weights(strategy):
    decay, seen = 0.75, []

    def watch(model, step, outcome):
        seen.append([v.numpy() for v in model.trainable_variables])

    result = train(strategy, batches(), Options(average=decay), watch)
    expected = seen[0]  # Keras begins with the weights after the first step
    for weights in seen:
        expected = [decay * a + (1 - decay) * w for a, w in zip(expected, weights, strict=True)]
    result.step.optimizer.finalize_variable_values(result.model.trainable_variables)
    for variable, value in zip(result.model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable.numpy(), value, rtol=1e-12)


def test_average_asked_for_too_late_is_refused(single):
    model = made(single)
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(ConfigurationError, match="has not been used, to average the weights"):
        Step(model, single, Options(average=0.9))


# Losses


def test_weighted_images(strategy, single):
    data = batches(weighted=True)
    new = train(strategy, data, Options(accumulation=2), weighted_metrics=["mse"])
    old, logs = fit(data, single, weighted_metrics=["mse"])
    assert_same_model(new.model, old)
    assert results(new.model) == pytest.approx(logs, rel=1e-12)


class MeanActivity(keras.layers.Layer):
    def call(self, x):
        self.add_loss(0.3 * keras.ops.mean(keras.ops.square(x)))
        return x


def regularised():
    return keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.1)),
            MeanActivity(),
            keras.layers.Dense(2, bias_regularizer="l1"),
        ]
    )


def test_losses_of_layers(strategy, single):
    data = batches()
    new = train(strategy, data, Options(accumulation=2), make=regularised)
    old, logs = fit(data, single, make=regularised)
    assert_same_model(new.model, old)
    assert mean_loss(new, data) == pytest.approx(logs["loss"], rel=1e-12)


def two_outputs():
    x = keras.Input((3,))
    hidden = keras.layers.Dense(4, activation="tanh")(x)
    outputs = {
        "a": keras.layers.Dense(2, name="a")(hidden),
        "b": keras.layers.Dense(2, name="b")(hidden),
    }
    return keras.Model(x, outputs)


def test_several_outputs_and_losses(strategy, single):
    data = [(x, {"a": y, "b": y**2}) for x, y in batches((7, 4, 5))]
    how = {
        "make": two_outputs,
        "loss": {"a": "mse", "b": keras.losses.Huber(0.5)},
        "loss_weights": {"a": 1.0, "b": 0.3},
        "metrics": {"a": ["mae"], "b": ["mae"]},
    }
    # In a graph the length of a batch is unknown, for the replicas have different ones.
    new = train(strategy, data, run_eagerly=strategy is single, **how)
    old, logs = fit(data, single, **how)
    assert_same_model(new.model, old)
    assert {"loss", "a_loss", "b_loss", "a_mae", "b_mae"} == set(logs)
    assert results(new.model) == pytest.approx(logs, rel=1e-12)


def test_loss_that_is_a_sum(strategy, single):
    data = batches((7, 4, 1))
    how = {"loss": keras.losses.MeanSquaredError(reduction="sum")}
    new, (old, logs) = train(strategy, data, **how), fit(data, single, **how)
    assert_same_model(new.model, old)
    again, losses = made(single, **how), []
    for x, y in data:
        losses.append(np.sum(np.mean((again(x).numpy() - y) ** 2, -1)))
        again.train_on_batch(x, y)
    assert [outcome.loss for outcome in new.outcomes] == pytest.approx(losses, rel=1e-12)
    # A sum is no mean over images: all batches count alike.
    expected = {"loss": np.mean(losses), "mae": logs["mae"]}
    assert results(new.model) == pytest.approx(expected, rel=1e-12)


def test_sum_with_losses_of_layers(single, mirrored):
    sums = {"make": regularised, "loss": keras.losses.MeanSquaredError(reduction="sum")}
    data = batches((4, 4))
    new, (old, _) = train(single, data, **sums), fit(data, single, **sums)
    assert_same_model(new.model, old)
    with pytest.raises(ConfigurationError, match="a sum.*losses of its layers"):
        train(mirrored, data, **sums)


@pytest.mark.parametrize(
    ("loss", "parts", "message"),
    [
        (["sum", "sum_over_batch_size"], 1, "all means over the batch, or all sums"),
        (["none"], 1, "all means over the batch, or all sums"),
        ([None], 1, "all means over the batch, or all sums"),
        (["sum"], 2, "a loss that is a mean over the batch, to accumulate gradients"),
        (["mean_with_sample_weight"], 2, "divides by the sum of the weights"),
    ],
)
def test_reduction_that_does_not_go_together_is_refused(single, loss, parts, message):
    losses = [keras.losses.MeanSquaredError(reduction=reduction) for reduction in loss]
    make = two_outputs if len(losses) == 2 else dense
    loss = dict(zip("ab", losses, strict=True)) if len(losses) == 2 else losses[0]
    model = made(single, make, loss=loss, metrics=None)
    with pytest.raises(ConfigurationError, match=message):
        Step(model, single, Options(accumulation=parts))


def test_mean_by_the_weights_is_one_device_s(single, mirrored):
    how = {"loss": keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")}
    data = batches(weighted=True)
    new, (old, _) = train(single, data, **how), fit(data, single, **how)
    assert_same_model(new.model, old)
    with pytest.raises(ConfigurationError, match="divides by the sum of the weights"):
        train(mirrored, data, **how)


# Layers with a state


class Norm(keras.layers.Layer):
    """Batch normalisation, bare: what it normalises by is the batch of the replica."""

    def build(self, shape):
        self.scale = self.add_weight(shape=(2,), initializer="ones", name="scale")
        self.mean = self.add_weight(shape=(2,), initializer="zeros", trainable=False, name="mean")

    def call(self, x, training=False):
        if training:
            self.mean.assign(0.75 * self.mean + 0.25 * keras.ops.mean(x[:, :2], 0))
        return self.scale * x[:, :2]


@pytest.mark.parametrize("parts", [1, 2])
def test_moving_statistics_are_averaged_over_the_images(strategy, parts):
    """An update is affine in the mean of a batch, and so its average is that of the whole."""
    data = batches((7, 3, 1, 2))
    result = train(
        strategy,
        data,
        Options(accumulation=parts),
        make=lambda: keras.Sequential([keras.Input((3,)), Norm()]),
    )
    expected = np.zeros(2)
    for x, _ in data:
        expected = 0.75 * expected + 0.25 * x[:, :2].mean(0)
    np.testing.assert_allclose(result.model.layers[0].mean.numpy(), expected, rtol=1e-12)
    for copy in strategy.experimental_local_results(result.model.layers[0].mean.value):
        np.testing.assert_allclose(copy, expected, rtol=1e-12)


def normalised():
    return keras.Sequential(
        [keras.Input((3,)), keras.layers.BatchNormalization(), keras.layers.Dense(2)]
    )


def test_batch_normalisation_on_one_device_is_keras_s(single):
    data = batches((7, 4, 5))
    new, (old, _) = train(single, data, make=normalised), fit(data, single, make=normalised)
    assert_same_model(new.model, old)
    assert_same_values(new.model.non_trainable_variables, old.non_trainable_variables)


def test_replicas_stay_alike(mirrored):
    result = train(mirrored, batches((7, 4, 5, 1)), make=normalised)
    for variable in result.step.shared_variables():
        first, second = mirrored.experimental_local_results(variable.value)
        np.testing.assert_array_equal(first, second, err_msg=variable.path)


# Fillers


def test_filler_counts_nothing_not_even_if_it_is_no_number(mirrored, single):
    """Replica 0 has an image that is NaN and does not count."""
    (data,) = batches((3,))
    expected = train(single, [data], make=normalised, optimizer=OPTIMIZERS["weight decay"])
    model = made(mirrored, normalised, OPTIMIZERS["weight decay"])
    with mirrored.scope():
        step = Step(model, mirrored, Options())
    step.prepare(next(Feed(mirrored).training(dataset([data]), 0))[0])
    filler = tuple(np.full((1, *part.shape[1:]), math.nan) for part in data)

    def place(real, empty, count):
        return mirrored.experimental_distribute_values_from_function(
            lambda context: tf.constant(empty if context.replica_id_in_sync_group == 0 else real)
        )

    pairs = tuple(place(real, empty, None) for real, empty in zip(data, filler, strict=True))
    counts = place(3, 0, None)
    outcome = step.train([(pairs, counts)], False)
    assert outcome == pytest.approx(expected.outcomes[0], rel=1e-12)
    assert_same_model(model, expected.model)
    assert_same_values(model.non_trainable_variables, expected.model.non_trainable_variables)
    assert results(model) == pytest.approx(results(expected.model), rel=1e-12)
    model.reset_metrics()
    step.evaluate((pairs, counts))
    reference = expected.model.evaluate(*data, return_dict=True, verbose=0)
    assert results(model) == pytest.approx(reference, rel=1e-12)


# Numbers that are none


@pytest.mark.parametrize(("bad", "parts"), [(math.nan, 2), (math.inf, 1)])
def test_step_that_is_not_finite_changes_nothing(strategy, bad, parts):
    data = batches((6, 6, 6))
    data[1][1][5] = bad  # in the last part of the last replica
    options = Options(accumulation=parts, clip_norm=1.0, average=0.5)
    how = {"make": normalised, "optimizer": OPTIMIZERS["weight decay"]}
    states = []

    def watch(model, step, outcome):
        values = [*step.shared_variables(), *model.non_trainable_variables]
        states.append(([variable.numpy() for variable in values], results(model)))

    whole = train(strategy, data, options, watch, **how)
    assert [outcome.finite for outcome in whole.outcomes] == [True, False, True]
    assert whole.outcomes[1].images == 6
    (before, old_logs), (after, logs), _ = states
    for new, old in zip(after, before, strict=True):
        np.testing.assert_array_equal(new, old)
    assert logs == old_logs
    # And training goes on as if it had not been.
    without = train(strategy, [data[0], data[2]], options, **how)
    assert_same_model(whole.model, without.model, 0)
    assert results(whole.model) == results(without.model)


def test_finite_loss_with_a_gradient_that_is_not(strategy):
    class Root(keras.layers.Layer):
        def build(self, shape):
            self.w = self.add_weight(shape=(2,), initializer="zeros")

        def call(self, x):
            return tf.sqrt(tf.abs(self.w)) + 0 * x[:, :2]

    result = train(
        strategy,
        batches((4,)),
        make=lambda: keras.Sequential([keras.Input((3,)), Root()]),
    )
    (outcome,) = result.outcomes
    assert math.isfinite(outcome.loss)
    assert not outcome.finite
    np.testing.assert_array_equal(result.model.trainable_variables[0].numpy(), [0, 0])


# Variables without a gradient


class Unused(keras.layers.Layer):
    def build(self, shape):
        self.used = self.add_weight(shape=(3, 2), initializer="ones")
        self.unused = self.add_weight(shape=(2, 2), initializer="ones", name="unused")

    def call(self, x):
        return x @ self.used


@pytest.mark.filterwarnings("ignore:Gradients do not exist:UserWarning")
def test_variable_without_gradient_is_left_alone(strategy, single):
    def make():
        return keras.Sequential([keras.Input((3,)), Unused()])

    data, optimizer = batches(), OPTIMIZERS["weight decay"]
    new = train(strategy, data, Options(accumulation=2), make=make, optimizer=optimizer)
    old, _ = fit(data, single, make=make, optimizer=optimizer)
    assert_same_model(new.model, old)
    assert new.step.without_gradient == [False, True]
    np.testing.assert_array_equal(new.model.layers[0].unused.numpy(), np.ones((2, 2)))


def test_loss_that_depends_on_nothing_is_refused(strategy):
    def make():
        x = keras.Input((3,))
        return keras.Model(x, keras.ops.stop_gradient(keras.layers.Dense(2)(x)))

    with pytest.raises(ConfigurationError, match="depend on a trainable variable"):
        train(strategy, batches(), make=make)


def test_frozen_layer_is_left_alone(strategy, single):
    def make():
        model = dense()
        model.layers[0].trainable = False
        return model

    data = batches()
    new, (old, _) = train(strategy, data, make=make), fit(data, single, make=make)
    assert_same_model(new.model, old)
    assert_same_values(new.model.non_trainable_variables, old.non_trainable_variables)


# Models that cannot be trained here


def own(name):
    return type("Own", (keras.Sequential,), {name: lambda self, *args: {}})


@pytest.mark.parametrize("name", ["train_step", "test_step"])
def test_step_of_its_own_is_refused(single, name):
    model = own(name)([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    with pytest.raises(ConfigurationError, match=f"without a `{name}` of its own.*Received: Own"):
        Step(model, single, Options())


def test_model_that_is_not_compiled_is_refused(single):
    with pytest.raises(ConfigurationError, match="Expected a compiled model"):
        Step(dense(), single, Options())


def test_loss_of_its_own_is_taken(strategy, single):
    class Own(keras.Sequential):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            loss = super().compute_loss(x, y, y_pred, sample_weight, training)
            return 3 * loss if training else loss

    def make():
        return Own([keras.Input((3,)), keras.layers.Dense(2)])

    data = batches()
    new, (old, logs) = train(strategy, data, make=make), fit(data, single, make=make)
    assert_same_model(new.model, old)
    assert mean_loss(new, data) == pytest.approx(logs["loss"], rel=1e-12)


# Metrics


def test_metrics_and_evaluation_are_exact(strategy, single):
    data = batches((7, 4, 1, 5))
    new = train(strategy, data, Options(accumulation=2), run_eagerly=strategy is single)
    old, logs = fit(data, single)
    assert results(new.model) == pytest.approx(logs, rel=1e-12)
    assert_same_model(new.model, old)
    for count in (4, 1):
        new.model.reset_metrics()
        for part in Feed(strategy).evaluation(dataset(data[:count])):
            new.step.evaluate(part)
        x, y = (np.concatenate(parts) for parts in zip(*data[:count], strict=True))
        expected = old.evaluate(x, y, batch_size=len(x), return_dict=True, verbose=0)
        assert results(new.model) == pytest.approx(expected, rel=1e-12)


def test_evaluation_of_a_sum_is_the_mean_over_the_batches(strategy, single):
    data = batches((4, 3, 2))
    how = {"loss": keras.losses.MeanSquaredError(reduction="sum")}
    result = train(strategy, data[:1], **how)
    result.model.reset_metrics()
    for part in Feed(strategy).evaluation(dataset(data)):
        result.step.evaluate(part)
    sums = [np.sum(np.mean((result.model(x).numpy() - y) ** 2, -1)) for x, y in data]
    assert results(result.model)["loss"] == pytest.approx(np.mean(sums), rel=1e-12)


def test_preparation_makes_the_metrics_and_nothing_else(strategy):
    model = made(strategy, normalised)
    with strategy.scope():
        step = Step(model, strategy, Options())
    before = [variable.numpy() for variable in step.shared_variables()]
    step.prepare(next(Feed(strategy).training(dataset(batches()), 0))[0])
    assert len(model.metrics_variables) == 4
    assert all((variable.numpy() == 0).all() for variable in model.metrics_variables)
    for variable, value in zip(step.shared_variables(), before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_anyone_can_ask_to_stop(strategy):
    result = train(strategy, batches((2,)))
    run = Feed(strategy).training(dataset(batches((2,))), 0)
    assert [result.step.train(next(run), stop).stop for stop in (True, False)] == [True, False]


# Precision


def test_vector_has_the_widest_precision_of_the_weights(single):
    def make():
        return keras.Sequential(
            [
                keras.Input((3,)),
                keras.layers.Dense(2, dtype="float32"),
                keras.layers.Dense(2, dtype=last),
            ]
        )

    for last in ("float32", "float64"):
        assert train(single, batches(), make=make).step.dtype == last


def half(policy, optimizer=None, scale=None, grow=None):
    """A model of half precision, as `Trainer` builds it, with its loss scale."""
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy(policy)

    def make():
        return keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(2, kernel_initializer="ones")]
        )

    def made_optimizer():
        inner = keras.optimizers.SGD(2.0**-6, momentum=0.5)
        if policy != "mixed_float16":
            return inner
        return keras.optimizers.LossScaleOptimizer(
            inner, initial_scale=scale or 2.0**8, dynamic_growth_steps=grow or 100
        )

    return {"make": make, "optimizer": made_optimizer}


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_is_keras_s(strategy, single, policy):
    how = half(policy)
    data = [tuple(part.astype("float32") for part in batch) for batch in batches((4, 4, 4))]
    new, (old, logs) = train(strategy, data, **how), fit(data, single, **how)
    assert all(variable.dtype == "float32" for variable in new.model.trainable_variables)
    # One device rounds in the same places; with two the sums over the images are cut.
    tolerance = 1e-6 if strategy is single else 2e-2
    assert_same_values(new.model.trainable_variables, old.trainable_variables, tolerance)
    assert mean_loss(new, data) == pytest.approx(logs["loss"], rel=tolerance)
    assert all(outcome.finite for outcome in new.outcomes)


def test_loss_scale_grows_and_falls(strategy):
    """It doubles after three steps without an overflow; at 2^15 and more there is one."""
    data = [(np.ones((4, 3), "float32"), np.zeros((4, 2), "float32"))] * 4
    scales = []

    def watch(model, step, outcome):
        optimizer = model.optimizer
        scale = float(optimizer.dynamic_scale.numpy()), int(optimizer.step_counter.numpy())
        scales.append((*scale, outcome.finite, outcome.rescaled))

    train(strategy, data, watch=watch, **half("mixed_float16", scale=2.0**12, grow=3))
    factors = [(1, 1), (1, 2), (2, 0), (2, 1)]
    assert scales == [(factor * 2.0**12, count, True, False) for factor, count in factors]
    scales.clear()
    result = train(strategy, data[:2], watch=watch, **half("mixed_float16", scale=2.0**20))
    assert scales == [(2.0**19, 0, False, True), (2.0**18, 0, False, True)]
    for variable, value in zip(result.model.trainable_variables, result.start, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert int(result.step.optimizer.iterations.numpy()) == 0


def test_number_that_is_none_at_a_scale_of_one_is_no_overflow(strategy):
    data = [(np.full((4, 3), math.nan, "float32"), np.zeros((4, 2), "float32"))] * 2
    result = train(strategy, data, **half("mixed_float16", scale=2.0))
    assert [o.rescaled for o in result.outcomes] == [True, False]
    assert float(result.model.optimizer.dynamic_scale.numpy()) == 1.0

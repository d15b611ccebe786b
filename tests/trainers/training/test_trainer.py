"""A training that is stopped anywhere and resumed is the training that was never stopped."""

import json
import math
import os
import shutil
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk
from trainers.process.errors import ConfigurationError, Interrupted, NotFinite, StorageError
from trainers.process.heartbeat import HEARTBEAT
from trainers.training import Options, Trainer

EPOCHS, STEPS = 3, 2
OPTIONS = Options(clip_norm=1.0, average=0.5)


class Stop(BaseException):
    """What a test stops a run with; no handler of errors takes it."""


class At(keras.callbacks.Callback):
    """Does something at the end of a batch of an epoch, or of the epoch itself; counts batches."""

    def __init__(self, action=None, epoch=0, batch=None):
        super().__init__()
        self.action, self.place, self.batches = action, (epoch, batch), 0

    def get_state(self):
        return {}

    def set_state(self, state):
        pass

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        self.batches += 1
        self.act(self.epoch, batch)

    def on_epoch_end(self, epoch, logs=None):
        self.act(epoch, None)

    def act(self, *place):
        if self.action is not None and place == self.place:
            self.action()


def stop():
    raise Stop


def noisy_and_truth(count, seed):
    rng = np.random.default_rng(seed)
    truth = rng.uniform(size=(count, 5, 8, 8, 1)).astype(np.float32)
    return truth + 0.1 * rng.normal(size=truth.shape).astype(np.float32), truth


BATCHES, VALIDATION = noisy_and_truth(EPOCHS * STEPS, 1), noisy_and_truth(1, 2)


def batches(context, start, arrays=BATCHES):
    """The batches from a step on."""
    return tf.data.Dataset.from_tensor_slices(tuple(array[start:] for array in arrays))


def validation(context):
    return tf.data.Dataset.from_tensor_slices(VALIDATION)


def convolutional():
    """Dropout and batch normalisation have states of their own: seeds and moving means."""
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            layers.Conv2D(1, 3, padding="same", use_bias=False),
            layers.BatchNormalization(scale=False),
            layers.Dropout(0.3, seed=5),
        ]
    )
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 1, 0.8)
    # Tracing would take longer than these few steps.
    net.compile(
        keras.optimizers.Adam(schedule), "mse", metrics=[dk.metrics.PSNR()], run_eagerly=True
    )
    return net


def variational():
    prior = dk.priors.FieldsOfExperts(filters=2, kernel_size=3, padding="circular")
    layer = dk.layers.Variational(dk.operators.Identity(), prior, name="layer")
    net = keras.Sequential([keras.Input((None, None, 1)), layer])
    net.compile(keras.optimizers.Adam(0.05), "mse", metrics=[dk.metrics.PSNR()])
    return net


def made(build, directory, options=OPTIONS, seed=3, **arguments):
    keras.utils.set_random_seed(seed)
    return Trainer(build, directory, options=options, **arguments)


def train(trainer, epochs=EPOCHS, data=batches, callbacks=()):
    return trainer.fit(
        data,
        epochs=epochs,
        steps_per_epoch=STEPS,
        validation=validation,
        callbacks=callbacks,
        verbose=0,
    )


def values(trainer):
    model = trainer.model
    return [variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]


def without_time(rows):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def logged(directory):
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return without_time([json.loads(line) for line in lines])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """For a function that builds a model: what a run that is never stopped leaves behind."""
    runs = {}

    def run(build):
        if build not in runs:
            directory = tmp_path_factory.mktemp(build.__name__)
            trainer = made(build, directory)
            history = train(trainer)
            runs[build] = directory, without_time(history), logged(directory), values(trainer)
        return runs[build]

    return run


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of the folder of a finished run, to be spoilt."""
    shutil.copytree(whole(convolutional)[0], tmp_path / "run")
    return tmp_path / "run"


def assert_same_as_whole(whole, build, directory):
    """A fresh model continues in the folder, and all comes out bit for bit as without a stop."""
    _, history, log, expected = whole(build)
    # What the checkpoint does not bring back would be another with this seed.
    trainer = made(build, directory, seed=99)
    assert without_time(train(trainer)) == history
    assert logged(directory) == log
    for new, old in zip(values(trainer), expected, strict=True):
        np.testing.assert_array_equal(new, old)


# A stop


@pytest.mark.parametrize(
    ("build", "epoch", "batch"),
    [
        (convolutional, 0, 0),
        pytest.param(convolutional, 0, None, marks=pytest.mark.slow),  # as by signals, below
        (convolutional, 1, 1),
        pytest.param(convolutional, 2, 0, marks=pytest.mark.slow),  # once more in an epoch
        pytest.param(variational, 1, 0, marks=pytest.mark.slow),
    ],
)
def test_resumed_run_equals_uninterrupted_run(whole, tmp_path, build, epoch, batch):
    with pytest.raises(Stop):
        train(made(build, tmp_path), callbacks=[At(stop, epoch, batch)])
    assert_same_as_whole(whole, build, tmp_path)


@pytest.mark.slow
def test_run_stopped_again_and_again(whole, tmp_path):
    for epoch, batch in ((0, 0), (0, None), (1, 0), (1, None), (2, 0)):
        with pytest.raises(Stop):
            train(made(convolutional, tmp_path), callbacks=[At(stop, epoch, batch)])
    assert_same_as_whole(whole, convolutional, tmp_path)


def test_the_same_trainer_goes_on_from_the_checkpoint_and_not_from_its_weights(whole, tmp_path):
    trainer = made(convolutional, tmp_path)
    with pytest.raises(Stop):
        train(trainer, callbacks=[At(stop, 1, 0)])
    assert without_time(train(trainer)) == whole(convolutional)[1]


@pytest.mark.parametrize("which", ["best", "latest"])
def test_stop_before_a_checkpoint_is_written(whole, tmp_path, monkeypatch, which):
    from trainers.training.checkpoints import Checkpoints

    save = Checkpoints.save

    def failing(checkpoints, step, host, name="latest"):
        if (step, name) == (2 * STEPS, which):
            raise Stop
        return save(checkpoints, step, host, name)

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", failing)
        with pytest.raises(Stop):
            train(made(convolutional, tmp_path))
    assert_same_as_whole(whole, convolutional, tmp_path)


def test_finished_run_does_nothing_and_gives_what_it_gave(whole, finished):
    _, history, _, expected = whole(convolutional)
    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    trainer = made(convolutional, finished, seed=99)
    counter = At()
    assert without_time(train(trainer, callbacks=[counter])) == history
    assert counter.batches == 0
    for new, old in zip(values(trainer), expected, strict=True):
        np.testing.assert_array_equal(new, old)
    assert before == {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}


def test_more_epochs_continue_a_finished_run(whole, tmp_path):
    train(made(convolutional, tmp_path), epochs=1)
    assert_same_as_whole(whole, convolutional, tmp_path)


def test_batches_are_asked_for_from_the_step_that_follows(tmp_path):
    asked = []

    def noted(context, start):
        asked.append(start)
        return batches(context, start)

    with pytest.raises(Stop):
        train(made(convolutional, tmp_path), data=noted, callbacks=[At(stop, 1, 0)])
    train(made(convolutional, tmp_path), epochs=2, data=noted)
    # One at 0 each time shows the metrics what a batch is like.
    assert asked == [0, 0, 0, STEPS]


def test_a_checkpoint_after_some_steps(whole, tmp_path):
    options = Options(**{**vars(OPTIONS), "save_every": 1})
    with pytest.raises(Stop):
        train(made(convolutional, tmp_path, options), callbacks=[At(stop, 1, 1)])
    trainer, counter = made(convolutional, tmp_path, options), At()
    assert without_time(train(trainer, callbacks=[counter])) == whole(convolutional)[1]
    # The stop came after the step's end, and before the epoch's: one step of it was kept.
    assert counter.batches == STEPS + 1
    assert logged(tmp_path) == whole(convolutional)[2]


# Signals


@pytest.fixture
def handlers():
    """Handlers of the test's own, which must be in place again after each `fit`."""

    def own(signum, frame):
        raise AssertionError("the signal came to the handler from before")

    previous = {s: signal.signal(s, own) for s in (signal.SIGINT, signal.SIGTERM)}
    yield own
    for signum, handler in previous.items():
        signal.signal(signum, handler)


def send(signum):
    return lambda: os.kill(os.getpid(), signum)


@pytest.mark.parametrize(
    "signum", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM]
)
@pytest.mark.parametrize(
    ("epoch", "batch", "saved"),
    [pytest.param(1, 0, 4, marks=pytest.mark.slow), (1, None, 4), (0, 0, 2)],
)
def test_signal_stops_a_run_at_the_end_of_a_step_and_nothing_is_lost(
    whole, tmp_path, handlers, signum, epoch, batch, saved
):
    options = Options(**{**vars(OPTIONS), "save_every": None})
    trainer = made(convolutional, tmp_path, options)
    # The signal is seen in the step that follows; the last of an epoch ends with the epoch.
    with pytest.raises(Interrupted, match=signum.name) as caught:
        train(trainer, callbacks=[At(send(signum), epoch, batch)])
    assert caught.value.signum == signum
    assert trainer.position.step == saved
    assert {signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)} == {handlers}
    assert_same_as_whole(whole, convolutional, tmp_path)


def test_signal_within_an_epoch_saves_there(whole, tmp_path, handlers):
    options = Options(**{**vars(OPTIONS), "accumulation": 2})

    def fit(trainer, callbacks=()):
        arguments = {"epochs": 1, "steps_per_epoch": EPOCHS * STEPS, "callbacks": callbacks}
        return trainer.fit(batches, validation=validation, verbose=0, **arguments)

    expected = without_time(fit(made(convolutional, tmp_path / "whole", options)))
    trainer = made(convolutional, tmp_path / "stopped", options)
    with pytest.raises(Interrupted):
        fit(trainer, [At(send(signal.SIGTERM), 0, 1)])
    assert (trainer.position.step, trainer.position.batch) == (3, 3)
    trainer, counter = made(convolutional, tmp_path / "stopped", options, seed=99), At()
    assert without_time(fit(trainer, [counter])) == expected
    assert counter.batches == EPOCHS * STEPS - 3
    assert logged(tmp_path / "stopped") == logged(tmp_path / "whole")


# Numbers that are none


def spoilt(*steps):
    truth = BATCHES[1].copy()
    for step in steps:
        truth[step, 3] = math.nan
    return lambda context, start: batches(context, start, (BATCHES[0], truth))


def test_step_without_a_finite_gradient_is_left_out_and_said(tmp_path, capfd):
    trainer = made(convolutional, tmp_path)
    kept = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: kept.append(values(trainer))
    )
    history = train(trainer, epochs=1, data=spoilt(1), callbacks=[look])
    random = [path.endswith("seed_generator_state") for path in paths(trainer)]
    for before, after, seed in zip(kept[0], kept[1], random, strict=True):
        if not seed:  # random numbers are not drawn twice
            np.testing.assert_array_equal(before, after)
    assert history[0]["skipped"] == 1
    assert np.isfinite(history[0]["loss"])
    rows = logged(tmp_path)
    assert "skipped" not in rows[0]
    assert rows[1]["skipped"] is True
    assert rows[1]["loss"] is None
    assert (
        "The gradient of step 2 is not finite. Not finite alone: image 3 of the global batch ("
        in (capfd.readouterr().out)
    )


def paths(trainer):
    model = trainer.model
    return [variable.path for variable in (*model.variables, *model.optimizer.variables)]


@pytest.mark.parametrize(
    "build", [convolutional, pytest.param(variational, marks=pytest.mark.slow)]
)
def test_too_many_of_them_end_the_training_and_the_message_names_image_and_residual(
    tmp_path, build
):
    trainer = made(build, tmp_path, Options(max_skipped=1))
    data = spoilt(2, 3)
    data.describe = lambda step, position: f"photo {10 * step + position}"
    with pytest.raises(NotFinite) as caught:
        train(trainer, data=data)
    message = str(caught.value)
    assert "step 4" in message
    assert "photo 33, image 3 of the global batch (loss nan, gradient norm" in message
    if build is variational:
        assert "layer_forward_residual" in message
    assert "2 steps were not, and max_skipped=1" in message
    assert [row["step"] for row in logged(tmp_path)] == [1, 2, 2, 3, 4]
    assert made(build, tmp_path, Options(max_skipped=1)).fit(
        batches, epochs=1, steps_per_epoch=STEPS, verbose=0
    )


def test_weight_that_is_no_number_is_not_kept(whole, tmp_path):
    trainer = made(convolutional, tmp_path)
    kernel = trainer.model.layers[0].kernel
    spoil = At(lambda: kernel.assign(kernel * math.nan), 1, STEPS - 1)
    message = rf"The weight '.*kernel' became NaN or infinite by step {2 * STEPS}\..*rate"
    with pytest.raises(NotFinite, match=message):
        train(trainer, callbacks=[spoil])
    assert_same_as_whole(whole, convolutional, tmp_path)


# Arguments and damage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": 0}, "integers >= 1.*epochs=0"),
        ({"steps_per_epoch": 0}, "integers >= 1.*steps_per_epoch=0"),
        ({"steps_per_epoch": None}, "length of the data is not known"),
        ({"callbacks": [keras.callbacks.BackupAndRestore("x")]}, "BackupAndRestore.*by itself"),
    ],
)
def test_wrong_arguments_are_refused_before_any_work(tmp_path, arguments, message):
    trainer = made(convolutional, tmp_path / "new")
    with pytest.raises(ConfigurationError, match=message):
        trainer.fit(batches, **{"epochs": 1, "steps_per_epoch": 1, **arguments})
    assert not (tmp_path / "new").exists()


def test_build_that_returns_no_model_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="to return a Keras model. Received: None"):
        Trainer(lambda: None, tmp_path)


def test_data_that_are_no_dataset_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="tf.data.Dataset, or a function"):
        train(made(convolutional, tmp_path), data=lambda context, start: BATCHES)


def test_workdir_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="Cannot write to the working directory"):
        train(made(convolutional, tmp_path / "file"))


def checkpoint_files(directory, number):
    return sorted((directory / "checkpoints").glob(f"ckpt-{number}.*"))


@pytest.mark.parametrize("kind", ["data", "index"])
def test_damaged_checkpoint_falls_back_on_the_one_before(whole, finished, kind):
    (path,) = (p for p in checkpoint_files(finished, EPOCHS * STEPS) if f".{kind}" in p.name)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert_same_as_whole(whole, convolutional, finished)


def test_checkpoint_of_another_model_is_refused_and_stays(finished):
    def another():
        net = keras.Sequential([keras.Input((None, None, 1)), keras.layers.Conv2D(1, 1)])
        net.compile("adam", "mse", metrics=[dk.metrics.PSNR()], run_eagerly=True)
        return net

    before = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file()}
    with pytest.raises(ConfigurationError, match="another model"):
        train(made(another, finished))
    assert before == {p: p.read_bytes() for p in finished.rglob("*") if p.is_file()}


def test_checkpoint_of_another_configuration_is_refused(tmp_path):
    train(made(convolutional, tmp_path, config={"noise": {"level": 0.1}}), epochs=1)
    with pytest.raises(ConfigurationError, match="noise.level was 0.1, is 0.2"):
        train(made(convolutional, tmp_path, config={"noise": {"level": 0.2}}))


def test_other_steps_per_epoch_are_refused(finished):
    with pytest.raises(ConfigurationError, match=f"steps_per_epoch={STEPS}.*Received: 3"):
        made(convolutional, finished).fit(batches, epochs=4, steps_per_epoch=3)


# Callbacks


class Counting(keras.callbacks.Callback):
    """Remembers in plain attributes, as users' callbacks do."""

    def __init__(self):
        super().__init__()
        self.epochs, self.seen = 0, []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(logs["loss"])

    def on_epoch_end(self, epoch, logs=None):
        self.epochs += 1


def test_callbacks_remember_across_a_stop(tmp_path):
    def callbacks():
        return [
            Counting(),
            keras.callbacks.ReduceLROnPlateau("val_loss", patience=1, min_delta=1.0, factor=0.5),
            keras.callbacks.EarlyStopping("val_loss", patience=2, min_delta=1.0),
        ]

    def adam():
        net = convolutional()
        net.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=True)
        return net

    straight, resumed = callbacks(), callbacks()
    expected = train(made(adam, tmp_path / "whole"), callbacks=straight)
    with pytest.raises(Stop):
        train(made(adam, tmp_path / "stopped"), callbacks=[*callbacks(), At(stop, 1, None)])
    again = made(adam, tmp_path / "stopped", seed=99)
    assert without_time(train(again, callbacks=resumed)) == without_time(expected)
    for one, other in zip(straight, resumed, strict=True):
        for name in ("epochs", "seen", "wait", "best", "cooldown_counter", "stopped_epoch"):
            assert getattr(one, name, None) == getattr(other, name, None), name
    assert straight[0].epochs == EPOCHS
    assert again.model.optimizer.learning_rate.numpy() == np.float32(0.0025)


def test_a_worker_without_the_callbacks_of_the_chief_remembers_too(tmp_path):
    class Writing(keras.callbacks.Callback):
        chief_only = True

    first, second = Counting(), Counting()
    train(made(convolutional, tmp_path), epochs=1, callbacks=[Writing(), first])
    trainer = made(convolutional, tmp_path)
    # As on a worker that is not the chief; what it was not given must not be taken for its own.
    train(trainer, epochs=2, callbacks=[second, Counting()])
    assert second.seen[:STEPS] == first.seen
    assert second.epochs == 2


def test_a_stop_within_an_epoch_at_a_step_that_was_kept_is_for_good(tmp_path):
    """The checkpoint of the step is there already when the epoch ends; it must be written again."""
    options = Options(save_every=1)

    def ending(trainer):
        def end():
            trainer.model.stop_training = True

        return At(end, 1, 0)

    trainer = made(convolutional, tmp_path, options)
    history = train(trainer, callbacks=[ending(trainer)])
    assert [row["step"] for row in history] == [STEPS, STEPS + 1]
    trainer, counter = made(convolutional, tmp_path, options), At()
    assert train(trainer, callbacks=[counter]) == history
    assert counter.batches == 0


def test_early_stopping_ends_the_run_for_good(tmp_path):
    def early():
        return keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=1.0)

    history = train(made(convolutional, tmp_path), callbacks=[early()])
    assert len(history) == 2
    counter = At()
    assert train(made(convolutional, tmp_path), callbacks=[early(), counter]) == history
    assert counter.batches == 0


# The mathematics


def test_it_is_what_keras_fit_computes(tmp_path):
    def build():
        net = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(2, 3, use_bias=False),
                keras.layers.BatchNormalization(),
            ]
        )
        schedule = keras.optimizers.schedules.CosineDecay(0.01, 6)
        net.compile(
            keras.optimizers.AdamW(schedule, global_clipnorm=0.5),
            "mse",
            metrics=["mae"],
            run_eagerly=True,
        )
        return net

    x = BATCHES[0].reshape(-1, 8, 8, 1).astype(np.float64)
    data = tf.data.Dataset.from_tensor_slices((x, np.repeat(x[:, :6, :6], 2, -1))).batch(5)
    trainer = made(build, tmp_path, Options(precision="float64"))
    weights = trainer.model.get_weights()
    history = trainer.fit(data, epochs=2, validation=data, verbose=0)
    keras.config.set_dtype_policy("float64")
    net = build()
    net.set_weights(weights)
    expected = net.fit(data, epochs=2, validation_data=data, shuffle=False, verbose=0).history
    for new, old in zip(trainer.model.get_weights(), net.get_weights(), strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-10, atol=1e-14)
    for name, column in expected.items():
        # Metrics are in single precision.
        np.testing.assert_allclose([row[name] for row in history], column, rtol=1e-6)


def test_restore_gives_the_averaged_weights_that_validation_saw(whole, finished):
    _, history, _, expected = whole(convolutional)
    best = min(history, key=lambda row: row["val_loss"])
    for which, row in (("latest", history[-1]), ("best", best)):
        trainer = made(convolutional, finished, seed=99)
        trainer.restore(which)
        assert trainer.position.epoch == row["epoch"]
        results = trainer.evaluate(validation)
        assert results["loss"] == row["val_loss"]
        assert results["psnr"] == row["val_psnr"]


def test_restore_without_a_checkpoint(tmp_path):
    with pytest.raises(StorageError, match="no best checkpoint in"):
        made(convolutional, tmp_path).restore("best")


def test_validation_images_of_different_sizes(tmp_path):
    rng = np.random.default_rng(0)
    images = [rng.uniform(size=(1, n, n + 2, 1)).astype(np.float32) for n in (8, 12, 9)]
    spec = tf.TensorSpec((None, None, None, 1))

    def sizes(context):
        pairs = ((image, image) for image in images)
        return tf.data.Dataset.from_generator(lambda: pairs, output_signature=(spec, spec))

    trainer = made(convolutional, tmp_path)
    losses = [np.mean((trainer.model(image) - image) ** 2) for image in images]
    assert trainer.evaluate(sizes)["loss"] == pytest.approx(np.mean(losses), rel=1e-6)


def test_heartbeat_after_every_step(tmp_path, monkeypatch):
    path = tmp_path / "beat"
    monkeypatch.setenv(HEARTBEAT, str(path))
    seen = []

    def look():
        seen.append(path.exists())
        os.remove(path)

    each = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: look())
    train(made(convolutional, tmp_path / "run"), epochs=1, callbacks=[each])
    assert seen == [True] * STEPS

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
from trainers import trainer
from trainers.models import compiled, model
from trainers.trainer import Interrupted, fit, interruptible, save_weights, write_json

STEPS, SIZE = 6, 2  # three records


class Stop(BaseException):
    """What a test stops a run with; no handler of errors takes it."""


class At(keras.callbacks.Callback):
    """Does something at the end of a batch of an epoch, or of the epoch itself; counts batches."""

    def __init__(self, action=None, epoch=0, batch=None):
        super().__init__()
        self.action, self.place, self.batches = action, (epoch, batch), 0

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
    truth = rng.uniform(size=(count, 3, 8, 8, 1)).astype(np.float32)
    return truth + 0.1 * rng.normal(size=truth.shape).astype(np.float32), truth


BATCHES, VALIDATION = noisy_and_truth(STEPS, 1), noisy_and_truth(1, 2)


def batches(start, arrays=BATCHES):
    """The batches from a step on."""
    return tf.data.Dataset.from_tensor_slices(tuple(array[start:] for array in arrays))


def convolutional():
    """Dropout and batch normalisation have states of their own: seeds and moving means."""
    layers = keras.layers
    net = keras.Sequential(
        [
            keras.Input((None, None, 1)),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.3, seed=5),
            layers.Conv2D(1, 3, padding="same"),
        ]
    )
    net = compiled(net, 0.01, STEPS)
    net.run_eagerly = True  # tracing would take longer than these few steps
    return net


def variational():
    prior = dk.priors.FieldsOfExperts(filters=3, kernel_size=3)
    layer = dk.layers.Variational(dk.operators.Identity(), prior, name="layer")
    return compiled(model(layer, 1), 0.05, STEPS)


def made(build):
    keras.utils.set_random_seed(3)
    return build()


def train(net, directory, steps=STEPS, size=SIZE, make_batches=batches, callback=None):
    return fit(
        net,
        make_batches,
        steps=steps,
        directory=directory,
        steps_per_record=size,
        validation_data=batches(0, VALIDATION),
        callbacks=() if callback is None else (callback,),
    )


def values(net):
    return [variable.numpy() for variable in (*net.variables, *net.optimizer.variables)]


def without_time(history):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in history]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """For a function that builds a model: folder, history and values of a run never stopped."""
    runs = {}

    def run(build):
        if build not in runs:
            directory = tmp_path_factory.mktemp(build.__name__)
            net = made(build)
            history = train(net, directory)
            runs[build] = directory, without_time(history), values(net)
        return runs[build]

    return run


@pytest.fixture
def finished(whole, tmp_path):
    """A copy of the folder of a finished run, to be spoilt."""
    shutil.copytree(whole(convolutional)[0], tmp_path / "run")
    return tmp_path / "run"


def assert_same_as_whole(whole, build, directory):
    """A fresh model continues in the folder, and all comes out bit for bit as without a stop."""
    _, history, expected = whole(build)
    keras.utils.set_random_seed(99)  # what the checkpoint does not bring back would be another
    net = build()
    resumed = train(net, directory)
    assert without_time(resumed) == history
    assert without_time(json.loads((directory / "history.json").read_text())) == history
    for new, old in zip(values(net), expected, strict=True):
        np.testing.assert_array_equal(new, old)


# A stop


@pytest.mark.parametrize(
    ("build", "epoch", "batch"),
    [
        (convolutional, 0, None),
        (convolutional, 1, 0),
        (convolutional, 1, 1),
        (convolutional, 2, 0),
        (variational, 1, 0),
    ],
)
def test_resumed_run_equals_uninterrupted_run(whole, tmp_path, build, epoch, batch):
    with pytest.raises(Stop):
        train(made(build), tmp_path, callback=At(stop, epoch, batch))
    assert_same_as_whole(whole, build, tmp_path)


def test_run_stopped_again_and_again(whole, tmp_path):
    for epoch, batch in ((0, None), (1, 0), (1, None), (2, 0)):
        with pytest.raises(Stop):
            train(made(convolutional), tmp_path, callback=At(stop, epoch, batch))
    assert_same_as_whole(whole, convolutional, tmp_path)


def test_run_stopped_before_its_first_record_starts_anew(whole, tmp_path):
    with pytest.raises(Stop):
        train(made(convolutional), tmp_path, callback=At(stop, 0, 0))
    net = made(convolutional)
    assert without_time(train(net, tmp_path)) == whole(convolutional)[1]


def test_stop_between_history_and_checkpoint(whole, tmp_path, monkeypatch):
    save = tf.train.CheckpointManager.save

    def failing(manager, checkpoint_number):
        if checkpoint_number == 2:
            raise Stop
        return save(manager, checkpoint_number)

    with monkeypatch.context() as patch:
        patch.setattr(tf.train.CheckpointManager, "save", failing)
        with pytest.raises(Stop):
            train(made(convolutional), tmp_path)
    assert len(json.loads((tmp_path / "history.json").read_text())) == 2
    assert_same_as_whole(whole, convolutional, tmp_path)


def test_finished_run_does_nothing_and_gives_what_it_gave(whole, finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}

    def no_batches(start):
        raise AssertionError("a finished run asked for batches")

    net = convolutional()
    history = train(net, finished, make_batches=no_batches)
    assert without_time(history) == whole(convolutional)[1]
    for new, old in zip(values(net), whole(convolutional)[2], strict=True):
        np.testing.assert_array_equal(new, old)
    assert before == {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file()}


def test_more_steps_continue_a_finished_run(whole, tmp_path):
    train(made(convolutional), tmp_path, steps=SIZE)
    assert_same_as_whole(whole, convolutional, tmp_path)


def test_batches_are_asked_for_from_the_step_that_follows(tmp_path):
    asked = []

    def noted(start):
        asked.append(start)
        return batches(start)

    with pytest.raises(Stop):
        train(made(convolutional), tmp_path, make_batches=noted, callback=At(stop, 1, 0))
    train(made(convolutional), tmp_path, make_batches=noted)
    assert asked == [0, SIZE]


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


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("epoch", "batch", "ran"), [(1, 0, 1), (1, None, SIZE), (0, 0, 1)])
def test_signal_stops_a_run_at_the_end_of_a_step(
    whole, tmp_path, handlers, signum, epoch, batch, ran
):
    # The trainer's callback comes before those of a caller, so it sees the signal a call later.
    last = At(send(signum), epoch, batch)
    with pytest.raises(Interrupted, match=signum.name) as caught:
        train(made(convolutional), tmp_path, callback=last)
    assert caught.value.signum == signum
    extra = 0 if batch is not None and batch == SIZE - 1 else 1
    assert last.batches <= epoch * SIZE + ran + extra
    assert {signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)} == {handlers}
    records = len(json.loads((tmp_path / "history.json").read_text())) if epoch else 0
    assert records == epoch + (batch is None)
    if records:
        assert_same_as_whole(whole, convolutional, tmp_path)


def test_signal_during_validation_keeps_the_record(whole, tmp_path, handlers):
    class InValidation(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted):
        train(made(convolutional), tmp_path, callback=InValidation())
    assert len(json.loads((tmp_path / "history.json").read_text())) == 1
    assert_same_as_whole(whole, convolutional, tmp_path)


@pytest.mark.parametrize("outcome", ["returns", "raises"])
def test_handlers_are_restored(tmp_path, handlers, outcome):
    if outcome == "returns":
        train(made(convolutional), tmp_path, steps=SIZE)
    else:
        with pytest.raises(Stop):
            train(made(convolutional), tmp_path, callback=At(stop, 0, 0))
    assert {signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)} == {handlers}


def test_interruptible_waits_for_a_check_but_not_twice(handlers):
    with interruptible() as check:
        check()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="SIGTERM"):
            check()
        with pytest.raises(Interrupted, match="SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)


def test_interruptible_at_once_and_nested(handlers):
    with interruptible(at_once=True):
        with interruptible() as check:
            os.kill(os.getpid(), signal.SIGINT)
            with pytest.raises(Interrupted):
                check()
        with pytest.raises(Interrupted, match="SIGINT"):
            os.kill(os.getpid(), signal.SIGINT)


def test_handling_of_errors_does_not_take_an_interruption():
    assert not issubclass(Interrupted, Exception)


# Numbers that are none


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_loss_that_is_no_number_stops_and_keeps_the_last_record(whole, tmp_path, bad):
    truth = BATCHES[1].copy()
    truth[SIZE + 1] = bad
    message = rf"The loss became {bad} in step {SIZE + 2}\. .*last record is kept.*learning rate"
    with pytest.raises(FloatingPointError, match=message):
        train(
            made(convolutional),
            tmp_path,
            make_batches=lambda step: batches(step, (BATCHES[0], truth)),
        )
    assert len(json.loads((tmp_path / "history.json").read_text())) == 1
    assert_same_as_whole(whole, convolutional, tmp_path)


def test_weight_that_is_no_number_is_not_kept(whole, tmp_path):
    """The last update of a record spoils the weights after the last loss of it was seen."""
    net = made(convolutional)
    kernel = net.layers[0].kernel

    class Spoil(keras.callbacks.Callback):
        def on_test_begin(self, logs=None):
            if net.optimizer.iterations == 2 * SIZE:
                kernel.assign(kernel * math.nan)

    message = rf"The weight '.*kernel' became NaN or infinite in step {2 * SIZE}\."
    with pytest.raises(FloatingPointError, match=message):
        train(net, tmp_path, callback=Spoil())
    assert len(json.loads((tmp_path / "history.json").read_text())) == 1
    assert_same_as_whole(whole, convolutional, tmp_path)


# Arguments and damage


@pytest.mark.parametrize("steps", [0, -2, 1, 7])
def test_steps_that_are_no_multiple_are_refused_before_any_work(tmp_path, steps):
    with pytest.raises(
        ValueError, match=f"multiple of `steps_per_record`.*steps={steps}, .*={SIZE}"
    ):
        train(made(convolutional), tmp_path / "new", steps=steps)
    assert not (tmp_path / "new").exists()


def checkpoint_files(directory, number):
    return sorted((directory / "checkpoints").glob(f"ckpt-{number}.*"))


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damage", [halve, os.remove, lambda path: path.write_bytes(b"")])
@pytest.mark.parametrize("kind", ["data", "index"])
def test_damaged_checkpoint_falls_back_on_the_one_before(whole, finished, damage, kind):
    (path,) = (path for path in checkpoint_files(finished, 3) if f".{kind}" in path.name)
    damage(path)
    assert_same_as_whole(whole, convolutional, finished)


def test_no_checkpoint_that_can_be_read_is_an_error_that_says_what_to_do(finished):
    for path in (*checkpoint_files(finished, 2), *checkpoint_files(finished, 3)):
        halve(path)
    with pytest.raises(OSError, match=f"damaged.*Remove '{finished}' to train anew.*ckpt-3"):
        train(made(convolutional), finished)


def test_lost_list_of_checkpoints_starts_anew(whole, finished):
    (finished / "checkpoints" / "checkpoint").write_text("nonsense {")
    net = made(convolutional)
    assert without_time(train(net, finished)) == whole(convolutional)[1]


def test_checkpoint_of_another_model_is_refused(finished):
    with pytest.raises(OSError, match="another model"):
        train(made(variational), finished)


@pytest.mark.parametrize("text", ["", "[{", "[]", "{}", "[1, 2, 3]", None])
def test_damaged_history_is_refused(finished, text):
    path = finished / "history.json"
    if text is None:
        path.unlink()
    else:
        path.write_text(text)
    with pytest.raises(OSError, match=r"history\.json' to have a row for each of the 3 records"):
        train(made(convolutional), finished)


def test_other_records_than_before_are_refused(finished):
    with pytest.raises(OSError, match="`steps_per_record` was another one"):
        train(made(convolutional), finished, size=3)


# What is written


def test_history_holds_the_logs_and_is_valid_at_all_times(tmp_path):
    lengths = []

    class Read(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            path = tmp_path / "history.json"
            lengths.append(len(json.loads(path.read_text())) if path.exists() else 0)

    history = train(made(variational), tmp_path, callback=Read())
    assert lengths == [0] * SIZE + [1] * SIZE + [2] * SIZE
    assert [row["step"] for row in history] == [SIZE, 2 * SIZE, 3 * SIZE]
    for row in history:
        assert {"loss", "psnr", "val_loss", "val_psnr"} <= set(row)
        assert row["seconds"] > 0
        # Nothing is differentiated in validation: no number, which JSON calls null.
        assert row["val_layer_backward_steps"] is None
        assert row["layer_backward_steps"] > 0
    assert json.loads((tmp_path / "history.json").read_text()) == history


def test_loss_of_a_record_is_the_mean_over_its_steps(tmp_path):
    """An optimizer that does not move: each loss can be computed afterwards."""
    net = made(variational)
    net.compile(keras.optimizers.SGD(0.0), "mse")
    history = train(net, tmp_path, steps=4, size=2)
    losses = [float(tf.reduce_mean((net(y) - truth) ** 2)) for y, truth in batches(0).take(4)]
    expected = [np.mean(losses[:2]), np.mean(losses[2:])]
    np.testing.assert_allclose([row["loss"] for row in history], expected, rtol=1e-5)


def test_two_checkpoints_are_kept(whole):
    files = [path.name for path in (whole(convolutional)[0] / "checkpoints").glob("*.index")]
    assert sorted(files) == ["ckpt-2.index", "ckpt-3.index"]


def test_write_json(tmp_path):
    path = tmp_path / "a.json"
    content = {
        "nan": math.nan,
        "list": [np.float32(0.5), -math.inf, (1, np.int64(2))],
        "array scalar": np.float64("nan"),
        3: {"flag": np.bool_(True), "none": None, "text": "é"},
    }
    write_json(path, content)
    assert json.loads(path.read_text("utf-8")) == {
        "nan": None,
        "list": [0.5, None, [1, 2]],
        "array scalar": None,
        "3": {"flag": True, "none": None, "text": "é"},
    }
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("failure", ["content", "disk", "rename"])
def test_write_json_leaves_the_old_file_if_it_fails(tmp_path, monkeypatch, failure):
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def half(self, text, *args, **kwargs):
        with open(self, "w") as file:
            file.write(text[:3])
        raise OSError("No space left on device")

    def broken(*args):
        raise OSError("killed")

    if failure == "disk":
        monkeypatch.setattr(type(path), "write_text", half)
    if failure == "rename":
        monkeypatch.setattr(trainer.os, "replace", broken)
    with pytest.raises((OSError, TypeError)):
        write_json(path, {"new": object() if failure == "content" else 2})
    assert json.loads(path.read_text("utf-8")) == {"old": 1}


def test_save_weights_round_trip_and_old_file_kept(tmp_path, monkeypatch):
    path = tmp_path / "final.weights.h5"
    net = made(convolutional)
    save_weights(net, path)
    assert os.listdir(tmp_path) == [path.name]
    keras.utils.set_random_seed(99)
    other = convolutional()
    other.load_weights(path)
    for new, old in zip(other.get_weights(), net.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)

    def half(filepath):
        with open(filepath, "wb") as file:
            file.write(b"half")
        raise OSError("No space left on device")

    content = path.read_bytes()
    monkeypatch.setattr(net, "save_weights", half)
    with pytest.raises(OSError, match="No space"):
        save_weights(net, path)
    assert path.read_bytes() == content

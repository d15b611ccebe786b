"""The entry that says which epoch is the best: it is there, and its direction is its metric's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk
from trainers.process.errors import ConfigurationError
from trainers.training import Options, Trainer
from trainers.training.monitor import Monitor, check_callback, entries, resolve

KNOWN = {"loss": "min", "psnr": "max", "own": None, "val_loss": "min", "val_psnr": "max"}


def own(truth, estimate):
    """A metric that does not say whether less is better."""
    return tf.reduce_mean(tf.abs(truth - estimate), axis=[1, 2, 3])


def trainer(folder, **options):
    def build():
        net = keras.Sequential(
            [keras.Input((12, 12, 1)), keras.layers.Conv2D(1, 3, padding="same")]
        )
        metrics = ["mae", own, dk.metrics.PSNR(), dk.metrics.SSIM()]
        net.compile("sgd", "mse", metrics=metrics, run_eagerly=True)
        return net

    return Trainer(build, folder, options=Options(**options))


def data():
    images = np.random.default_rng(0).uniform(size=(2, 4, 12, 12, 1)).astype(np.float32)
    return tf.data.Dataset.from_tensor_slices((images, images))


@pytest.mark.parametrize(
    ("name", "mode", "expected"),
    [
        ("val_psnr", "auto", Monitor("val_psnr", "max")),
        ("val_psnr", "max", Monitor("val_psnr", "max")),
        ("val_loss", "auto", Monitor("val_loss", "min")),
        ("own", "max", Monitor("own", "max")),
    ],
)
def test_direction_is_that_of_the_metric(name, mode, expected):
    assert resolve(name, mode, KNOWN) == expected


def test_loss_of_training_stands_in_where_nothing_is_validated_and_nothing_else_does():
    known = {"loss": "min", "psnr": "max"}
    assert resolve("val_loss", "auto", known) == Monitor("loss", "min")
    with pytest.raises(ConfigurationError, match="'val_psnr'.*Did you mean 'psnr'"):
        resolve("val_psnr", "max", known)


@pytest.mark.parametrize(
    ("name", "mode", "message"),
    [
        ("val_ssim", "max", r"'val_ssim'.*Expected one of \['loss', 'own', 'psnr', 'val_loss'"),
        ("val_psnr", "min", "mode 'max' for 'val_psnr', of which more is better"),
        ("val_loss", "max", "mode 'min' for 'val_loss', of which less is better"),
        ("own", "auto", "'min' or 'max' for 'own', whose metric does not say"),
    ],
)
def test_mistake_is_refused_before_the_first_step_and_nothing_is_written(
    tmp_path, name, mode, message
):
    with pytest.raises(ConfigurationError, match=message):
        resolve(name, mode, KNOWN)
    folder = tmp_path / "run"
    name = "val_nope" if name == "val_ssim" else name
    with pytest.raises(ConfigurationError):
        trainer(folder, monitor=name, mode=mode).fit(data(), epochs=1, validation=data(), verbose=0)
    assert not folder.exists()


def test_entries_are_those_of_the_logs_of_an_epoch_with_their_modes(tmp_path):
    made = trainer(tmp_path, monitor="val_ssim")
    row = made.fit(data(), epochs=1, validation=data(), verbose=0)[0]
    known = entries(made.results(), made.model.metrics, validated=True)
    assert set(known) == set(row) - {"epoch", "step", "seconds", "skipped"}
    assert known["val_psnr"] == known["ssim"] == "max"
    assert known["loss"] == known["val_loss"] == known["mae"] == "min"
    assert known["val_own"] is None
    assert made.monitor == Monitor("val_ssim", "max")


def test_metrics_of_several_outputs_are_found_by_their_names():
    names = ["loss", "left_loss", "left_psnr", "right_psnr_1", "psnr_of_edges"]
    found = entries(names, [dk.metrics.PSNR()], validated=False)
    assert found == {
        "loss": "min",
        "left_loss": "min",
        "left_psnr": "max",
        "right_psnr_1": "max",
        "psnr_of_edges": None,
    }


def test_best_epoch_of_a_training_has_the_highest_psnr(tmp_path):
    made = trainer(tmp_path, monitor="val_psnr")
    made.prepare(data(), data())
    values = [25.8, 28.8, 27.0]
    for epoch, value in enumerate(values, 1):
        made.position.epoch = epoch
        made.position.is_best({"loss": 1.0, "val_psnr": value}, made.monitor)
    assert (made.position.best_epoch, made.position.best) == (2, 28.8)


@pytest.mark.parametrize(
    "kind",
    [
        keras.callbacks.EarlyStopping,
        keras.callbacks.ReduceLROnPlateau,
        lambda *args, **kwargs: keras.callbacks.ModelCheckpoint(
            "x.keras", *args, save_best_only=True, **kwargs
        ),
    ],
)
def test_callbacks_that_would_watch_the_wrong_thing_are_refused(kind):
    check_callback(kind("val_psnr"), KNOWN)
    check_callback(kind("own", mode="max"), KNOWN)
    for name, mode in (("val_ssim", "max"), ("val_psnr", "min"), ("own", "auto")):
        with pytest.raises(ConfigurationError, match="EarlyS|ReduceL|ModelC"):
            check_callback(kind(name, mode=mode), KNOWN)
    with pytest.raises(ConfigurationError, match="'val_loss'"):
        check_callback(kind("val_loss"), {"loss": "min"})


def test_fit_refuses_such_a_callback(tmp_path):
    stopping = keras.callbacks.EarlyStopping("val_none")
    with pytest.raises(ConfigurationError, match="EarlyStopping: .*'val_none'"):
        trainer(tmp_path / "run").fit(
            data(), epochs=1, validation=data(), callbacks=[stopping], verbose=0
        )
    assert not (tmp_path / "run").exists()

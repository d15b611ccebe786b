"""Where a training is: its means, and which epoch is the best."""

import math

import numpy as np
import pytest

from trainers.process.errors import ConfigurationError
from trainers.training.monitor import Monitor
from trainers.training.position import Position
from trainers.training.state import decode, encode


def test_mean_loss_weighs_each_step_by_its_images():
    rng = np.random.default_rng(0)
    position = Position()
    assert math.isnan(position.mean_loss)
    losses = [rng.uniform(size=count) for count in (4, 4, 3, 1)]
    for images in losses:
        position.count(float(images.mean()), len(images))
    everything = np.concatenate(losses)
    assert position.images == len(everything)
    assert position.mean_loss == pytest.approx(everything.mean(), rel=1e-15)


def test_new_epoch_forgets_the_images_of_the_one_before_and_nothing_else():
    position = Position(step=7, epoch=1, batch=3, skipped=2, best=0.5, best_epoch=1)
    position.count(1.0, 4)
    position.begin_epoch()
    assert position == Position(step=7, epoch=1, skipped=2, best=0.5, best_epoch=1)


@pytest.mark.parametrize(
    ("mode", "values", "expected"),
    [
        ("min", [3.0, 2.0, 2.0, 2.5, 1.0, -1.0], [1, 1, 0, 0, 1, 1]),
        ("max", [3.0, 2.0, 3.0, 3.5, 1.0, -1.0], [1, 0, 0, 1, 0, 0]),
        ("min", [math.nan, math.inf, 5.0, math.nan, -math.inf, 4.0], [0, 0, 1, 0, 0, 1]),
        ("max", [math.nan, -math.inf, -5.0, math.inf, -4.0], [0, 0, 1, 0, 1]),
    ],
)
def test_best_epoch_is_better_than_all_before_and_finite(mode, values, expected):
    position, monitor = Position(), Monitor("val_psnr", mode)
    for epoch, (value, best) in enumerate(zip(values, expected, strict=True), 1):
        position.epoch = epoch
        kept = position.best, position.best_epoch
        # The loss goes the other way: it must not be asked.
        logs = {"loss": -value, "val_psnr": value}
        assert position.is_best(logs, monitor) == bool(best)
        now = (value, epoch) if best else kept
        assert (position.best, position.best_epoch) == now


def test_an_entry_that_is_not_there_is_no_reason_to_take_another():
    with pytest.raises(ConfigurationError, match="Unknown entry .*'val_psnr'.*'loss', 'val_loss'"):
        Position().is_best({"loss": 2.0, "val_loss": 1.0}, Monitor("val_psnr", "max"))


def test_position_comes_back_from_a_checkpoint_exactly():
    position = Position(step=2**40, epoch=3, batch=1, loss_sum=0.1 + 0.2, images=3, best=1 / 3)
    position.history.append({"epoch": 1, "loss": 1e-300, "val_loss": None})
    assert Position(**decode(encode(vars(position)))) == position

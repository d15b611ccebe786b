"""`python -m experiments.train` as people start it: signals, exit codes, and the same end."""

import signal

import numpy as np
import pytest

from tests.experiments.conftest import logged, make_pictures, weights
from tests.integration.programs import Program
from trainers.process import exits

TINY = (
    "--config.model=tests.experiments.own_model:small",
    "--config.data.patch_size=12",
    "--config.train.batch_size=2",
    "--config.train.epochs=40",
    "--config.train.steps_per_epoch=3",
    "--config.train.save_every=2",
    "--config.train.average=0.9",
    "--config.train.clip_norm=0.5",
)


TRAIN = Program("train", TINY)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["none", "mirrored"])
def test_stopped_killed_and_started_again_it_is_the_same_training(tmp_path, strategy):
    data = make_pictures(tmp_path / "pictures")
    flags = (f"--data_dir={data}", f"--strategy={strategy}")
    code, output, errors = TRAIN.run(f"--workdir={tmp_path / 'whole'}", *flags)
    assert code == 0, errors
    assert output.splitlines()[-1].startswith("Trained for 40 epochs, 120 steps.")
    folder = tmp_path / "stopped"
    command = (f"--workdir={folder}", *flags)
    for signum, step, expected in (
        (signal.SIGTERM, 2, exits.STOPPED),
        (signal.SIGKILL, 33, -signal.SIGKILL),
        (signal.SIGINT, 60, exits.STOPPED),
    ):
        landmark = folder / "checkpoints" / f"ckpt-{step}.index"
        code, _, errors = TRAIN.interrupt(signum, landmark, *command)
        assert code == expected, errors
        assert "Traceback" not in errors
        assert not (folder / "final.weights.h5").exists()
        if expected == exits.STOPPED:
            name = signal.Signals(signum).name
            assert errors.endswith(f"Stopped by {name}. Run the same command again to go on.\n")
    code, _, errors = TRAIN.run(*command)
    assert code == 0, errors
    assert logged(folder) == logged(tmp_path / "whole")
    new, old = weights(folder), weights(tmp_path / "whole")
    assert new.keys() == old.keys()
    for name in old:
        np.testing.assert_array_equal(new[name], old[name], name)

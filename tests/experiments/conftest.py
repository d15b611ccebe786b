"""Programs on a command line, in this process; small pictures for them, what they leave."""

import json
import sys
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from PIL import Image
from tensorflow.python.framework import config as framework


class Ended(NamedTuple):
    """How a program ended: exit code, and what it said."""

    code: int
    output: str
    errors: str


def make_pictures(folder, count=6, least=20):
    """A folder of small colour pictures, each of another size."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        size = (least + number, least + 6 - number, 3)
        Image.fromarray(rng.integers(0, 256, size, dtype=np.uint8)).save(folder / f"{number}.png")
    return folder


def logged(folder):
    """The lines of `metrics.jsonl`, without the times."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def weights(folder):
    """All arrays of the final weights, by name."""
    found = {}
    with h5py.File(folder / "final.weights.h5") as file:
        file.visititems(
            lambda name, item: (
                found.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


@pytest.fixture
def pictures(tmp_path):
    """A folder with six small pictures."""
    return make_pictures(tmp_path / "pictures")


def _forget():
    for name in list(flags.FLAGS):
        if name.startswith("config."):
            delattr(flags.FLAGS, name)


@pytest.fixture(scope="module")
def run_program():
    """Runs a program from its entry point on, as on a command line."""

    def run(module, *arguments):
        _forget()
        argv = [module.__name__, *map(str, arguments)]
        # Overrides of a configuration are looked up there.
        with pytest.MonkeyPatch.context() as patch, flagsaver.flagsaver():
            patch.setattr(sys, "argv", argv)
            try:
                module.run()
            except SystemExit as ended:
                return ended.code or 0
            finally:
                _forget()
                flags.FLAGS.unparse_flags()
                # Of the whole process, with no public way back: some operations fail under it.
                framework.disable_op_determinism()
        raise AssertionError("It did not end.")

    return run


@pytest.fixture
def program(run_program, capsys):
    """As `run_program`; returns what it said as well, an `Ended`."""

    def run(module, *arguments):
        capsys.readouterr()
        code = run_program(module, *arguments)
        return Ended(code, *capsys.readouterr())

    return run

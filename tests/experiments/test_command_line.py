"""What is wrong on the command line of any program ends it before any work."""

import re

import pytest

from experiments import compare, train
from trainers.process import exits

# How ml_collections loads a configuration file.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")

SMALL = ("--config.data.patch_size=12", "--config.train.batch_size=2")
ARGUMENTS = {
    compare: (*SMALL, "--tasks=denoising"),
    train: (*SMALL, "--config.model=tests.experiments.own_model:small"),
}


@pytest.mark.parametrize("module", [compare, train])
@pytest.mark.parametrize("workdir", ["", "  "])
def test_workdir_must_have_a_name(program, module, workdir):
    ended = program(module, f"--workdir={workdir}")
    assert ended.code == exits.CONFIG
    assert "--workdir to be the name of a folder" in ended.errors


@pytest.mark.parametrize("module", [compare, train])
def test_workdir_that_cannot_be_written(program, tmp_path, pictures, module):
    (tmp_path / "file").write_text("mine")
    workdir = f"--workdir={tmp_path / 'file' / 'run'}"
    ended = program(module, workdir, f"--data_dir={pictures}", *ARGUMENTS[module])
    assert ended.code == exits.IO_ERROR
    assert re.search("Error: Cannot write to .*file/run", ended.errors)
    assert (tmp_path / "file").read_text() == "mine"

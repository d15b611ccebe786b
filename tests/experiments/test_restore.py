"""The program on a command line: images through a SavedModel of this machine."""

import numpy as np
import pytest
from PIL import Image

from experiments import restore
from experiments.restoration import summary
from tests.experiments.restoration import saved_models
from trainers.process import exits


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    saved_models.pointwise().save(folder / "1")
    return f"--model={folder}"


@pytest.fixture
def run(program, tmp_path):
    """Runs the program on inputs, into `out`."""

    def call(*arguments):
        restore.FLAGS.unparse_flags()
        return program(restore, f"--output={tmp_path / 'out'}", *arguments)

    return call


@pytest.fixture
def images(tmp_path, rng):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a", "b"):
        pixels = rng.integers(1, 256, (12, 17), np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_all_restored_and_converged(run, model, images, tmp_path):
    ended = run(images, model)
    assert (ended.code, ended.errors) == (0, "")
    assert "2 of 2 restored; 0 failed; 0 did not converge." in ended.output
    for name in ("a.png", "b.png"):
        before, after = (np.asarray(Image.open(tmp_path / way / name)) for way in ("in", "out"))
        np.testing.assert_allclose(after, 127.5 + before / 2, atol=1)


def test_one_that_does_not_converge(run, model, images):
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(images / "black.png")
    ended = run(images, model)
    assert ended.code == summary.NOT_CONVERGED
    assert "3 of 3 restored; 0 failed; 1 did not converge." in ended.output


def test_one_that_fails_does_not_end_the_others(run, model, images, tmp_path):
    (images / "aa [x].png").write_text("no image")
    ended = run(images, model)
    assert ended.code == exits.BAD_DATA
    assert "2 of 3 restored; 1 failed; 0 did not converge." in ended.output
    assert "aa [x].png" in ended.output
    assert "Failed: aa [x].png: No image" in ended.errors
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]


def test_nothing_is_replaced_without_force(run, model, images, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.png").write_text("mine")
    ended = run(images, model)
    assert ended.code == exits.CONFIG
    assert "Already there" in ended.errors
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.png"]
    assert (tmp_path / "out" / "b.png").read_text() == "mine"
    assert run(images, model, "--force").code == 0
    assert Image.open(tmp_path / "out" / "b.png").size == (17, 12)


def test_limits_of_the_solver_and_of_sizes(run, model, images):
    ended = run(images, model, "--max_steps=2")
    assert ended.code == summary.NOT_CONVERGED
    ended = run(images, model, "--max_pixels=100", "--force")
    assert ended.code == exits.BAD_DATA
    assert "at most 100 pixels (--max_pixels). Received: 12 x 17" in ended.errors


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ((), exits.CONFIG, "either --model=FOLDER or --server=HOST:PORT"),
        (("--server=127.0.0.1:1",), exits.CONFIG, "Expected --name"),
        (("--model=missing", "--name=mine"), exits.CONFIG, "Expected --model to be a SavedModel"),
        (("--model=m", "--tile=32", "--overlap=16"), exits.CONFIG, "3 times --overlap"),
        (("--model=m", "--data=missing"), exits.CONFIG, "Expected --data to be a file"),
        (("--tiles=32",), exits.USAGE, "Unknown command line flag 'tiles'. Did you mean: tile"),
        (("--protocol=soap",), exits.USAGE, "--help lists the flags"),
    ],
)
def test_a_wrong_command_line(run, images, arguments, code, words):
    ended = run(images, *arguments)
    assert ended.code == code
    assert words in ended.errors


def test_no_inputs_and_no_output(program, run, images, model):
    assert "Expected INPUT... --output=FOLDER" in run(model).errors
    restore.FLAGS.unparse_flags()
    ended = program(restore, images, model)
    assert ended.code == exits.CONFIG
    assert "Expected INPUT... --output=FOLDER" in ended.errors


def test_an_output_that_cannot_be_written(program, images, model, tmp_path):
    (tmp_path / "file").write_text("mine")
    restore.FLAGS.unparse_flags()
    ended = program(restore, images, model, f"--output={tmp_path / 'file' / 'out'}")
    assert ended.code == exits.IO_ERROR
    assert "Cannot write to the folder" in ended.errors


def test_help(run):
    ended = run("--help")
    assert ended.code == 0
    assert "--max_pixels" in ended.output
    assert "python -m experiments.restore" in ended.output

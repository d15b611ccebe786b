"""Which files are taken, where their results go, and what is refused before any work."""

import os

import pytest

from experiments.restoration import inputs
from trainers.process.errors import ConfigurationError


def _touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def _targets(jobs, output):
    return {job.name: job.target.relative_to(output).as_posix() for job in jobs}


def test_a_folder_keeps_its_shape_and_endings_say_what_is_written(tmp_path):
    folder, output = tmp_path / "in", tmp_path / "out"
    _touch(folder, "b.png", "A.JPG", "sub/c.tiff", "sub/d.npz", "e.jpeg", "sub/f.npy")
    _touch(folder, "notes.txt", ".hidden.png", ".cache/g.png")
    assert _targets(inputs.find([str(folder)], output), output) == {
        "A.JPG": "A.png",
        "b.png": "b.png",
        "e.jpeg": "e.png",
        "sub/c.tiff": "sub/c.tiff",
        "sub/d.npz": "sub/d.npy",
        "sub/f.npy": "sub/f.npy",
    }


def test_files_that_are_named_are_taken_whatever_they_are(tmp_path):
    _touch(tmp_path, "in/one.png", "in/notes.txt")
    output = tmp_path / "out"
    names = [str(tmp_path / "in" / name) for name in ("one.png", "notes.txt")]
    found = _targets(inputs.find(names, output), output)
    assert found == {"one.png": "one.png", "notes.txt": "notes.txt"}


def test_earlier_results_and_circular_links_are_passed_over(tmp_path):
    _touch(tmp_path, "one.png", "out/one.png")
    os.symlink(tmp_path, tmp_path / "loop")
    jobs = inputs.find([str(tmp_path)], tmp_path / "out", force=True)
    assert [job.name for job in jobs] == ["one.png"]


def test_two_inputs_for_one_result(tmp_path):
    _touch(tmp_path, "a/x.jpg", "b/x.png")
    names = [str(tmp_path / "a"), str(tmp_path / "b" / "x.png")]
    for force in (False, True):
        with pytest.raises(ConfigurationError, match="x.jpg' and .*x.png' would both be written"):
            inputs.find(names, tmp_path / "out", force)


def test_a_result_that_exists(tmp_path):
    _touch(tmp_path, "in/a.png", "in/b.png", "out/b.png")
    with pytest.raises(ConfigurationError, match="Already there: .*b.png. .*--force"):
        inputs.find([str(tmp_path / "in")], tmp_path / "out")
    assert len(inputs.find([str(tmp_path / "in")], tmp_path / "out", force=True)) == 2


def test_a_result_never_replaces_an_input(tmp_path):
    _touch(tmp_path, "a.png")
    with pytest.raises(ConfigurationError, match="would replace an input"):
        inputs.find([str(tmp_path / "a.png")], tmp_path, force=True)


def test_nothing_to_do(tmp_path):
    with pytest.raises(ConfigurationError, match="does not exist"):
        inputs.find([str(tmp_path / "missing.png")], tmp_path / "out")
    _touch(tmp_path, "in/notes.txt")
    with pytest.raises(ConfigurationError, match="Nothing to restore"):
        inputs.find([str(tmp_path / "in")], tmp_path / "out")

"""A folder belongs to one configuration, and what it holds is whole."""

import json
import os

import pytest

from experiments.workspace import Workspace, read_config, without
from trainers.process.errors import ConfigurationError, StorageError

CONFIG = {"seed": 0, "tasks": ("a", "b"), "train": {"steps": 60, "rate": 0.1, "inner": {"x": 1}}}


def changed(**train):
    return {**CONFIG, "train": {**CONFIG["train"], **train}}


def failing():
    raise AssertionError("the work was done twice")


def test_work_is_done_once(tmp_path):
    workspace = Workspace(tmp_path / "new" / "run", CONFIG)
    result = workspace.once(("a", "b"), lambda: {"loss": float("nan"), "pair": (1, 2.5)})
    assert result == {"loss": None, "pair": [1, 2.5]}  # as it will be read back
    for again in (workspace, Workspace(tmp_path / "new" / "run", CONFIG)):
        assert again.once(("a", "b"), failing) == result
    assert workspace.once(("a",), lambda: {"other": 1}) == {"other": 1}
    assert workspace.once(("a", "b"), failing) == result


def test_work_that_fails_leaves_nothing_and_is_done_again(tmp_path):
    workspace = Workspace(tmp_path, CONFIG)
    with pytest.raises(AssertionError):
        workspace.once(("a",), failing)
    assert os.listdir(tmp_path / "a") == []
    assert workspace.once(("a",), lambda: {"x": 1}) == {"x": 1}


@pytest.mark.parametrize("text", ["", '{"x": ', "null", "[]", "\x00\x00", '{"x": 1} more'])
def test_damaged_result_is_made_again(tmp_path, text):
    workspace = Workspace(tmp_path, CONFIG)
    workspace.once(("a",), lambda: {"x": 1})
    (tmp_path / "a" / "done.json").write_text(text)
    assert workspace.once(("a",), lambda: {"x": 2}) == {"x": 2}
    assert workspace.once(("a",), failing) == {"x": 2}


def test_configuration_is_written_with_the_first_result(tmp_path):
    workspace = Workspace(tmp_path, CONFIG)
    assert os.listdir(tmp_path) == []
    assert workspace.folder("a", "b") == tmp_path / "a" / "b"
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(json.dumps(CONFIG))
    assert Workspace(tmp_path, CONFIG).folder("a", "b").is_dir()


def test_a_run_that_has_not_begun_may_be_mended(tmp_path):
    Workspace(tmp_path, CONFIG)
    Workspace(tmp_path, changed(steps=30)).folder("a")
    with pytest.raises(ValueError, match="another configuration"):
        Workspace(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**CONFIG, "seed": 1}, r"\(seed was 0, is 1\)"),
        (changed(steps=30), r"\(train\.steps was 60, is 30\)"),
        (changed(steps=30, rate=0.2), r"\(train\.rate was 0\.1, is 0\.2; train\.steps was 60, is"),
        (changed(inner={"x": 2}), r"\(train\.inner\.x was 1, is 2\)"),
        (changed(more=1), r"\(train\.more was None, is 1\)"),
        ({**CONFIG, "tasks": ("a",)}, r"\(tasks was \['a', 'b'\], is \['a'\]\)"),
        ({"seed": 0, "tasks": ("a", "b")}, r"\(train was \{.*\}, is None\)"),
    ],
)
def test_results_of_another_configuration_are_refused_and_kept(tmp_path, config, message):
    Workspace(tmp_path, CONFIG).once(("a",), lambda: {"x": 1})
    with pytest.raises(ValueError, match=f"{tmp_path}.*another configuration {message}"):
        Workspace(tmp_path, config)
    assert Workspace(tmp_path, CONFIG).once(("a",), failing) == {"x": 1}


def test_many_differences_are_not_all_told(tmp_path):
    Workspace(tmp_path, dict.fromkeys("abcdefgh", 1)).folder("x")
    with pytest.raises(ValueError, match="another configuration") as caught:
        Workspace(tmp_path, dict.fromkeys("abcdefgh", 2))
    assert str(caught.value).count("was 1, is 2") == 5


@pytest.mark.parametrize("text", ["", "{", "[]", "null"])
def test_damaged_configuration_is_an_error_that_says_what_to_do(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json' is damaged.*Name another --workdir\.$"):
        Workspace(tmp_path, CONFIG)


@pytest.mark.parametrize("below", ["", "run", "run/deeper"])
def test_folder_that_cannot_be_written_is_an_error(tmp_path, below):
    """Below a regular file nobody can make a folder, not even root."""
    file = tmp_path / "file"
    file.write_text("content")
    with pytest.raises(StorageError, match=f"Cannot write to .*{file}.*Name another one with"):
        Workspace(file / below, CONFIG)
    assert file.read_text() == "content"


def test_probe_leaves_nothing_and_other_files_alone(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    Workspace(tmp_path, CONFIG).folder("a")
    assert sorted(os.listdir(tmp_path)) == ["a", "config.json", "notes.txt"]


def test_entries_that_may_change_do_and_are_written_anew(tmp_path):
    free = ("train.steps", "train.inner.x", "tasks")
    Workspace(tmp_path, CONFIG, free).write_config()
    other = {**changed(steps=90, inner={"x": 7}), "tasks": ("c",)}
    Workspace(tmp_path, other, free).write_config()
    assert read_config(tmp_path) == json.loads(json.dumps(other))
    with pytest.raises(ConfigurationError, match=r"another configuration \(seed was 0, is 4\)"):
        Workspace(tmp_path, {**other, "seed": 4}, free)
    with pytest.raises(ConfigurationError, match=r"another configuration \(train\.rate was 0\.1"):
        Workspace(tmp_path, changed(rate=0.3), free)


def test_who_does_not_write_leaves_no_trace(tmp_path):
    Workspace(tmp_path / "run", CONFIG, writes=False)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), CONFIG),
        (("seed", "train"), {"tasks": ("a", "b")}),
        (("train.inner.x",), {**CONFIG, "train": {"steps": 60, "rate": 0.1, "inner": {}}}),
        (("steps", "train.nothing", "inner.x"), CONFIG),
    ],
)
def test_without_some_entries(names, expected):
    assert without(CONFIG, names) == expected
    assert CONFIG["train"]["inner"] == {"x": 1}


def test_folder_without_a_configuration_says_so(tmp_path):
    with pytest.raises(ConfigurationError, match="to be the folder of a training.*config.json"):
        read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ConfigurationError, match="damaged"):
        read_config(tmp_path)

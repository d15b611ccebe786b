"""A checkpoint is whole or not there, of this configuration or refused."""

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from trainers.process.errors import ConfigurationError, StorageError
from trainers.training.checkpoints import Checkpoints, differences

ROOT = Path(__file__).resolve().parents[3]
SHAPES = {"kernel": ((40, 3), "float32"), "bias": ((), "float64"), "count": ((2,), "int64")}
CONFIG = {"model": {"filters": 4, "sizes": (3, 5)}, "seed": 1, "name": None}


def variables(shapes=SHAPES):
    return [
        keras.Variable(np.zeros(shape), dtype=dtype, name=name, trainable=False)
        for name, (shape, dtype) in shapes.items()
    ]


def fill(those, step):
    """Values that only this step has."""
    rng = np.random.default_rng(step)
    for variable in those:
        variable.assign((100 * rng.normal(size=variable.shape)).astype(variable.dtype))


def values(those):
    return [variable.numpy() for variable in those]


def of_step(step, shapes=SHAPES):
    those = variables(shapes)
    fill(those, step)
    return values(those)


def save(folder, steps, keep=3, config=CONFIG, which="latest"):
    those = variables()
    checkpoints = Checkpoints(folder, those, keep, config)
    for step in steps:
        fill(those, step)
        checkpoints.save(step, {"step": step, "array": np.full(5, step)}, which)


def load(folder, which="latest", config=CONFIG):
    """The step that is found there, all of whose numbers must be its own; `None` if nothing is."""
    those = variables()
    host = Checkpoints(folder, those, 3, config).load(which)
    if host is None:
        assert all((value == 0).all() for value in values(those))
        return None
    for new, old in zip(values(those), of_step(host["step"]), strict=True):
        np.testing.assert_array_equal(new, old, strict=True)
    np.testing.assert_array_equal(host["array"], np.full(5, host["step"]), strict=True)
    return host["step"]


def numbers(folder):
    """Of the indices and of the data there; nothing else may be."""
    found = {"index": [], "data": []}
    for path in folder.iterdir():
        match = re.fullmatch(r"ckpt-(\d+)\.(index|data)(-00000-of-00001)?", path.name)
        assert match, path
        found[match[2]].append(int(match[1]))
    assert sorted(found["index"]) == sorted(found["data"])
    return sorted(found["index"])


# What is kept


def test_there_is_nothing_at_first(tmp_path):
    assert load(tmp_path) is None
    assert load(tmp_path / "missing") is None
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("keep", [1, 2, 5])
def test_last_ones_are_kept_by_number_not_by_name(tmp_path, keep):
    save(tmp_path, [8, 9, 10, 11], keep)
    assert numbers(tmp_path / "checkpoints") == [8, 9, 10, 11][-keep:]
    assert load(tmp_path) == 11


def test_best_one_is_apart(tmp_path):
    save(tmp_path, [2, 4], keep=3, which="best")
    assert load(tmp_path) is None
    save(tmp_path, [3, 4, 5, 6], keep=2)
    assert numbers(tmp_path / "best") == [4]
    assert numbers(tmp_path / "checkpoints") == [5, 6]
    assert (load(tmp_path, "best"), load(tmp_path)) == (4, 6)


def test_step_saved_again_is_the_new_one(tmp_path):
    save(tmp_path, [1, 2])
    those = variables()
    checkpoints = Checkpoints(tmp_path, those, 3, CONFIG)
    fill(those, 7)
    checkpoints.save(2, {"step": 7, "array": np.full(5, 7)})
    assert load(tmp_path) == 7


def test_state_of_python_does_not_stay_in_memory(tmp_path):
    checkpoints = Checkpoints(tmp_path, variables(), 3, CONFIG)
    checkpoints.save(1, {"x": np.zeros(1000)})
    assert checkpoints._host.numpy() == b""
    checkpoints.load()
    assert checkpoints._host.numpy() == b""


def test_other_files_are_left_alone(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    others = ["notes.txt", "ckpt-x.index", "ckpt-3.index.bak", "my-ckpt-4.index"]
    for name in others:
        (tmp_path / "checkpoints" / name).write_text("mine")
    save(tmp_path, range(1, 6), keep=1)
    assert load(tmp_path) == 5
    assert {name for name in others if (tmp_path / "checkpoints" / name).exists()} == set(others)


# Damage


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
    path.write_bytes(b"")


def scramble(path):
    path.write_bytes(np.random.default_rng(0).bytes(path.stat().st_size))


def lengthen(path):
    path.write_bytes(b"\0" * 64 + path.read_bytes())


DAMAGES = [halve, empty, os.remove, scramble, lengthen]


def file(folder, step, kind):
    (path,) = (folder / "checkpoints").glob(f"ckpt-{step}.{kind}*")
    return path


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", ["data", "index"])
def test_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path, damage, kind):
    save(tmp_path, [1, 2, 3])
    damage(file(tmp_path, 3, kind))
    assert load(tmp_path) == 2
    halve(file(tmp_path, 2, "data"))
    assert load(tmp_path) == 1
    save(tmp_path, [2, 3])  # the run goes on, over the damaged ones
    assert load(tmp_path) == 3
    assert numbers(tmp_path / "checkpoints") == [1, 2, 3]


@pytest.mark.parametrize("kind", ["data", "index"])
def test_changed_bit_is_noticed_wherever_it_is(tmp_path, kind):
    save(tmp_path, [1, 2])
    path = file(tmp_path, 2, kind)
    content = path.read_bytes()
    draw = random.Random(0)
    for _ in range(40):
        place = draw.randrange(len(content))
        changed = bytearray(content)
        changed[place] ^= 1 << draw.randrange(8)
        path.write_bytes(changed)
        # A bit of the index that nothing depends on may change; a number never.
        assert load(tmp_path) in ((1,) if kind == "data" else (1, 2)), place


def test_no_checkpoint_that_can_be_read_is_an_error_that_says_what_to_do(tmp_path):
    save(tmp_path, [1, 2])
    halve(file(tmp_path, 1, "data"))
    empty(file(tmp_path, 2, "index"))
    folder = re.escape(repr(str(tmp_path / "checkpoints")))
    message = rf"{folder} can be read.*name another folder to train anew\. ckpt-2.*; ckpt-1"
    with pytest.raises(StorageError, match=message):
        load(tmp_path)


@pytest.mark.parametrize("name", ["lr=[1,2]", "what?", "a*b", "back\\slash", "{x}~ $y"])
def test_folder_of_any_name_is_read_as_it_is(tmp_path, name):
    # TensorFlow takes such a name for a pattern, and finds nothing.
    save(tmp_path / name, [1, 2])
    assert load(tmp_path / name) == 2
    halve(file(tmp_path / name, 2, "data"))
    assert load(tmp_path / name) == 1


def test_what_is_no_state_of_ours_counts_as_damaged(tmp_path):
    save(tmp_path, [1])
    checkpoints = Checkpoints(tmp_path, variables(), 3, CONFIG)
    for step, text in enumerate((b"", b"junk", b"PK\x03\x04"), 2):
        checkpoints._host.assign(text)
        checkpoints._checkpoint.write(str(tmp_path / "checkpoints" / f"ckpt-{step}"))
    assert load(tmp_path) == 1


# What does not fit


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"seed": 2}, ["seed was 1, is 2"]),
        ({"name": "x"}, ["name was None, is 'x'"]),
        ({"more": 1}, ["more was None, is 1"]),
        ({"model": {"filters": 8, "sizes": [3, 5]}}, ["model.filters was 4, is 8"]),
        ({"model": {"filters": 4, "sizes": [3]}}, ["model.sizes was [3, 5], is [3]"]),
        ({"model": 3}, ["model was {'filters': 4, 'sizes': [3, 5]}, is 3"]),
        ({"model": {}, "seed": 3}, ["model.filters", "model.sizes", "seed was 1, is 3"]),
    ],
)
def test_other_configuration_is_refused_by_name(tmp_path, change, what):
    save(tmp_path, [1])
    with pytest.raises(ConfigurationError, match="was made with another configuration") as caught:
        load(tmp_path, config={**CONFIG, **change})
    for text in what:
        assert text in str(caught.value)
    assert load(tmp_path) == 1


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"kernel": ((40, 4), "float32")}, r"'kernel' has shape \[40, 3\] and dtype float32 in it"),
        ({"bias": ((), "float32")}, r"dtype float64 in it, and 'bias' is \[\], float32 now"),
        ({"bias": ((1,), "float64")}, r"'bias' has shape \[\]"),
        ({"more": ((), "float32")}, "it has 3 variables, and the model and its optimizer have 4"),
        ({"count": None}, "it has 3 variables, and the model and its optimizer have 2"),
    ],
)
def test_other_model_is_refused_and_nothing_is_changed(tmp_path, change, what):
    save(tmp_path, [1])
    shapes = {key: value for key, value in {**SHAPES, **change}.items() if value is not None}
    those = variables(shapes)
    fill(those, 5)
    with pytest.raises(ConfigurationError, match=f"is of another model: .*{what}"):
        Checkpoints(tmp_path, those, 3, CONFIG).load()
    for new, old in zip(values(those), of_step(5, shapes), strict=True):
        np.testing.assert_array_equal(new, old)
    assert load(tmp_path) == 1


def test_name_of_a_variable_does_not_matter(tmp_path):
    save(tmp_path, [1])
    those = variables({f"other_{name}": shape for name, shape in SHAPES.items()})
    assert Checkpoints(tmp_path, those, 3, CONFIG).load()["step"] == 1


def test_differences():
    assert list(differences({}, {})) == []
    assert list(differences({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 1}}})) == []
    old, new = {"a": {"b": 1, "c": [2]}, "d": 3}, {"a": {"b": 1, "c": [4]}, "e": 5}
    expected = ["a.c was [2], is [4]", "d was 3, is None", "e was None, is 5"]
    assert list(differences(old, new)) == expected


# A place that cannot be written


@contextlib.contextmanager
def no_room(size):
    """Meanwhile no file can be longer, as on a disk that is full."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [0, 100, 700])
def test_full_disk_is_an_error_and_the_last_good_one_stays(tmp_path, size):
    save(tmp_path, [1, 2], keep=1)
    assert all(path.stat().st_size > 50 for path in (tmp_path / "checkpoints").iterdir())
    message = r"The checkpoint of step 3 cannot be written to '.*checkpoints': .*still there"
    with pytest.raises(StorageError, match=message), no_room(size):
        save(tmp_path, [3], keep=1)
    assert load(tmp_path) == 2
    save(tmp_path, [3], keep=1)  # room was made
    assert numbers(tmp_path / "checkpoints") == [3]
    assert load(tmp_path) == 3


@pytest.mark.parametrize("which", ["latest", "best"])
def test_folder_that_cannot_be_made_is_an_error_of_storage(tmp_path, which):
    # The superuser may write anywhere; not even he makes a folder where there is a file.
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="step 1 cannot be written to .*writable"):
        save(tmp_path / "file", [1], which=which)
    assert (tmp_path / "file").read_text() == "mine"


# A kill


def test_what_a_killed_save_leaves_does_not_count_and_goes_away(tmp_path):
    """Each state that a save goes through, in its order."""
    save(tmp_path, [1, 2], keep=2)
    folder = tmp_path / "checkpoints"
    parts = folder / "ckpt-3_temp"
    parts.mkdir()
    (parts / "part-00000-of-00001.data-00000-of-00001.tempstate123").write_bytes(b"half")
    assert load(tmp_path) == 2
    (folder / "ckpt-3.data-00000-of-00001").write_bytes(b"whole, but without an index")
    assert load(tmp_path) == 2
    # Step 3 is not saved again: the next run passes it by.
    save(tmp_path, [4], keep=2)
    assert numbers(folder) == [2, 4]
    # Killed while the oldest one is forgotten.
    file(tmp_path, 2, "index").unlink()
    assert load(tmp_path) == 4
    save(tmp_path, [5], keep=2)
    assert numbers(folder) == [4, 5]


# TensorFlow is imported once; each of the processes that save is a copy of it. They are large
# enough that most kills come in the middle of a save, and they end by themselves if nobody kills.
KILLED = """
import gc
gc.disable()  # it would take a fifth of the time of TensorFlow's import
import os, random, signal, sys, time
from pathlib import Path
import keras, numpy as np
from trainers.training.checkpoints import Checkpoints

folder, kills = Path(sys.argv[1]), int(sys.argv[2])
draw = random.Random(0)

def work(write):
    those = [keras.Variable(np.zeros(100_000, np.float32), name=f"v{n}") for n in range(3)]
    checkpoints = Checkpoints(folder, those, 2, {})
    host = checkpoints.load() or {"step": 0, "array": np.zeros(1)}
    step = host["step"]
    assert all((v.numpy() == step).all() for v in (*those,)) and (host["array"] == step).all()
    found = step
    for step in range(step + 1, step + 1000):
        for variable in those:
            variable.assign(np.full(100_000, step, np.float32))
        checkpoints.save(step, {"step": step, "array": np.full(10_000, step)})
        if step == found + 1:  # the first save takes longer than all others
            os.write(write, b"%09d" % found)

steps = []
for _ in range(kills):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work(write)
        finally:
            os._exit(1)
    os.close(write)
    steps.append(int(os.read(read, 9) or -1))
    time.sleep(draw.uniform(0, 0.1))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
print(*steps)
"""


@pytest.mark.skipif(os.name != "posix", reason="fork and SIGKILL")
def test_kill_at_any_moment_leaves_a_whole_checkpoint(tmp_path):
    kills = 8
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path), str(kills)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=100)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode == 0, errors
    steps = [int(text) for text in output.split()]
    assert len(steps) == kills
    assert steps[0] == 0
    # Never behind what was saved before; -1 would be a damaged one.
    assert all(after > before for before, after in zip(steps, steps[1:], strict=False))
    those = [keras.Variable(np.zeros(100_000, np.float32), name=f"v{n}") for n in range(3)]
    checkpoints = Checkpoints(tmp_path, those, 2, {})
    last = checkpoints.load()["step"]
    assert last > steps[-1]
    assert all((variable.numpy() == last).all() for variable in those)
    checkpoints.save(last + 1, {})
    assert numbers(tmp_path / "checkpoints") == [last, last + 1]

"""Version folders: numbers, and nothing that is half there."""

import contextlib
import multiprocessing

import pytest

from trainers.export.versions import new_version, numbers
from trainers.process.errors import StorageError


def test_the_next_number_is_taken_when_all_is_written(tmp_path):
    for name in ("1", "7", "notes", "9x"):
        (tmp_path / name).mkdir()
    with new_version(tmp_path) as version:
        (version.partial / "file").write_text("content")
        assert numbers(tmp_path) == [1, 7]
    assert version.path == tmp_path / "8"
    assert (tmp_path / "8" / "file").read_text() == "content"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "7", "8", "9x", "notes"]


@pytest.mark.parametrize("was_there", [False, True])
def test_what_fails_leaves_nothing(was_there, tmp_path):
    if was_there:
        (tmp_path / "new").mkdir()
    with contextlib.suppress(KeyboardInterrupt), new_version(tmp_path / "new") as version:
        (version.partial / "file").write_text("content")
        raise KeyboardInterrupt
    assert version.path is None
    assert [path.name for path in tmp_path.rglob("*")] == ["new"] * was_there


def _write(folder, barrier):
    with new_version(folder) as version:
        (version.partial / "file").write_text(str(version.partial))
        barrier.wait()


def test_two_at_once_take_two_numbers(tmp_path):
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(2)
    workers = [context.Process(target=_write, args=(tmp_path, barrier)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    assert numbers(tmp_path) == [1, 2]
    texts = {(tmp_path / str(number) / "file").read_text() for number in (1, 2)}
    assert len(texts) == 2


def test_a_file_in_its_place_is_an_error(tmp_path):
    (tmp_path / "models").write_text("")
    with pytest.raises(StorageError, match="Cannot write"), new_version(tmp_path / "models"):
        pass

"""`metrics.jsonl`: what a stopped run wrote too much is taken back, the rest stays to the byte."""

import errno
import json
import math
import os

import numpy as np
import pytest

from trainers.callbacks.metrics_log import NAME, MetricsLog
from trainers.process.errors import StorageError


def rows(epochs=2, steps=3):
    """What a run writes, in order."""
    result = []
    for epoch in range(1, epochs + 1):
        for step in range((epoch - 1) * steps + 1, epoch * steps + 1):
            result.append({"step": step, "loss": 1 / (3 * step), "skipped": True})
        result.append({"epoch": epoch, "step": epoch * steps, "loss": 0.1 * epoch})
    return result


def write(folder, content, **done):
    log = MetricsLog(folder, **done)
    for row in content:
        log.write(row)
    log.close()


def read(folder):
    return [json.loads(line) for line in (folder / NAME).read_text("utf-8").splitlines()]


def test_lines_are_the_rows_exactly(tmp_path):
    write(tmp_path, rows())
    assert read(tmp_path) == rows()
    assert os.listdir(tmp_path) == [NAME]


def test_numbers_that_are_not_finite_are_null_and_numpy_s_are_plain(tmp_path):
    row = {"step": np.int64(1), "loss": math.nan, "a": np.float32("inf"), "b": np.float32(0.5)}
    write(tmp_path, [row])
    assert read(tmp_path) == [{"step": 1, "loss": None, "a": None, "b": 0.5}]


@pytest.mark.parametrize("step", range(7))
def test_log_of_a_run_that_goes_on_is_that_of_one_that_was_never_stopped(tmp_path, step):
    """The checkpoint is of `step`; the run was killed anywhere behind it."""
    whole = rows()
    for done in range(len(whole) + 1):
        epochs = step // 3 if step < 6 else 2
        for epoch in {epochs, max(epochs - (step % 3 == 0), 0)}:  # saved before or after its end
            kept = [r for r in whole if r.get("epoch", 0) <= epoch and r["step"] <= step]
            if whole[:done][: len(kept)] != kept:
                continue  # killed before that checkpoint
            folder = tmp_path / f"{done}-{epoch}"
            folder.mkdir()
            write(folder, whole[:done])
            write(folder, whole[len(kept) :], step=step, epoch=epoch)
            assert read(folder) == whole


def test_line_that_was_being_written_is_taken_back(tmp_path):
    write(tmp_path, rows())
    content = (tmp_path / NAME).read_bytes()
    lines = content.splitlines(keepends=True)
    start = sum(map(len, lines[:2]))
    for cut in range(start, start + len(lines[2])):
        (tmp_path / NAME).write_bytes(content[:cut])
        write(tmp_path, [], step=3)
        # Even one that lacks its end of line only: the next one would be put behind it.
        assert (tmp_path / NAME).read_bytes() == b"".join(lines[:2])


@pytest.mark.parametrize(
    "junk", [b"\xff\xfe\n", b"null\n", b"7\n", b"[]\n", b'["step"]\n', b"{}\n", b'{"step": "x"}\n']
)
def test_what_is_no_row_is_dropped(tmp_path, junk):
    good = b'{"step": 1}\n'
    (tmp_path / NAME).write_bytes(junk + good + junk)
    write(tmp_path, [], step=1)
    assert (tmp_path / NAME).read_bytes() == good


def test_rows_can_be_read_while_the_run_goes_on(tmp_path):
    log = MetricsLog(tmp_path)
    for count, row in enumerate(rows(), 1):
        log.write(row)
        assert len(read(tmp_path)) == count
    log.close()


def test_folder_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"metrics\.jsonl' cannot be written: Not a directory"):
        MetricsLog(tmp_path / "file")
    with pytest.raises(StorageError, match="run the same command again"):
        MetricsLog(tmp_path / "missing")


def test_full_disk_is_an_error_of_storage(tmp_path):
    class Full:
        def write(self, text):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        close = flush = lambda self: self.write("")

    log = MetricsLog(tmp_path)
    log._file.close()
    log._file = Full()
    for act in (lambda: log.write({"step": 1}), log.close):
        with pytest.raises(StorageError, match="No space left on device"):
            act()

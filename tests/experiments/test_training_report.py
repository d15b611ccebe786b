"""The page of a training: made from any `metrics.jsonl`, and complete in itself."""

import json

import pytest

from experiments import training_page
from experiments.report import plots
from experiments.report.training import read_metrics, write_training_report
from tests.experiments.html_page import Page
from trainers.process.errors import StorageError


def steps(count):
    return [
        {"step": n + 1, "loss": 0.1 / (n + 1), "gradient_norm": 0.5, "seconds": 0.2 + n}
        for n in range(count)
    ]


def epochs(count, **further):
    return [
        {"epoch": n + 1, "step": 2 * (n + 1), "seconds": 30.0, "skipped": 0, "loss": 0.1 / (n + 1)}
        | {key: value[n] for key, value in further.items()}
        for n in range(count)
    ]


SOLVES = {
    "deq_forward_steps": (30.0, 50.0, 90.0),
    "deq_forward_products": (20.0, 35.0, 70.0),
    "deq_forward_residual": (1e-4, 2e-4, 1e-4),
    "deq_converged": (1.0, 0.5, 0.996),
    "deq_backward_steps": (7.0, 8.0, 12.5),
    "deq_backward_residual": (1e-2, None, 1e-2),
    "deq_backward_converged": (1.0, 1.0, 1.0),
}
CONDITIONING = {
    "deq_smallest": (0.1, 0.01, -0.2),
    "deq_largest": (0.9, 1.0, 1.0),
    "deq_skew": (0.0, 0.3, 0.5),
    "deq_norm": (0.9, 1.1, 1.2),
    "deq_condition": (9.0, 110.0, None),
    "deq_weight": (0.1, 0.12, 0.15),
    "deq_largest_sharpness": (500.0, 700.0, 2000.0),
}
VALIDATED = {"val_loss": (0.3, 0.1, 0.2), "val_psnr": (20.0, 26.0, 25.0)}


def page(folder, *rows, title="run"):
    path = write_training_report(folder / "training.html", title, *rows)
    found = Page(path.read_text("utf-8"))
    found.check_complete()
    return found


def titles(found):
    return [attrs["aria-label"] for attrs in found.all("svg") if attrs.get("role") == "img"]


def test_everything_that_was_logged_has_a_curve(tmp_path):
    rows = steps(6), epochs(3, **SOLVES, **CONDITIONING, **VALIDATED)
    found = page(tmp_path, *rows)
    assert titles(found) == [
        "Loss",
        "PSNR",
        "Time of a step",
        "Norm of the gradient",
        "Work for an image in a step",
        "Images that converged",
        "Relative residuals",
        "Condition number",
        "Size of A",
        "Smallest eigenvalue of the symmetric part",
        "Weight λ",
        "Largest sharpness",
    ]
    assert "3 epochs and 6 steps, in 90.0 s." in found.words
    assert "epoch 2; loss 0.100, 26.00 dB on validation images; loss 0.0500 in" in found.words
    assert "90.0 steps forward and 12.5 backward; 99 % converged" in found.words
    assert "estimates" in found.words


def test_maps_are_the_steps_without_the_products(tmp_path, monkeypatch):
    drawn = {}

    def draw(key, title, lines, *args, **kwargs):
        drawn[title] = [list(line.y) for line in lines]
        return ""

    monkeypatch.setattr(plots, "draw", draw)
    write_training_report(tmp_path / "page.html", "run", steps(6), epochs(3, **SOLVES))
    maps, products, backward = drawn["Work for an image in a step"]
    assert maps == [10.0, 15.0, 20.0]
    assert products == [20.0, 35.0, 70.0]
    assert backward == [7.0, 8.0, 12.5]
    assert drawn["Images that converged"] == [[100.0, 50.0, 99.6], [100.0] * 3]
    without = {k: v for k, v in SOLVES.items() if k != "deq_forward_products"}
    write_training_report(tmp_path / "page.html", "run", steps(6), epochs(3, **without))
    assert drawn["Work for an image in a step"][0] == [30.0, 50.0, 90.0]


@pytest.mark.parametrize("count", [0, 1, 400])
def test_a_model_without_solves_or_validation_and_any_number_of_steps(tmp_path, count):
    found = page(tmp_path, steps(count), epochs(1))
    every = ["Loss", "Time of a step", "Norm of the gradient"] if count else []
    assert titles(found) == every
    assert "1 epoch and 2 steps" in found.words


def test_layers_have_sections_of_their_own_and_text_is_escaped(tmp_path):
    other = {key.replace("deq", "tv"): value for key, value in SOLVES.items()}
    rows = epochs(3, **SOLVES, **other, val_tv_forward_steps=(1.0, 2.0, 3.0))
    found = page(tmp_path, steps(6), rows, title="a <b> & c")
    assert "Solves of deq" in found.words
    assert "Solves of tv" in found.words
    assert "val_tv" not in found.words
    assert "a <b> & c" in found.words


def test_no_epoch_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="at least one epoch"):
        write_training_report(tmp_path / "page.html", "run", steps(2), [])
    assert not list(tmp_path.iterdir())


# From the log


def log(folder, rows, end=""):
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "metrics.jsonl").write_text(text + end, "utf-8")


def test_lines_that_are_not_whole_are_left_out(tmp_path):
    assert read_metrics(tmp_path / "metrics.jsonl") == ([], [])
    rows = [*steps(2), *epochs(1)]
    log(tmp_path, rows, '7\nnull\n{"loss": 3}\n{"step": 3, "lo')
    assert read_metrics(tmp_path / "metrics.jsonl") == (rows[:2], rows[2:])


def test_page_is_that_of_the_log(tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    run.mkdir()
    assert training_page.write(run) is None
    log(run, [*steps(2), *epochs(1)])
    assert training_page.write(run) == run / "training.html"
    assert training_page.write(run, other) == other / "training.html"
    assert (run / "training.html").read_text("utf-8") == (other / "training.html").read_text()


def test_page_follows_the_epochs_but_takes_a_small_part_of_the_time(tmp_path, monkeypatch):
    now, written = [0.0], []

    def write(workdir):
        written.append(now[0])
        now[0] += 1.0

    monkeypatch.setattr(training_page, "write", write)
    monkeypatch.setattr(training_page.time, "perf_counter", lambda: now[0])
    callback = training_page.TrainingPage(tmp_path)
    for _ in range(100):
        now[0] += 0.5
        callback.on_epoch_end(0)
    assert written[0] == 0.5
    assert 2 <= len(written) <= 4
    callback.on_train_end()
    assert written[-1] == now[0] - 1
    written.clear()
    for _ in range(3):
        now[0] += 100.0
        callback.on_epoch_end(0)
    assert len(written) == 3


def test_folder_that_cannot_be_written(tmp_path):
    log(tmp_path, [*steps(2), *epochs(1)])
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match=r"training\.html' cannot be written"):
        training_page.write(tmp_path, tmp_path / "file")


def test_one_worker_writes():
    assert training_page.TrainingPage.chief_only
    assert training_page.TrainingPage("run").get_state() == {}

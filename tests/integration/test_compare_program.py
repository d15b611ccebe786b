"""`python -m experiments.compare` as people start it: a process, signals, files, exit codes."""

import json
import platform
import re
import signal
from html.parser import HTMLParser
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import deq_keras as dk
from tests.integration.programs import Program
from trainers.process import exits

TINY = (
    "--tasks=denoising",
    "--steps=30",  # three records of ten
    "--seed=3",
    "--config.data.channels=3",
    "--config.data.patch_size=12",
    "--config.prior.filters=2",
    "--config.prior.kernel_size=3",
    # Mirrored boundaries, the default, take twice as long to trace.
    "--config.prior.padding=circular",
    "--config.train.batch_size=2",
    "--config.train.tolerance=1e-3",
    "--config.evaluate.training_batches=2",
)
COMPARE = Program("compare")
MODELS = ("bilevel", "bilevel_further", "equilibrium")


def make_pictures(folder, mode):
    """Eight smooth pictures, each of another odd size."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)).convert(mode)
        small.resize((25 + 4 * number, 37 - 2 * number)).save(folder / f"picture {number}.png")
    return folder


def read(path):
    return json.loads(path.read_text("utf-8"))


def times(folder):
    """When each file was written."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("data") / "pictures", "RGB")


@pytest.fixture(scope="module")
def arguments(pictures):
    return (*TINY, f"--data_dir={pictures}")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, arguments):
    """An uninterrupted run: its folder and what it said."""
    folder = tmp_path_factory.mktemp("finished") / "new" / "run"
    code, output, errors = COMPARE.run(f"--workdir={folder}", *arguments)
    assert code == 0, errors
    return folder, output, errors


@pytest.fixture(scope="module")
def stopped(tmp_path_factory, arguments):
    """A run stopped and then left to finish: its folder, and for each start
    `(exit code, stdout, stderr)` and the times of the files after it."""
    folder = tmp_path_factory.mktemp("stopped")
    command = (f"--workdir={folder}", *arguments)
    place = folder / "denoising"
    # Within a training; others are stopped in tests/experiments/test_compare.py.
    landmark = place / "bilevel_further" / "checkpoints" / "ckpt-10.index"
    starts = [(COMPARE.interrupt(signal.SIGTERM, landmark, *command), times(folder))]
    starts.append((COMPARE.run(*command), times(folder)))
    return folder, starts


# What a run leaves (its parts, in this process: tests/experiments)


@pytest.mark.slow
def test_nothing_but_progress_is_on_the_error_stream(finished):
    _, _, errors = finished
    assert "Traceback" not in errors
    assert "Warning:" not in errors
    assert "denoising: equilibrium" in errors  # the progress bar


@pytest.mark.slow
def test_results_hold_everything_that_the_table_shows(finished):
    folder, output, _ = finished
    methods = read(folder / "results.json")["tasks"]["denoising"]["methods"]
    keys = ("psnr", "ssim", "train_loss", "test_loss", "seconds", "solve_seconds")
    keys += ("forward_steps", "backward_steps", "converged", "parameters")
    shown = 0
    for method in methods.values():
        (line,) = (line for line in output.splitlines() if line.startswith(f"│ {method['label']} "))
        cells = [cell.strip() for cell in line.split("│")[2:-1]]
        for key, cell in zip(keys, cells, strict=True):
            value = method[key]
            if value is None:
                assert cell == "-"
                continue
            shown += 1
            number = float(cell.rstrip("%")) / (100 if cell.endswith("%") else 1)
            places = re.sub(r"e.*|%", "", cell).partition(".")[2]
            size = 10.0 ** int(cell.partition("e")[2] or 0) / (100 if cell.endswith("%") else 1)
            assert abs(number - value) <= 0.51 * size * 10.0 ** -len(places)
    assert shown == 4 + 9 + 10 + 10


@pytest.mark.slow
def test_results_hold_configuration_versions_and_seed(finished, pictures):
    results = read(finished[0] / "results.json")
    assert results["seed"] == results["config"]["seed"] == 3
    assert results["config"] == read(finished[0] / "config.json")
    train = results["config"]["train"]
    assert (train["steps"], train["further_steps"], train["batch_size"]) == (30, 30, 2)
    assert results["config"]["data"]["data_dir"] == results["data"]["source"] == str(pictures)
    assert results["versions"] == {
        "deq_keras": dk.__version__,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
    assert results["command"].startswith("python -m experiments.compare --workdir=")
    names = [name for split in ("train", "validation", "test") for name in results["data"][split]]
    assert sorted(names) == [f"picture {number}.png" for number in range(8)]


@pytest.mark.slow
def test_results_hold_each_image_and_the_curves(finished):
    results = read(finished[0] / "results.json")
    task = results["tasks"]["denoising"]
    for method in task["methods"].values():
        rows = method["images"]
        assert [row["name"] for row in rows] == results["data"]["test"]
        for key in ("psnr", "ssim"):
            assert method[key] == pytest.approx(np.mean([row[key] for row in rows]))
    training = task["curves"]["training"]
    assert training["bilevel"]["step"] == [10, 20, 30]
    assert training["bilevel_further"]["step"] == training["equilibrium"]["step"] == [40, 50, 60]
    for name in ("total_variation", "bilevel", "equilibrium"):
        assert task["curves"]["residual"][name][-1] <= 1e-3
        steps = task["curves"]["psnr_time"][name]["steps"]
        assert steps == sorted(set(steps))


@pytest.mark.slow
def test_both_models_have_the_budget_they_are_said_to_have(finished):
    """The equilibrium model has a second set of filters, of three channels."""
    methods = read(finished[0] / "results.json")["tasks"]["denoising"]["methods"]
    filters = 2 * 3 * 3 * 3
    assert methods["total_variation"]["parameters"] == 1
    assert methods["bilevel"]["parameters"] == filters + 2 + 1
    assert methods["equilibrium"]["parameters"] == 2 * filters + 2 + 1


@pytest.mark.slow
def test_equilibrium_starts_where_the_bilevel_model_is(finished):
    """The same batches, and at first the same map: the first losses are nearly the same."""
    training = read(finished[0] / "results.json")["tasks"]["denoising"]["curves"]["training"]
    further, equilibrium = training["bilevel_further"]["loss"], training["equilibrium"]["loss"]
    assert equilibrium[0] == pytest.approx(further[0], rel=0.05)


class Resources(HTMLParser):
    """Collects what a page would fetch."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        for name, value in attributes:
            if name in ("src", "srcset", "href", "xlink:href", "poster", "data", "action"):
                if tag != "a":
                    self.found.append(value)
            elif name == "style":
                self.found += re.findall(r"url\(([^)]*)\)", value)


@pytest.mark.slow
def test_report_needs_nothing_from_elsewhere(finished):
    text = (finished[0] / "report.html").read_text("utf-8")
    page = Resources()
    page.feed(text)
    assert page.found  # there are pictures
    assert all(value.startswith(("data:", "#")) for value in page.found)
    assert "@import" not in text
    assert not re.findall(r"url\(\s*['\"]?(?!data:|#)", text)
    assert "Equilibrium" in text


# Stopped and started again


def results_without_times(folder):
    """Everything in `results.json` but times and the folder's name."""

    def strip(value):
        if isinstance(value, dict):
            unlike = ("created", "command", "seconds", "solve_seconds")
            return {key: strip(part) for key, part in value.items() if key not in unlike}
        return [strip(part) for part in value] if isinstance(value, list) else value

    return strip(read(folder / "results.json"))


def assert_close(a, b, where="results"):
    """Equal, but for the last digits of numbers."""
    assert type(a) is type(b), where
    if isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_close(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), where
        for number, (left, right) in enumerate(zip(a, b, strict=True)):
            assert_close(left, right, f"{where}[{number}]")
    elif isinstance(a, float):
        assert a == pytest.approx(b, rel=1e-4, abs=1e-9), where
    else:
        assert a == b, where


@pytest.mark.slow
def test_signal_ends_the_run_with_a_message_and_no_results(stopped):
    folder, starts = stopped
    (code, output, errors), files = starts[0]
    assert code == exits.STOPPED, errors
    assert errors.endswith("Stopped by SIGTERM. Run the same command again to go on.\n")
    assert not output
    assert "Traceback" not in errors
    assert folder / "results.json" not in files
    assert folder / "report.html" not in files


@pytest.mark.slow
def test_started_again_it_goes_on(stopped):
    folder, starts = stopped
    place = folder / "denoising"
    first, last = (files for _, files in starts)
    # What was finished was not done again.
    done = [path for path in first if path.name == "done.json"]
    assert place / "total_variation" / "done.json" in done
    assert place / "bilevel" / "start" / "done.json" in done
    assert place / "bilevel" / "done.json" in done
    for path in done:
        assert last[path] == first[path], path
        if path.parent.name in MODELS:
            for kept in ("metrics.jsonl", "final.weights.h5"):
                assert last[path.parent / kept] == first[path.parent / kept]
    code, _, errors = starts[-1][0]
    assert code == 0, errors
    assert "denoising: bilevel:" not in errors  # its progress bar: it had been trained


@pytest.mark.slow
def test_stopped_run_reaches_the_numbers_of_an_uninterrupted_one(finished, stopped):
    whole, resumed = results_without_times(finished[0]), results_without_times(stopped[0])
    assert_close(whole, resumed)
    for name in MODELS:
        path = Path("denoising", name, "done.json")
        histories = [read(folder / path)["history"] for folder in (finished[0], stopped[0])]
        assert [row["step"] for row in histories[0]] == [10, 20, 30]
        assert_close(*([{**row, "seconds": 0.0} for row in history] for history in histories))


@pytest.mark.slow
def test_finished_run_started_again_trains_nothing(finished, arguments):
    folder, _, _ = finished
    before = times(folder)
    code, output, errors = COMPARE.run(f"--workdir={folder}", *arguments)
    assert code == 0, errors
    assert "step/s" not in errors
    assert "Equilibrium" in output
    after = times(folder)
    assert after.keys() == before.keys()
    changed = {path.name for path in after if after[path] != before[path]}
    assert changed == {"results.json", "report.html"}


# Wrong arguments, where the process makes a difference (the others: tests/experiments)


@pytest.mark.parametrize(
    ("wrong", "environment", "message", "expected"),
    [
        pytest.param(
            ["--config.train.stepz=3"],
            {},
            "no entry 'stepz'. Did you mean \"steps\"",
            exits.USAGE,
            marks=pytest.mark.slow,
        ),
        (None, {}, "flag --workdir=None: Flag --workdir must have a value", exits.USAGE),
        pytest.param(
            [],
            {"KERAS_BACKEND": "jax"},
            "KERAS_BACKEND=jax in the environment. Set KERAS_BACKEND=",
            exits.CONFIG,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            [],
            {"KERAS_BACKEND": "numpy"},
            "found 'numpy', chosen by KERAS_BACKEND=numpy",
            exits.CONFIG,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["--tasks=denoisin"],
            {},
            "Did you mean 'denoising'",
            exits.CONFIG,
            marks=pytest.mark.slow,
        ),
    ],
    ids=["misspelt entry", "no workdir", "jax", "numpy", "misspelt task"],
)
def test_wrong_start_ends_with_a_line_that_says_why(
    tmp_path, wrong, environment, message, expected
):
    folder = tmp_path / "run"
    arguments = [] if wrong is None else [f"--workdir={folder}", *wrong]
    code, output, errors = COMPARE.run(*arguments, **environment)
    assert code == expected
    (line,) = (line for line in errors.splitlines() if message in line)
    assert line.startswith("Error: ")
    assert "Traceback" not in output + errors
    assert not folder.exists()


# Everything


@pytest.mark.slow
def test_all_tasks_on_grey_pictures(tmp_path):
    pictures = make_pictures(tmp_path / "pictures", "L")
    command = [argument for argument in TINY if "channels" not in argument][1:]
    command += [f"--data_dir={pictures}", f"--workdir={tmp_path / 'run'}", "--steps=2"]
    code, output, errors = COMPARE.run(*command)
    assert code == 0, errors
    tasks = read(tmp_path / "run" / "results.json")["tasks"]
    assert list(tasks) == ["denoising", "inpainting", "deblurring"]
    for task in tasks.values():
        assert task["title"] in output
        worst = task["methods"]["measurement"]["psnr"]
        for name in ("total_variation", "bilevel", "equilibrium"):
            assert task["methods"][name]["psnr"] > worst
            assert task["methods"][name]["converged"] == 1.0


@pytest.mark.slow
def test_photographs_are_the_default(tmp_path):
    command = [argument for argument in TINY if "channels" not in argument]
    command += [f"--workdir={tmp_path / 'run'}", "--steps=1", "--config.data.max_side=48"]
    code, _, errors = COMPARE.run(*command, DEQ_KERAS_DATA=str(tmp_path / "data"))
    assert code == 0, errors
    data = read(tmp_path / "run" / "results.json")["data"]
    assert data["source"] == "photographs of scikit-image"
    assert "camera" in data["test"]

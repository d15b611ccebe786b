"""`experiments.evaluate`: the rows, the files, and whose images are looked at."""

import contextlib
import csv
import io
import json
import shutil

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

import deq_keras as dk
from experiments import evaluate, models, preset, tasks, train, trained
from experiments.inverse_problem import InverseProblem, load_images
from experiments.report.sheet import filter_picture, sheet
from tests.experiments.conftest import make_pictures
from tests.variants import covering, marked
from trainers.process import exits

OWN = "--config.model=tests.experiments.own_model:small"
# How ml_collections loads a configuration file.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")

TINY = (
    "--config.data.patch_size=12",
    "--config.prior.filters=2",
    "--config.prior.kernel_size=3",
    "--config.prior.padding=zero",  # the quickest to trace
    "--config.train.batch_size=2",
    "--config.train.steps_per_epoch=2",
    "--config.train.epochs=2",
    "--config.train.weight=0.05",
    "--config.train.tensorboard=False",
    "--config.train.deterministic=False",  # cannot be undone in a process of many tests
)


def read(folder):
    results = json.loads((folder / "results.json").read_text())
    with open(folder / "results.csv", newline="", encoding="utf-8") as file:
        return results, list(csv.DictReader(file))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Seven pictures, and below them the same name once more."""
    folder = make_pictures(tmp_path_factory.mktemp("data") / "pictures", 7)
    make_pictures(folder / "deeper, still", 1, least=30)
    return folder


def forget_curves(folder):
    """Without what was logged, an evaluation does not draw the curves of the training again."""
    (folder / "metrics.jsonl").unlink()


@pytest.fixture(scope="module")
def bilevel(run_program, tmp_path_factory, data):
    """The folder of a bilevel model, and that of its evaluation."""
    folder = tmp_path_factory.mktemp("bilevel") / "run"
    workdir = f"--workdir={folder}"
    assert run_program(train, workdir, f"--data_dir={data}", *TINY) == 0
    assert run_program(evaluate, workdir) == 0
    forget_curves(folder)
    return folder


@pytest.fixture(scope="module")
def small(run_program, tmp_path_factory, data):
    """The folder of a model of one's own without a solver, of which the first epoch is the best."""
    folder = tmp_path_factory.mktemp("small") / "run"
    arguments = (f"--workdir={folder}", f"--data_dir={data}", *TINY, OWN)
    assert run_program(train, *arguments, "--config.train.learning_rate=0.3") == 0
    forget_curves(folder)
    return folder


@pytest.fixture(scope="module")
def latest(run_program, bilevel):
    """The folder of an evaluation of the last weights, with what was printed."""
    output = bilevel / "latest"
    flags = (f"--output={output}", "--checkpoint=latest", "--pictures=0")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert run_program(evaluate, f"--workdir={bilevel}", *flags) == 0
    (output / "printed.txt").write_text(printed.getvalue(), "utf-8")
    return output


@pytest.fixture(scope="module")
def two_steps(run_program, bilevel):
    """An evaluation of two steps, in the folder of the training: its results, what is said of it.

    After that the first evaluation is there again.
    """
    path = bilevel / "evaluation" / "results.json"
    kept = path.read_text()
    assert run_program(evaluate, f"--workdir={bilevel}", "--max_steps=2", "--pictures=0") == 0
    results, of_the_model = json.loads(path.read_text()), trained.load(bilevel).metrics
    path.write_text(kept)
    return results, of_the_model


# Rows


def test_rows_are_what_the_model_does(bilevel, latest):
    """Everything once more, with a model that has the final weights."""
    config = ConfigDict(json.loads((bilevel / "config.json").read_text()))
    images = load_images(config)["test"]
    problem = InverseProblem(tasks.get("denoising", config), config, {"test": images})
    model = models.builder(problem, config, 0.3)()
    model.load_weights(bilevel / "final.weights.h5")
    (layer,) = (layer for layer in model.layers if hasattr(layer, "solve"))
    results, table = read(latest)
    assert [row["name"] for row in results["images"]] == list(images.names)
    triples = zip(results["images"], table, problem.test, strict=True)
    for row, line, (measurement, truth) in triples:
        solution = layer.solve(measurement)
        assert row["psnr"] == pytest.approx(float(dk.metrics.psnr(truth, solution.value)[0]))
        assert row["ssim"] == pytest.approx(float(dk.metrics.ssim(truth, solution.value)[0]))
        assert row["loss"] == pytest.approx(float(np.mean((solution.value - truth) ** 2)))
        assert row["steps"] == int(solution.steps[0])
        assert row["residual"] == pytest.approx(float(solution.residual[0]), rel=1e-3)
        assert row["converged"] is True
        assert 0 < row["error_bound"] < 1e-2
        assert row["seconds"] > 0
        assert list(line) == list(evaluate.COLUMNS)
        assert line["name"] == row["name"]
        assert float(line["psnr"]) == row["psnr"]
        assert line["converged"] == "True"


def test_means_and_what_they_are_of(bilevel, latest):
    for folder, which in ((bilevel / "evaluation", "best"), (latest, "latest")):
        results, _ = read(folder)
        for key in evaluate.COLUMNS[1:]:
            values = [row[key] for row in results["images"]]
            assert results["means"][key] == pytest.approx(np.mean(values))
        assert results["measurement"]["psnr"] == pytest.approx(20, abs=1.5)  # noise of 0.1
        assert results["checkpoint"]["which"] == which
        assert results["checkpoint"]["step"] == 2 * results["checkpoint"]["epoch"]
    assert results["checkpoint"]["epoch"] == 2
    assert results["data"]["source"].startswith("test split of ")
    assert results["config"]["seed"] == 0
    assert results["versions"]["deq_keras"] == dk.__version__


def test_best_and_latest_checkpoint_are_two(run_program, small, tmp_path):
    found = {}
    for which in ("best", "latest"):
        output = tmp_path / which
        flags = (f"--checkpoint={which}", f"--output={output}", "--pictures=0")
        assert run_program(evaluate, f"--workdir={small}", *flags) == 0
        found[which] = read(output)[0]
    assert found["best"]["checkpoint"]["epoch"] == 1
    assert found["latest"]["checkpoint"]["epoch"] == 2
    assert found["best"]["means"]["loss"] < found["latest"]["means"]["loss"]


def test_model_without_a_solver_has_empty_columns(run_program, small, tmp_path):
    assert run_program(evaluate, f"--workdir={small}", f"--output={tmp_path}") == 0
    results, table = read(tmp_path)
    for row, line in zip(results["images"], table, strict=True):
        assert row["steps"] is row["residual"] is row["converged"] is row["error_bound"] is None
        assert line["steps"] == line["converged"] == ""
        assert row["psnr"] > 0
    assert not list((tmp_path / "filters").iterdir())


# Solvers


@pytest.mark.parametrize("policy", marked(["mixed_bfloat16", "mixed_float16"], ["mixed_bfloat16"]))
def test_precision_of_a_training_and_another_one(run_program, data, policy, tmp_path):
    workdir = f"--workdir={tmp_path / 'run'}"
    half = (f"--config.train.precision={policy}", "--config.train.epochs=1", OWN)
    assert run_program(train, workdir, f"--data_dir={data}", *TINY, *half) == 0
    forget_curves(tmp_path / "run")
    found = {}
    for precision in (policy, "float32", "float64"):
        output = tmp_path / precision
        flags = [] if precision == policy else [f"--precision={precision}"]
        assert run_program(evaluate, workdir, f"--output={output}", "--pictures=0", *flags) == 0
        found[precision], _ = read(output)
        assert found[precision]["checkpoint"]["precision"] == precision
    rounded, single, double = (results["means"]["loss"] for results in found.values())
    assert single == pytest.approx(double, rel=1e-5)
    assert rounded == pytest.approx(double, rel=0.05)
    assert rounded != pytest.approx(double, rel=1e-6)  # it was computed as in the training


def test_solver_is_that_of_the_training(latest):
    record = {"solver": "LBFGS", "tolerance": 1e-4, "max_steps": 1000}
    assert read(latest)[0]["solvers"] == {"bilevel": record}
    printed = (latest / "printed.txt").read_text("utf-8")
    assert "LBFGS to 0.0001, at most 1000 steps" in printed
    assert "training:" not in printed


def test_what_was_evaluated_has_the_curves_of_its_training_too(bilevel):
    page = (bilevel / "evaluation" / "training.html").read_text("utf-8")
    assert "2 epochs and 4 steps" in page


def test_another_solver_is_taken_and_said(program, bilevel, tmp_path):
    flags = ("--solver=newton_krylov", "--tolerance=1e-5", "--pictures=0")
    ended = program(evaluate, f"--workdir={bilevel}", f"--output={tmp_path}", *flags)
    assert ended.code == 0, ended.errors
    found, before = read(tmp_path)[0], read(bilevel / "evaluation")[0]
    (record,) = found["solvers"].values()
    assert record["solver"] == "NewtonKrylov"
    assert record["tolerance"] == 1e-5
    assert record["training"] == before["solvers"]["bilevel"]
    assert "NewtonKrylov to 1e-05" in ended.output
    assert "(training: LBFGS to 0.0001" in ended.output
    for new, old in zip(found["images"], before["images"], strict=True):
        assert new["residual"] <= 1e-5 < old["residual"]
        assert new["psnr"] == pytest.approx(old["psnr"], abs=0.01)
        assert new["steps"] != old["steps"]


def test_steps_may_be_limited(two_steps):
    results, _ = two_steps
    assert [row["steps"] for row in results["images"]] == [2, 2]
    assert results["means"]["converged"] == 0
    assert results["solvers"]["bilevel"]["max_steps"] == 2


def test_numbers_of_another_solver_are_not_those_of_the_model(bilevel, two_steps):
    """Its card, say, has what its own solver takes."""
    own = trained.load(bilevel).metrics
    assert own["forward_steps" if "forward_steps" in own else "steps"] > 2
    _, of_the_model = two_steps
    assert of_the_model == {}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        (
            "--solver=newton",
            "'newton'. Did you mean 'newton_krylov'? Expected one of ['anderson', ",
        ),
        ("--solver=andersen", "Did you mean 'anderson'"),
        ("--tolerance=0", "`--tolerance` to be a finite number > 0"),
    ],
)
def test_wrong_solvers_end_before_any_work(program, tmp_path, flag, message):
    refused(program, exits.CONFIG, message, f"--workdir={tmp_path / 'none'}", flag)
    assert not (tmp_path / "none").exists()


def test_solver_of_a_model_that_solves_nothing(program, small, tmp_path):
    flags = (f"--output={tmp_path}", "--solver=anderson")
    refused(program, exits.CONFIG, "for a model with a layer", f"--workdir={small}", *flags)


# Pictures


def test_pictures_of_each_image(bilevel):
    folder = bilevel / "evaluation"
    results, _ = read(folder)
    stems = [row["name"].rsplit("/")[-1].removesuffix(".png") for row in results["images"]]
    expected = [f"{number:04d} {stem}.png" for number, stem in enumerate(stems)]
    config = ConfigDict(json.loads((bilevel / "config.json").read_text()))
    images = load_images(config)["test"].images
    for kind in ("pictures", "reconstructions"):
        assert sorted(path.name for path in (folder / kind).iterdir()) == expected
    for name, image, row in zip(expected, images, results["images"], strict=True):
        with Image.open(folder / "reconstructions" / name) as picture:
            array = np.asarray(picture) / 255.0
        assert array.shape == image.shape[:2]
        loss = np.mean((array - image[..., 0] / 255.0) ** 2)
        assert loss == pytest.approx(row["loss"], rel=0.05)  # rounded to bytes, and clipped
    (filters,) = (folder / "filters").iterdir()
    assert filters.name == "bilevel analysis.png"


def test_only_so_many_are_drawn(run_program, small, tmp_path):
    flags = (f"--output={tmp_path}", "--split=all", "--pictures=2")
    assert run_program(evaluate, f"--workdir={small}", *flags) == 0
    assert len(list((tmp_path / "pictures").iterdir())) == 2
    assert len(read(tmp_path)[0]["images"]) == 8


def test_sheet_shows_the_panels(tmp_path):
    truth = np.full((20, 30, 1), 0.5)
    dark, bright = truth - 0.5, truth + 0.5
    panels = (("Measurement", dark), ("Reconstruction", bright), ("Truth", truth))
    sheet("a name", panels, tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    # Pictures, the same detail of each, and errors: each panel is a wide part of its row.
    for height in (0.3, 0.55):
        row = pixels[round(height * len(pixels))]
        grey = (row == row[:, :1]).all(axis=-1)
        for level in (0, 255, 127):
            assert (grey & (np.abs(row[:, 0].astype(int) - level) <= 1)).sum() > 0.1 * len(row)
    row = pixels[round(0.85 * len(pixels))]
    assert (row != row[:, :1]).any(axis=-1).sum() > 0.1 * len(row)  # errors have a colour


def test_filter_picture_is_enlarged():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 1, 4))
    content = filter_picture(kernel, enlarge=5)
    assert content.startswith(b"\x89PNG")
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.width % 5 == picture.height % 5 == 0


# Whose images


@pytest.mark.parametrize(
    ("make", "flags", "count", "source"),
    covering(
        [
            (None, [], 2, "test split of"),
            (None, ["--split=all"], 8, "all of"),
            ("same", [], 2, "test split of"),
            ("folder", [], 5, "all of"),
            ("folder", ["--split=test"], 1, "test split of"),
            ("splits", [], 2, "test split of"),
            ("splits", ["--split=all"], 6, "all of"),
            ("test", [], 2, "test split of"),
        ]
    ),
)
def test_images(run_program, small, data, tmp_path, make, flags, count, source):
    arguments = [f"--workdir={small}", f"--output={tmp_path / 'out'}", "--pictures=0", *flags]
    folder = data
    if make == "folder":
        folder = make_pictures(tmp_path / "folder", 5)
    elif make in ("splits", "test"):
        folder = tmp_path / "splits"
        for number, split in enumerate(("train", "val", "test") if make == "splits" else [make]):
            make_pictures(folder / split, 2, least=30 + 5 * number)
    if make:
        arguments.append(f"--data_dir={folder}")
    assert run_program(evaluate, *arguments) == 0
    results, _ = read(tmp_path / "out")
    assert len(results["images"]) == results["data"]["images"] == count
    assert results["data"]["source"] == f"{source} {folder}"


def test_large_images_are_shrunk_as_in_training_or_as_asked(run_program, small, tmp_path):
    make_pictures(tmp_path / "large", 1, least=270)
    arguments = (f"--workdir={small}", f"--data_dir={tmp_path / 'large'}")
    for flags, side in (([], 256), (["--max_side=0"], 276), (["--max_side=50"], 50)):
        output = tmp_path / f"out{side}"
        assert run_program(evaluate, *arguments, f"--output={output}", *flags) == 0
        (picture,) = (output / "reconstructions").iterdir()
        with Image.open(picture) as image:
            assert max(image.size) == side


# What is refused


def refused(program, code, message, *arguments):
    ended = program(evaluate, *arguments)
    assert message in ended.errors
    assert ended.errors.startswith("Error: ")
    assert ended.code == code


def test_folder_without_a_training(program, tmp_path):
    where = f"--workdir={tmp_path / 'none'}"
    refused(program, exits.CONFIG, "to be the folder of a training", where)
    assert not (tmp_path / "none").exists()


def test_folder_of_another_program(program, tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 0, "tasks": ["denoising"]}')
    refused(program, exits.CONFIG, "by experiments.train", f"--workdir={tmp_path}")


def test_training_without_a_checkpoint(program, small, tmp_path):
    shutil.copy(small / "config.json", tmp_path)
    refused(program, exits.IO_ERROR, "no best checkpoint in", f"--workdir={tmp_path}")


def test_checkpoint_of_another_model(program, small, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(small, folder)
    config = json.loads((folder / "config.json").read_text())
    config["prior"]["filters"] = 5
    (folder / "config.json").write_text(json.dumps(config))
    message = "was made with another configuration (prior.filters was 2, is 5"
    refused(program, exits.CONFIG, message, f"--workdir={folder}")


def test_images_smaller_than_the_window_of_ssim(program, small, tmp_path):
    folder = make_pictures(tmp_path / "pictures", 2, least=10)
    message = "at least 11 pixels on a side, to measure their SSIM. Received '0.png' of 10 x 16"
    where = (f"--workdir={small}", f"--data_dir={folder}", f"--output={tmp_path / 'out'}")
    refused(program, exits.BAD_DATA, message, *where)


@pytest.mark.parametrize(
    ("folder", "message"), [("no/such/folder", "does not exist"), ("", "name of a folder")]
)
def test_folder_of_images_that_is_not_there(program, small, tmp_path, folder, message):
    code = exits.BAD_DATA if folder else exits.CONFIG
    arguments = (f"--workdir={small}", f"--data_dir={folder}", f"--output={tmp_path}")
    refused(program, code, message, *arguments)


def test_output_that_cannot_be_written(program, small, tmp_path):
    (tmp_path / "file").write_text("mine")
    arguments = (f"--workdir={small}", f"--output={tmp_path / 'file' / 'out'}")
    refused(program, exits.IO_ERROR, "Name another one with --output", *arguments)


@pytest.mark.parametrize("flag", ["--checkpoint=first", "--split=train", "--pictures=-1"])
def test_wrong_flags(program, small, flag):
    refused(program, exits.USAGE, flag.split("=")[0].strip("-"), f"--workdir={small}", flag)


# A preset of it


CARD = ("--description=Tiny", "--data=noise", "--command=none", "--licence=none")


def test_a_preset_holds_the_trained_prior(run_program, bilevel, tmp_path):
    folder = tmp_path / "preset"
    arguments = (f"--workdir={bilevel}", f"--output={folder}", *CARD)
    assert run_program(preset, *arguments) == 0
    results, _ = read(bilevel / "evaluation")
    card, prior = dk.presets.card(folder), dk.presets.load(folder)
    assert card["results"]["psnr"] == round(results["means"]["psnr"], 4)
    assert (card["noise"], card["channels"], card["parameters"]) == (0.1, 1, 2 * 9 + 2)
    config = ConfigDict(results["config"])
    task = tasks.get(config.task, config)
    layer = dk.layers.Variational(task.operator(), prior, card["weight"], solver="lbfgs")
    layer.solver.tolerance = config.train.tolerance
    problem = InverseProblem(task, config, load_images(config))
    measurement, truth = next(iter(problem.test))
    found = layer.solve(measurement).value
    psnr = -10.0 * np.log10(np.mean((found - truth) ** 2))
    np.testing.assert_allclose(psnr, results["images"][0]["psnr"], atol=1e-3)


def test_a_preset_without_a_card(program, bilevel, tmp_path):
    ended = program(preset, f"--workdir={bilevel}", f"--output={tmp_path}", *CARD[1:])
    assert "Received no ['--description']" in ended.errors
    assert ended.code == exits.CONFIG


@pytest.mark.parametrize(
    ("which", "message"),
    [("small", "training of a model with a prior"), ("bilevel", "run python -m")],
)
def test_presets_of_other_things(program, request, which, message, tmp_path):
    workdir = tmp_path / "copy"
    skipped = shutil.ignore_patterns("evaluation")
    shutil.copytree(request.getfixturevalue(which), workdir, ignore=skipped)
    ended = program(preset, f"--workdir={workdir}", f"--output={tmp_path / 'new'}", *CARD)
    assert message in ended.errors
    assert ended.code == exits.CONFIG
    assert not (tmp_path / "new").exists()


# Names


def test_names_of_images_and_folders_are_taken_as_they_are(program, tmp_path, monkeypatch):
    """Brackets are no markup and no pattern, a dollar is no formula, and `~` is the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    data = tmp_path / "pictures [b]"
    names = ["bold[/b].png", "price$^$.png", "scan [edited].png"]
    pictures = sorted(make_pictures(tmp_path / "made", 9).iterdir())
    for split in ("train", "validation", "test"):
        for name in names:
            (data / split / name).parent.mkdir(parents=True, exist_ok=True)
            pictures.pop().rename(data / split / name)
    workdir, given = "--workdir=~/lr=[1,2]", "--data_dir=~/pictures [b]"
    options = ("--config.train.decay_steps=0", "--config.model=tests.experiments.own_model:small")
    for epochs in (1, 2):  # the second one goes on
        ended = program(train, workdir, given, *TINY, *options, f"--config.train.epochs={epochs}")
        assert ended.code == 0, ended.errors
    assert f"Trained for 2 epochs, {2 * 2} steps" in ended.output
    ended = program(evaluate, workdir)
    assert ended.code == 0, ended.errors
    for name in names:
        assert name in ended.output
    assert "pictures [b]" in ended.output
    results, _ = read(tmp_path / "lr=[1,2]" / "evaluation")
    assert sorted(row["name"] for row in results["images"]) == [f"test/{name}" for name in names]
    assert len(list((tmp_path / "lr=[1,2]" / "evaluation" / "pictures").iterdir())) == 3


def test_names_in_a_sheet_are_no_formula(tmp_path):
    image = np.full((8, 8, 1), 0.5)
    panels = [("price$^$", image), ("estimate", image), ("truth", image)]
    sheet("price$^$.png", panels, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").stat().st_size > 0

"""`experiments.reproduce`: command lines, a grid from end to end, and what is found again."""

import json
import signal

import numpy as np
import pytest

from experiments import reproduce
from tests.integration.programs import Program
from trainers.process import exits

pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")

TINY = (
    "--experiment=mnist",
    "--config.data.train=10",
    "--config.data.test=5",
    "--config.train.batch_size=5",
    "--config.train.epochs=1",
    "--config.grid.tasks=('denoising',)",
    "--config.grid.varied=()",
    "--config.grid.further=()",
    "--fidelity=ours",
)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A file of random digits."""
    path = tmp_path_factory.mktemp("digits") / "digits.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (1020, 28, 28, 1))
    np.savez(path, image=pixels.astype(np.uint8), label=np.zeros(1020, np.uint8))
    return path


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--experiment=cifar"], exits.USAGE, "mnist|faces"),
        (["--subset=whole"], exits.USAGE, "quick|reference|full"),
        (["--fidelity=theirs"], exits.USAGE, "ours|paper"),
        (["--experiment=mnist"], exits.CONFIG, "--data_file=FILE.npz or --dataset=mnist"),
        (["--experiment=mnist", "--data_file=none.npz"], exits.BAD_DATA, "'none.npz' to be"),
        (["--experiment=faces", "--data_file=a.npz"], exits.CONFIG, "Received file='a.npz'"),
        (["--experiment=faces", "--subset=reference"], exits.USAGE, "one of quick, full"),
        (["--experiment=faces", "--config.grid.tasks=('inpainting',)"], exits.CONFIG, "inpainting"),
        (["--config.ours.tolerance=-1.0"], exits.CONFIG, "ours.tolerance to be finite and > 0"),
        (["--config.train.epoch=3"], exits.USAGE, "no entry 'epoch"),
        (["--config.grid.vary=all"], exits.CONFIG, "--data_file"),
    ],
)
def test_wrong_command_lines(program, tmp_path, monkeypatch, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    ended = program(reproduce, f"--workdir={tmp_path / 'run'}", *arguments)
    assert ended.code == code
    assert message in ended.errors
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())


@pytest.mark.slow
def test_a_grid_from_end_to_end(program, tmp_path, digits):
    arguments = (f"--workdir={tmp_path}", f"--data_file={digits}", "--jobs=1", *TINY)
    ended = program(reproduce, *arguments)
    assert ended.code == 0, ended.errors
    results = json.loads((tmp_path / "results.json").read_text())
    assert [run["settings"]["model"] for run in results["runs"]] == ["bilevel", "equilibrium"]
    assert all(len(run["epochs"]) == 2 and run["failed"] is None for run in results["runs"])
    verdicts = {claim["claim"][:20]: claim["verdict"] for claim in results["claims"]}
    assert verdicts["Bilevel learning who"] == "supported"
    assert "supported: Bilevel learning whose lower level" in ended.output
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>")
    for run in results["runs"]:
        assert run["id"] in page
        assert (tmp_path / "runs" / run["id"] / "pictures.npz").exists()
    # The same runs in another grid are taken as they are.
    (tmp_path / "results.json").unlink()
    ended = program(reproduce, *arguments, "--config.grid.further=('paper',)")
    assert ended.code == 0, ended.errors
    assert json.loads((tmp_path / "results.json").read_text())["runs"] == results["runs"]
    # Of another configuration nothing is taken, and nothing overwritten.
    results = json.loads((tmp_path / "results.json").read_text())
    ended = program(reproduce, *arguments, "--config.seed=1")
    assert ended.code == exits.CONFIG
    assert "results of another configuration (seed was 0, is 1)" in ended.errors
    assert json.loads((tmp_path / "results.json").read_text()) == results


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_stopped_and_started_again(tmp_path, digits, signum):
    program = Program("reproduce", (*TINY, f"--data_file={digits}", "--config.train.epochs=30"))
    folder = tmp_path / "run"
    name = "denoising_noise0.5_tau0.1_gamma0.5_relu_bilevel_random_ours"
    landmark = folder / "runs" / name / "training" / "checkpoints" / "ckpt-4.index"
    code, _, errors = program.interrupt(signum, landmark, f"--workdir={folder}", "--jobs=2")
    assert code == exits.STOPPED, errors
    assert "Traceback" not in errors
    assert "Run the same command again to go on." in errors
    assert not (folder / "results.json").exists()
    code, output, errors = program.run(f"--workdir={folder}", "--jobs=2")
    assert code == 0, errors
    found = json.loads((folder / "results.json").read_text())["runs"][0]
    assert [row["epoch"] for row in found["epochs"]] == list(range(31))
    code, _, errors = program.run(f"--workdir={tmp_path / 'whole'}", "--jobs=1")
    assert code == 0, errors
    whole = json.loads((tmp_path / "whole" / "results.json").read_text())["runs"][0]
    assert [row["train_loss"] for row in found["epochs"]] == pytest.approx(
        [row["train_loss"] for row in whole["epochs"]], rel=1e-4
    )

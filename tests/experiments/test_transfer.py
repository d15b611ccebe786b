"""`experiments.transfer`: what is fitted, on which images, and who is ahead."""

import json

import numpy as np
import pytest
from PIL import Image

import deq_keras as dk
from experiments import train, transfer
from tests.experiments.test_evaluate import TINY
from trainers.process import exits

# How ml_collections loads a configuration file.
pytestmark = pytest.mark.filterwarnings(r"ignore:the load_module\(\) method:DeprecationWarning")

SMALL = (
    "--config.tuning.refinements=0",
    "--config.tuning.images=2",
    "--config.solve.tolerance=1e-2",
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Seven pictures of one size, for which a solve is traced once."""
    folder, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for number in range(7):
        pixels = rng.integers(0, 256, (16, 18), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


@pytest.fixture(scope="module")
def run(run_program, tmp_path_factory, data):
    """The folder of a transfer of a preset to inpainting."""
    folder = tmp_path_factory.mktemp("transfer") / "run"
    arguments = (f"--workdir={folder}", f"--data_dir={data}", "--config.task=inpainting")
    assert run_program(transfer, *arguments, "--preset=foe_bsd400", *SMALL) == 0
    return folder, arguments


@pytest.mark.slow
def test_results(run):
    results = json.loads((run[0] / "results.json").read_text())
    methods = results["methods"]
    assert list(methods) == ["measurement", "total_variation", "transferred"]
    names = [row["name"] for row in methods["transferred"]["images"]]
    assert not set(names) & set(results["tuned_on"])
    assert len(results["tuned_on"]) == 2
    tuned = methods["transferred"]["tuned"]
    weight = dk.presets.card("foe_bsd400")["weight"]
    tried = np.array(tuned["tried"])
    assert len(tried) == 7 * 7
    assert tried[:, 0].min() == pytest.approx(1e-2 * weight)
    assert tuned["loss"] == tried[:, 2].min()
    assert [tuned["weight"], tuned["scale"]] in tried[:, :2].tolist()
    assert len(methods["total_variation"]["tuned"]["tried"]) == 7
    for record in methods.values():
        assert record["means"]["psnr"] == pytest.approx(
            np.mean([row["psnr"] for row in record["images"]])
        )
    assert methods["transferred"]["means"]["converged"] == 1.0
    ahead = methods["transferred"]["means"]["psnr"] - methods["total_variation"]["means"]["psnr"]
    word = "ahead of" if ahead > 0 else "behind"
    assert results["verdict"][0].startswith(f"The prior is {abs(ahead):.2f} dB {word} total")


@pytest.mark.slow
def test_goes_on_and_says_the_same(run, program):
    before = json.loads((run[0] / "results.json").read_text())
    ended = program(transfer, *run[1], "--preset=foe_bsd400", *SMALL)
    assert ended.code == 0
    after = json.loads((run[0] / "results.json").read_text())
    for method in ("total_variation", "transferred"):
        assert before["methods"][method] == after["methods"][method]  # seconds too: it was kept
    assert "total variation" in ended.output
    assert "results.json" in ended.output
    other = program(transfer, *run[1], "--preset=wcrr_bsd400", *SMALL)
    assert other.code == exits.CONFIG
    assert "another configuration" in other.errors


@pytest.mark.slow
def test_a_trained_map_without_an_energy(run_program, data, tmp_path):
    folder = tmp_path / "trained"
    model = "--config.model=equilibrium"
    assert run_program(train, f"--workdir={folder}", f"--data_dir={data}", *TINY, model) == 0
    output = tmp_path / "transfer"
    arguments = (f"--workdir={output}", f"--from={folder}", "--config.task=deblurring")
    assert run_program(transfer, *arguments, *SMALL) == 0
    results = json.loads((output / "results.json").read_text())
    assert results["config"]["data"]["data_dir"] == str(data)
    assert results["methods"]["transferred"]["tuned"]["scale"] > 0


def test_mistakes(program, data, tmp_path):
    arguments = (f"--workdir={tmp_path / 'run'}", f"--data_dir={data}")
    for wrong, words in (
        ((), "Expected --preset or --from"),
        (("--preset=foe_bsd400", f"--from={tmp_path}"), "Expected --preset or --from"),
        (("--preset=foe_bsd40",), "Did you mean"),
        (("--preset=foe_bsd400", "--config.task=blur"), "task"),
        (("--preset=foe_bsd400", "--config.tuning.images=0"), "tuning.images >= 1"),
    ):
        ended = program(transfer, *arguments, *wrong)
        assert ended.code == exits.CONFIG, wrong
        assert words in ended.errors
    assert not (tmp_path / "run").exists()

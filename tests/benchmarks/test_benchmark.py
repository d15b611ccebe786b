"""The benchmark: its reference, its rules, and a tiny run of the program without any peer."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import optimize, signal

from benchmarks import convolutions, measure, peers_suite, problems, reference
from benchmarks.peers import ours
from benchmarks.peers.torch_map import need

ROOT = Path(__file__).resolve().parents[2]
BLUR = np.array([[0.1, 0.2, 0.0], [0.3, 0.2, 0.0], [0.0, 0.1, 0.1]])


def tiny(blur=None, sharpness=3.0, data_weight=2.0):
    """A problem of two images of 6 x 5 pixels, in float64 all through."""
    rng = np.random.default_rng(1)
    return problems.Problem(
        filters=rng.normal(size=(3, 3, 1, 2)),
        measurement=rng.normal(size=(2, 6, 5, 1)),
        target=rng.normal(size=(2, 6, 5, 1)),
        step=0.01,
        data_weight=data_weight,
        sharpness=sharpness,
        blur=blur,
    )


def dense_energy(problem, filters, u):
    """`E(u)` of one image, straight from the definition, by SciPy's sums."""
    total = 0.0
    for k in range(filters.shape[-1]):
        response = signal.correlate2d(u, filters[:, :, 0, k], mode="same")
        total += np.log(np.cosh(problem.sharpness * response)).sum() / problem.sharpness
    return total


def dense_solution(problem, filters, y):
    """The minimiser for one image: quasi-Newton on the definition, then dense Newton steps."""
    shape = y.shape
    unit = np.eye(y.size).reshape(-1, *shape)
    analysis = [
        np.stack([signal.correlate2d(e, filters[:, :, 0, k], mode="same").ravel() for e in unit], 1)
        for k in range(filters.shape[-1])
    ]
    a, chi = np.concatenate(analysis), problem.sharpness
    blur = np.eye(y.size)
    if problem.blur is not None:
        columns = [signal.convolve2d(e, problem.blur, mode="same", boundary="wrap") for e in unit]
        blur = np.stack([column.ravel() for column in columns], 1)

    def gradient(u):
        data = problem.data_weight * blur.T @ (blur @ u - y.ravel())
        return data + a.T @ np.tanh(chi * a @ u)

    def hessian(u):
        slope = chi * (1 - np.tanh(chi * a @ u) ** 2)
        return problem.data_weight * blur.T @ blur + a.T @ (slope[:, None] * a)

    found = optimize.root(gradient, y.ravel(), jac=hessian, tol=1e-14)
    return found.x.reshape(shape), np.abs(gradient(found.x)).max()


def dense_loss(problem, filters, measurement):
    """The loss at the exact minimisers."""
    loss = 0.0
    for y, x in zip(measurement[..., 0], problem.target[..., 0], strict=True):
        u, residual = dense_solution(problem, filters, y)
        assert residual < 1e-9
        loss += 0.5 * np.sum((u - x) ** 2)
    return loss


@pytest.mark.parametrize("blur", [None, BLUR], ids=["identity", "blur"])
def test_the_reference_is_the_derivative_of_the_exact_solution(blur):
    problem = tiny(blur)
    truth = reference.solve(problem)
    for index in range(2):
        u, _ = dense_solution(problem, problem.filters, problem.measurement[index, ..., 0])
        np.testing.assert_allclose(truth.solution[index, ..., 0], u, atol=1e-9)
    rng = np.random.default_rng(2)
    for name in ("filters", "measurement"):
        direction = rng.normal(size=getattr(problem, name).shape)
        losses = []
        for length in (1e-5, -1e-5):
            moved = {"filters": problem.filters, "measurement": problem.measurement}
            moved[name] = moved[name] + length * direction
            losses.append(dense_loss(problem, **moved))
        slope = (losses[0] - losses[1]) / 2e-5
        assert slope == pytest.approx(np.sum(getattr(truth, name) * direction), rel=1e-6)


def test_the_energy_of_the_reference_is_the_definition():
    problem = tiny()
    energy = reference.Energy(problem)
    u = np.random.default_rng(3).normal(size=problem.measurement.shape)
    expected = problem.data_weight / 2 * np.sum((u - problem.measurement) ** 2)
    expected += sum(dense_energy(problem, problem.filters, image[..., 0]) for image in u)
    assert energy.value(u) == pytest.approx(expected, rel=1e-12)


def test_processes_do_not_change_the_reference():
    problem = tiny()
    one, two = reference.solve(problem), reference.solve(problem, processes=2)
    np.testing.assert_array_equal(one.filters, two.filters)
    np.testing.assert_array_equal(one.measurement, two.measurement)


def test_a_reference_that_did_not_converge_is_refused():
    with pytest.raises(RuntimeError, match="did not converge"):
        reference.solve(tiny(), max_newton=1)


def test_errors_are_relative():
    truth = reference.solve(tiny())
    off = {"filters": 1.001 * truth.filters, "measurement": truth.measurement}
    errors = reference.errors(truth, off)
    assert errors == {
        "filters": pytest.approx(1e-3),
        "measurement": 0.0,
        "gradient": pytest.approx(1e-3),
    }
    off["measurement"] = off["measurement"] * np.nan
    assert reference.errors(truth, off)["gradient"] == np.inf


def test_the_map_of_the_peers_is_a_contraction():
    problem = problems.peers(batch=1, size=16)
    bound = problems.filters_norm(problem.filters)
    # A Rayleigh quotient, from below, on an image as large as the benchmark's.
    energy = reference.Energy(dataclasses.replace(problem, measurement=np.zeros((1, 64, 64, 1))))
    v = np.random.default_rng(0).normal(size=(1, 64, 64, 1))
    for _ in range(100):
        v = energy.synthesise(energy.analyse(v))
        v /= np.linalg.norm(v)
    norm = np.linalg.norm(energy.analyse(v))
    assert 0.9 * bound < norm <= bound
    assert problem.step * (1 + bound**2) < 1.9
    sharp = problems.peers(batch=1, size=16, sharpness=20.0)
    assert sharp.sharpness == 20.0
    assert sharp.step * (1 + 20.0 * bound**2) == pytest.approx(problem.step * (1 + bound**2))


@pytest.mark.parametrize("task", [None, "denoising", "deblurring"])
def test_our_energy_is_that_of_the_problem(task):
    if task is None:
        problem = problems.peers(batch=1, size=16, count=4)
    else:
        problem = problems.paper(task, images=1, height=32, width=28)
    assert ours.check_map(problem) < 1e-5


@pytest.mark.slow  # of the benchmark, no part of the package
@pytest.mark.parametrize(
    "route",
    [
        {"route": "energy"},
        {"route": "cell"},
        {"route": "cell", "convolutions": "library"},
        {"route": "cell", "convolutions": "layers"},
    ],
    ids=["energy", "cell", "cell-library", "cell-layers"],
)
def test_our_gradients_are_in_the_coordinates_of_the_problem(route):
    problem = problems.peers(batch=2, size=12, count=3)
    truth = reference.solve(problem)
    step, finish = ours.build(problem, {**route, "tolerance": 1e-6})
    errors = reference.errors(truth, finish(step()))
    assert errors["gradient"] < 1e-4


class Scripted:
    """A contest without processes: errors and times follow from the options by a rule."""

    def __init__(self, rule):
        self.rule, self.asked = rule, []

    def evaluate(self, module, options, repeats):
        assert repeats >= 3  # one run of a setting is not enough
        self.asked.append(options)
        error, seconds = self.rule(options)
        if error is None:
            return {"failed": "no"}
        return {"seconds": seconds, "errors": {"gradient": error}, "steps": {}}

    def forget(self, module):
        pass


def test_tuning_takes_the_fastest_that_meets_the_target():
    def rule(options):
        if options["kind"] == "broken":
            return None, None
        if options["kind"] == "stuck":  # fast, and never exact
            return max(2e-3, options["tolerance"]), 0.01
        pace = {"slow": 2.0, "fast": 1.0}[options["kind"]]
        return 3 * options["tolerance"], -pace * np.log(options["tolerance"])

    contest, said = Scripted(rule), []
    families = {kind: {"kind": kind} for kind in ("broken", "stuck", "slow", "fast")}
    rows, best = measure.tune(contest, "who", "module", families, [1e-5, 1e-3], said.append)
    assert said == rows
    for target in (1e-3, 1e-5):
        assert best[target]["family"] == "fast"
        assert target / 4 < best[target]["error"] <= target
    assert [row["failed"] for row in rows if row["family"] == "broken"] == ["no"]
    _, best = measure.tune(contest, "who", "m", {"stuck": {"kind": "stuck"}}, [1e-3], said.append)
    assert best == {1e-3: None}


def test_no_setting_is_dropped_for_one_bad_moment():
    """The second family is ten times too slow when it is first measured, as on a busy machine."""
    seen = set()

    def rule(options):
        seconds = -np.log(options["tolerance"]) * {"first": 1.0, "second": 0.5}[options["kind"]]
        if options["kind"] == "second" and not seen:
            seen.add("second")
            seconds *= 10
        return 30 * options["tolerance"], seconds

    families = {kind: {"kind": kind} for kind in ("first", "second")}
    _, best = measure.tune(Scripted(rule), "who", "module", families, [1e-3, 1e-5], lambda _: None)
    assert [row["family"] for row in best.values()] == ["second", "second"]


def test_the_load_of_the_machine_is_known_where_the_system_says_it():
    assert measure.load() is None or measure.load() >= 0


def test_quartiles_and_ratios():
    assert measure.quartiles([3.0]) == {"median": 3.0, "low": 3.0, "high": 3.0}
    assert measure.quartiles([1, 2, 3, 4, 5]) == {"median": 3, "low": 2, "high": 4}
    # Of each round, not of the medians.
    assert measure.ratio([2.0, 30.0, 8.0], [1.0, 10.0, 2.0])["median"] == 3.0


def test_a_missing_peer_names_the_extra():
    name = "a_peer_that_nobody_has"
    with pytest.raises(ImportError, match=r"cpu,train,benchmark"):
        need(name)


def test_unknown_contestants_are_refused():
    with pytest.raises(ValueError, match="Expected contestants among"):
        peers_suite.contestants(["torchdek"])


def benchmark(output, *arguments):
    """Run the program in a process of its own."""
    command = [sys.executable, "-m", "benchmarks", f"--output={output}", *arguments]
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


@pytest.mark.slow
def test_the_program_without_peers(tmp_path):
    path = tmp_path / "new" / "peers.json"
    arguments = ["--suite=peers", "--size=12", "--batch=1", "--filters=3", "--repeats=3"]
    arguments += ["--contestants=ours", "--targets=1e-2", "--nomemory", "--threads=1"]
    arguments += ["--only=defaults"]  # few settings, little time
    done = benchmark(path, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads(path.read_text("utf-8"))
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    results = record["results"]
    assert results["problem"]["difference_of_our_energy"] < 1e-5
    assert len(results["load"]["over_time"]) == 4  # the start, two contestants and one target
    (target,) = results["targets"]
    assert {e["contestant"] for e in target["contestants"]} == set(peers_suite.OURS)
    problem = problems.peers(batch=1, size=12, count=3)
    truth = reference.solve(problem)
    for entry in target["contestants"]:
        assert entry["met"]
        assert entry["errors"]["gradient"] <= 1e-2
        assert len(entry["seconds"]) == 3
        assert min(entry["seconds"]) <= entry["low"] <= entry["median"] <= entry["high"]
        assert entry["median"] == pytest.approx(np.median(entry["seconds"]))
        assert entry["family"] in done.stdout
        # The errors again, here: the same settings, another process.
        step, finish = ours.build(problem, entry["options"])
        again = reference.errors(truth, finish(step()))
        assert again["gradient"] == pytest.approx(entry["errors"]["gradient"], rel=0.05)
        met = [row for row in results["sweep"] if row["contestant"] == entry["contestant"]]
        met = [row for row in met if row["error"] is not None and row["error"] <= 1e-2]
        assert min(met, key=lambda row: row["seconds"])["family"] == entry["family"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite=peers", "--contestants=nobody"], "Expected contestants among"),
        (["--suite=peers", "--targets=1e-9"], "Expected --targets"),
        (["--suite=peers", "--sharpness=1,2"], "Expected one --sharpness"),
        (["--suite=paper", "--tasks=inpainting"], "Expected --tasks"),
    ],
)
def test_wrong_flags_are_explained(tmp_path, arguments, message):
    done = benchmark(tmp_path / "x.json", *arguments)
    assert done.returncode == 1
    assert message in done.stderr


def test_a_folder_for_results_is_refused_before_anything_is_measured(tmp_path):
    done = benchmark(tmp_path, "--suite=peers", "--contestants=ours")
    assert done.returncode == 1
    assert "Expected --output to name a JSON file" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_suite_scaling(tmp_path):
    path = tmp_path / "scaling.json"
    arguments = ["--suite=scaling", "--size=12", "--batch=1", "--filters=2", "--repeats=1"]
    done = benchmark(path, *arguments, "--iterations=3,6")
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(path.read_text("utf-8"))["results"]
    assert [row["forward_steps"] for row in results["iterations"]] == [3, 6]
    assert [row["backward_steps"] for row in results["iterations"]] == [3, 6]
    known = ours.names()
    pairs = len(known["solvers"]) * (len(known["linear_solvers"]) + len(known["adjoints"]) - 1)
    assert len(results["combinations"]) == pairs
    assert {row["solver"] for row in results["compaction"]} == set(known["solvers"])


def test_the_forms_of_a_convolution_agree():
    values = [form() for form in convolutions.forms((2, 8, 9, 20), 5, 1)]
    assert len(values) == len(convolutions.COLUMNS)
    for plain, own in zip(values[:3], values[3:], strict=True):
        np.testing.assert_allclose(plain, own, rtol=1e-3, atol=1e-3)

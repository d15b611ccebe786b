"""The suite `solvers`: its grid and reference, its rules, and a tiny run of the program."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk
from benchmarks import (
    solvers_cells,
    solvers_grid,
    solvers_output,
    solvers_peers,
    solvers_suite,
    solvers_worker,
)
from tests.variants import covering, marked

ROOT = Path(__file__).resolve().parents[2]
GRID = solvers_grid.families(batch=1, size=16, filters=3, seed=0)


def family(task, prior):
    (found,) = [f for f in GRID if (f.task, f.prior) == (task, prior)]
    return found


# Each task and each prior is in one of them.
OFTEN = [GRID[n] for n, p in enumerate(covering([(f.task, f.prior) for f in GRID])) if not p.marks]


@pytest.mark.parametrize("one", marked(GRID, OFTEN), ids=lambda one: one.name)
def test_both_precisions_are_of_one_map(one):
    single, double = (solvers_cells.cell(one, dtype) for dtype in ("float32", "float64"))
    y = tf.constant(solvers_cells.measurement(one))
    problem = single.bind(y)
    z = problem.initial_value
    assert z.shape == (1, 16, 16, 1)
    other = double.bind(tf.cast(y, tf.float64))
    # Of a step its gradient: where its length is estimated, that is by other random numbers.
    f, exact = (p.f if p.step is None else p.step.gradient for p in (problem, other))
    exact = exact(tf.cast(z, tf.float64))
    assert exact.dtype == tf.float64
    np.testing.assert_allclose(f(z), exact, rtol=1e-3, atol=1e-5)
    energy = problem.step is not None and problem.step.energy is not None
    assert energy == (one.kind == "energies")
    assert np.linalg.norm(problem.f(z) - z) > 1e-3  # there is something to solve


def test_names_are_unique_and_can_be_chosen():
    assert len({one.name for one in GRID}) == len(GRID)
    chosen = solvers_grid.families(1, 16, 3, 0, only="inpainting, untied")
    assert [one.name for one in chosen] == ["inpainting, untied experts"]
    with pytest.raises(ValueError, match="Expected --only to be part of one of"):
        solvers_grid.families(1, 16, 3, 0, only="painting by numbers")


def test_untied_experts_are_no_gradients_and_have_the_sharpness_that_is_asked_for():
    cell = solvers_cells.cell(family("denoising", "untied experts"), "float64")
    solvers_cells.set_sharpness(cell, 700.0)
    c = cell.prior.coefficients()
    np.testing.assert_allclose(c.sharpness, 700.0, rtol=1e-6)
    difference = tf.norm(cell.prior.synthesis - cell.prior.analysis) / tf.norm(cell.prior.analysis)
    assert float(difference) == pytest.approx(0.3)


def test_the_way_to_a_sharp_problem():
    assert solvers_worker.ramp(None) == [None]
    assert solvers_worker.ramp(20.0) == [20.0]
    assert solvers_worker.ramp(50.0) == [50.0]
    assert solvers_worker.ramp(400.0) == [50.0, 100.0, 200.0, 400.0]
    assert solvers_worker.ramp(500.0) == [50.0, 100.0, 200.0, 400.0, 500.0]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("one", "sharpness", "solver"),
    [
        (family("denoising", "untied experts"), 500.0, dk.solvers.Anderson),
        (family("inpainting", "tied experts"), 2000.0, dk.solvers.LBFGS),
        (family("super-resolution", "proximal network"), None, dk.solvers.Anderson),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_the_reference_is_what_another_solver_finds(one, sharpness, solver):
    server = solvers_worker.Server()
    server.open(one, 1000)
    reference = server.reference(sharpness)
    assert reference["error"] < solvers_suite.TRUSTED * 1e-5
    cell = solvers_cells.cell(one, "float64")
    solvers_cells.set_sharpness(cell, sharpness)
    y = tf.constant(solvers_cells.measurement(one), tf.float64)
    problem = cell.bind(y).frozen()
    solve = tf.function(solver(tolerance=1e-11, max_steps=20_000).solve, autograph=False)
    found = solve(problem)
    assert found.converged.numpy().all()
    assert np.linalg.norm(found.value - server._truth) < 1e-8 * np.linalg.norm(server._truth)


@pytest.mark.slow
def test_a_run_counts_and_measures_what_the_library_does():
    one = family("denoising", "tied experts")
    server = solvers_worker.Server()
    labels, auto = server.open(one, 1000)
    assert "Nesterov" in labels
    assert auto in labels
    server.reference(300.0)
    cell = solvers_cells.cell(one, "float32")
    solvers_cells.set_sharpness(cell, 300.0)
    problem = cell.bind(tf.constant(solvers_cells.measurement(one)))
    for label, solver in (
        ("L-BFGS", dk.solvers.LBFGS(tolerance=1e-3, precondition=False)),
        ("Newton-Krylov", dk.solvers.NewtonKrylov(tolerance=1e-3)),
    ):
        found, solution = server.run(label, 1e-3, repeats=2), solver.solve(problem)
        error = np.linalg.norm(solution.value - server._truth) / np.linalg.norm(server._truth)
        assert found["error"] == pytest.approx(float(error), rel=0.1)
        assert found["maps"] + found["products"] == float(solution.steps[0])
        assert (found["products"] > 0) == (label == "Newton-Krylov")
        assert found["converged"]


@pytest.mark.slow
def test_the_cap_holds_for_evaluations_and_products_together():
    one = family("deconvolution", "tied experts")
    server = solvers_worker.Server()
    labels, _ = server.open(one, 5)
    server.reference(200.0)
    for label in ("Picard", "Newton-Krylov", "L-BFGS, preconditioned"):
        assert label in labels
        found = server.run(label, 1e-6)
        assert found["maps"] + found["products"] <= 5
        assert not found["converged"]


@pytest.mark.parametrize("one", marked(GRID, OFTEN), ids=lambda one: one.name)
def test_what_auto_takes_is_one_of_the_contestants(one):
    cell = solvers_cells.cell(one, "float32")
    layer = dk.layers.Equilibrium(cell)
    problem = cell.bind(tf.constant(solvers_cells.measurement(one)))
    solver = layer.choose_solver(problem)
    label = solvers_worker.chosen(layer, problem)
    assert type(solvers_worker.contestants(problem)[label]) is type(solver)


def scripted(error, cap=1e-7):
    """A solver whose error and work follow from the tolerance by a rule."""

    def attempt(tolerance):
        tried.append(tolerance)
        work = -math.log(tolerance)
        found = {"error": error(tolerance), "maps": work, "products": 1.0}
        return {**found, "converged": tolerance >= cap, "seconds": work}

    tried = []
    return attempt, tried


@pytest.mark.parametrize("factor", [0.01, 0.3, 1.0, 30.0, 1000.0])
def test_a_target_is_met_and_not_by_much(factor):
    attempt, tried = scripted(lambda tolerance: factor * tolerance)
    found = solvers_suite.reach(attempt, 1e-3)
    assert found["met"]
    assert 1e-3 / 5 < found["error"] <= 1e-3
    assert found["work"] == found["maps"] + 1.0
    assert len(tried) <= solvers_suite.TRIES


def test_a_cap_is_a_failure_and_so_is_rounding():
    attempt, tried = scripted(lambda tolerance: 1e6 * tolerance, cap=1e-4)
    found = solvers_suite.reach(attempt, 1e-3)
    assert (found["met"], found["why"], len(tried)) == (False, "cap", 2)
    attempt, _ = scripted(lambda tolerance: max(tolerance, 2e-3), cap=0.0)
    found = solvers_suite.reach(attempt, 1e-3)
    assert (found["met"], found["why"]) == (False, "rounding")
    attempt, _ = scripted(lambda tolerance: math.nan)
    assert not solvers_suite.reach(attempt, 1e-3)["met"]
    # Near enough without having converged: a looser tolerance is tried, not the cap accepted.
    attempt, tried = scripted(lambda tolerance: 1e-3 * tolerance, cap=1e-2)
    found = solvers_suite.reach(attempt, 1e-3)
    assert found["met"]
    assert found["tolerance"] >= 1e-2


def rows():
    """Two problems of one group and one of another, made up."""

    def row(problem, prior, sharpness, costs, auto):
        runs = [
            {"solver": s, "target": 1e-3, "met": c is not None, "work": c, "seconds": c}
            for s, c in costs.items()
        ]
        kind = solvers_grid.KINDS[prior]
        return {
            **{"problem": problem, "prior": prior, "sharpness": sharpness, "kind": kind},
            **{"auto": auto, "runs": [{**run, "processor": run["seconds"]} for run in runs]},
        }

    return [
        row("a", "tied experts", 50.0, {"x": 1.0, "y": 2.0, "z": None}, "y"),
        row("b", "tied experts", 50.0, {"x": 8.0, "y": 2.0, "z": None}, "z"),
        row("c", "tied experts", 500.0, {"x": None, "y": None, "z": None}, "x"),
        row("d", "untied experts", 50.0, {"x": 3.0, "y": None, "z": 6.0}, "x"),
    ]


def test_profiles_are_shares_within_factors_of_the_best():
    costs = solvers_suite.costs(rows(), "energies", 1e-3, "work")
    assert costs["a", 50.0] == {"x": 1.0, "y": 2.0, "auto": 2.0}
    found = solvers_suite.profile(costs)
    assert found["problems"] == 2  # that nobody solves one says nothing of who is faster
    assert found["factors"] == {"x": [1.0, 4.0], "y": [1.0, 2.0], "auto": [2.0]}
    x, y = solvers_output.steps(found["factors"]["x"], 2, 10.0)
    assert list(x) == [1.0, 1.0, 4.0, 10.0]
    assert list(y) == [0.5, 0.5, 1.0, 1.0]
    x, y = solvers_output.steps(found["factors"]["auto"], 2, 10.0)
    assert list(y) == [0.0, 0.5, 0.5]


def test_groups_are_geometric_means():
    first, second, third = solvers_suite.groups(rows(), 1e-3)
    assert (first["prior"], first["sharpness"], first["problems"]) == ("tied experts", 50.0, 2)
    assert first["solvers"]["x"] == {
        "solved": 2,
        **dict.fromkeys(solvers_suite.COSTS, pytest.approx(2.0)),
    }
    assert first["solvers"]["y"]["work"] == pytest.approx(math.sqrt(2.0))
    assert "z" not in first["solvers"]
    assert second["solvers"] == {}
    assert third["solvers"]["z"]["work"] == pytest.approx(2.0)


class Refusing:
    """A worker that must not be asked."""

    def run(self, *_):
        raise AssertionError


def test_nothing_is_compared_with_a_reference_that_is_not_exact():
    settings = SimpleNamespace(targets=(1e-3, 1e-5), repeats=1)
    runs = solvers_suite.contest(Refusing(), "x", 1e-4, settings)
    assert [(run["target"], run["met"], run["why"]) for run in runs] == [
        (1e-3, False, "no reference"),
        (1e-5, False, "no reference"),
    ]


class Capped:
    """A worker whose solver gets nowhere."""

    def __init__(self):
        self.asked = 0

    def run(self, *_):
        self.asked += 1
        return {"error": 1.0, "maps": 1000.0, "products": 0.0, "converged": False, "seconds": 1.0}


def test_who_fails_at_a_target_is_not_asked_for_a_harder_one():
    worker, settings = Capped(), SimpleNamespace(targets=(1e-5, 1e-3), repeats=1)
    runs = solvers_suite.contest(worker, "x", 1e-12, settings)
    assert [(run["target"], run["met"], run["why"]) for run in runs] == [
        (1e-3, False, "cap"),
        (1e-5, False, "cap"),
    ]
    assert worker.asked == 1


def program(path, *arguments):
    command = [sys.executable, "-m", "benchmarks", "--suite=solvers", f"--output={path}"]
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    command += arguments
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)


def test_problems_that_there_are_not_are_refused(tmp_path):
    done = program(tmp_path / "x.json", "--only=painting by numbers")
    assert done.returncode == 1
    assert "Expected --only to be part of one of" in done.stderr


@pytest.mark.slow
def test_the_suite_solvers(tmp_path):
    path = tmp_path / "solvers.json"
    arguments = ["--size=16", "--batch=1", "--filters=3", "--repeats=2", "--sharpness=50"]
    done = program(path, *arguments, "--targets=1e-2,1e-4", "--only=denoising, untied")
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(path.read_text("utf-8"))["results"]
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")
    (row,) = results["problems"]
    assert (row["problem"], row["sharpness"]) == ("denoising, untied experts", 50.0)
    assert row["reference"]["error"] < 1e-10
    met = [run for run in row["runs"] if run["met"]]
    assert {run["solver"] for run in met} >= {"Picard", "Anderson", "Newton-Krylov", row["auto"]}
    for run in met:
        assert run["error"] <= run["target"]
        assert run["work"] == run["maps"] + run["products"]
    assert {part["problems"] for part in results["profiles"]} == {1}
    for group in results["groups"]:
        assert min(entry["work"] for entry in group["solvers"].values()) == 1.0
    assert "untied" in done.stdout
    for name, words in solvers_peers.missing(solvers_peers.PEERS).items():
        assert f"{name}: not run, {words}" in done.stdout

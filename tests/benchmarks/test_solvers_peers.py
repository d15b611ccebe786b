"""Other libraries in the suite `solvers`: what they are given, and how they are compared."""

import dataclasses
import functools
import importlib.util
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from scipy import ndimage

from benchmarks import (
    solvers_cells,
    solvers_grid,
    solvers_output,
    solvers_peers,
    solvers_suite,
    solvers_worker,
)

GRID = solvers_grid.families(batch=2, size=12, filters=24, seed=0)
SHARPNESS = 50.0  # a smooth problem
FITTING = [family for family in GRID if solvers_peers.fits(family)]


@functools.cache
def exported(family):
    """A problem as a cell and as arrays, without its solution."""
    cell = solvers_cells.cell(family, "float32")
    solvers_cells.set_sharpness(cell, SHARPNESS)
    y = tf.constant(solvers_cells.measurement(family))
    problem = cell.bind(y)
    return problem, solvers_cells.experts(cell, y, problem.initial_value.numpy())


def by_definition(experts, u):
    """`f(u)` by SciPy's sums in float64; the adjoint of `A` as the transpose of its matrix."""
    pixels = u[0, ..., 0].size
    unit = np.eye(pixels).reshape(-1, *u.shape[1:3])

    def matrix(kernel, sum_of):
        return np.stack([sum_of(e, kernel.astype(np.float64)).ravel() for e in unit], 1)

    def mirrored(e, kernel):
        return ndimage.correlate(e, kernel, mode="mirror")

    blur = np.eye(pixels)
    if experts.blur is not None:
        blur = matrix(experts.blur, lambda e, k: ndimage.convolve(e, k, mode="wrap"))
    rows, measured = u.reshape(len(u), -1), experts.measurement.reshape(len(u), -1)
    gradient = (rows @ blur.T - measured) @ blur
    for k in range(experts.filters.shape[-1]):
        analysis, synthesis = (
            matrix(kernels[:, :, 0, k], mirrored)
            for kernels in (experts.filters, experts.synthesis)
        )
        gradient += np.tanh(rows @ analysis.T) @ synthesis
    return (rows - experts.step * gradient).reshape(u.shape)


@pytest.mark.parametrize("family", FITTING, ids=lambda family: family.name)
def test_the_arrays_are_the_map_of_the_cell(family):
    problem, experts = exported(family)
    u = np.random.default_rng(0).uniform(size=experts.start.shape)
    expected = by_definition(experts, u)
    assert np.abs(expected - u).max() > 1e-2
    np.testing.assert_allclose(problem.f(tf.constant(u, tf.float32)), expected, atol=1e-5)
    np.testing.assert_array_equal(experts.start, problem.initial_value)
    assert experts.tied == (family.kind == "energies")
    assert (experts.blur is None) == (family.task == "denoising")


@pytest.mark.slow
@pytest.mark.parametrize("name", solvers_peers.PEERS)
@pytest.mark.parametrize("family", FITTING, ids=lambda family: family.name)
def test_peers_have_the_same_solution_and_count(name, family):
    if solvers_peers.missing([name]):
        pytest.skip(f"{name} is not installed")
    ours = solvers_worker.Server()
    ours.open(family, 1000)
    ours.reference(SHARPNESS)
    experts = ours.experts()
    started = np.linalg.norm(experts.start - experts.truth) / np.linalg.norm(experts.truth)
    with solvers_peers.Field([name], 1, None) as field:
        workers = field.open(experts, 1000)
        runs = {label: worker.run(label, 1e-5) for label, worker in workers.items()}
    for label, run in runs.items():
        assert run["maps"] > 0
        assert (run["products"] > 0) == ("Newton" in label)
        if family.task == "denoising":  # the other one is hard for some
            assert run["error"] < 1e-2, label
        if "GMRES" in label:  # a cycle of its restarts is many products
            assert run["products"] > 10 * run["maps"]
    assert min(run["error"] for run in runs.values()) < 1e-2 < 5e-2 < started


def test_only_experts_for_two_tasks_fit():
    assert {family.name for family in FITTING} == {
        f"{task}, {prior}" for task in solvers_peers.TASKS for prior in solvers_grid.EXPERTS
    }


def test_unknown_contestants_are_refused():
    solvers_peers.check(["ours", "torchdeq"])
    with pytest.raises(ValueError, match=r"Expected contestants among .* Received \['jaxopt'\]"):
        solvers_peers.check(["ours", "jaxopt"])


def test_a_peer_that_is_not_installed_is_missing_in_words(monkeypatch):
    absent = ("torchdeq", "lineax")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else name)
    found = solvers_peers.missing(["torchdeq", "deepinv", "optimistix"])
    assert found == {
        "torchdeq": "torchdeq not installed (the extra `benchmark`)",
        "optimistix": "lineax not installed (the extra `benchmark`)",
    }
    with solvers_peers.Field(["torchdeq"], 1, None) as field:
        assert list(field.missing) == ["torchdeq"]
        assert field.open(None, 1000) == {}


class Clock:
    """A worker whose runs take given seconds, one after the other."""

    def __init__(self, log, seconds):
        self._log, self._seconds = log, iter(seconds)

    def run(self, label, tolerance):
        self._log.append((label, tolerance))
        return {"seconds": next(self._seconds)}


def test_a_race_compares_within_rounds():
    log = []
    workers = {
        "auto's": Clock(log, [1.0, 2.0, 4.0]),
        "fast": Clock(log, [0.5, 1.0, 2.0]),
        "slow": Clock(log, [3.0, 6.0, 12.0]),
        "failed": Clock(log, []),
    }
    runs = [
        {"solver": name, "met": name != "failed", "tolerance": tolerance}
        for name, tolerance in (("auto's", 1e-2), ("fast", 1e-3), ("slow", 1e-4), ("failed", 1.0))
    ]
    found = solvers_peers.race(workers, runs, "auto's", 3)
    assert {name: ratio["median"] for name, ratio in found.items()} == {"fast": 0.5, "slow": 3.0}
    assert [label for label, _ in log[:6]] == ["auto's", "fast", "slow", "fast", "slow", "auto's"]
    assert dict(log) == {"auto's": 1e-2, "fast": 1e-3, "slow": 1e-4}
    assert solvers_peers.race(workers, runs[1:], "auto's", 3) == {}


def row(peer_seconds, sharpness, met=True):
    """A problem that our solver `x` takes a second for, and a peer that long or not at all."""
    common = {"target": 1e-3, "work": 5.0, "why": "cap", "nearest": 0.2}
    own = {**common, "solver": "x", "peer": False, "met": met, "seconds": 1.0}
    other = {**common, "solver": "p", "peer": True, "met": peer_seconds is not None}
    runs = [{**run, "processor": run.get("seconds")} for run in (own, other)]
    runs[1].update(seconds=peer_seconds, processor=peer_seconds)
    ratios = {} if peer_seconds is None or not met else {"p": {"median": peer_seconds}}
    return {
        **{"problem": "a", "prior": "tied experts", "sharpness": sharpness, "kind": "energies"},
        **{"auto": "x", "runs": runs, "duels": [{"target": 1e-3, "ratios": ratios}]},
    }


def test_it_is_said_where_a_peer_wins():
    rows = [row(0.5, 50.0), row(2.0, 500.0), row(3.0, 5000.0, met=False), row(None, 20000.0)]
    assert solvers_output.beaten({"problems": rows}) == [
        "a, 50, to 0.001: p takes 0.50 times auto's seconds.",
        "a, 5000, to 0.001: p gets there, auto does not.",
    ]
    assert solvers_output.beaten({"problems": rows[1:2]}) == [
        "No solver of another library took fewer seconds than auto on any problem."
    ]


def test_peers_are_in_profiles_of_the_problems_that_they_ran_on_alone():
    alone = {**row(0.1, 5.0), "duels": []}
    alone["runs"] = alone["runs"][:1]
    found = solvers_suite.profiles([row(0.5, 50.0), row(None, 500.0), alone], [1e-3])
    seconds = {part["kind"]: part for part in found if part["cost"] == "seconds"}
    assert seconds["energies"]["problems"] == 3
    assert seconds["energies"]["factors"] == {"x": [1.0] * 3, "auto": [1.0] * 3}
    joint = seconds["energies of all libraries"]
    assert joint["problems"] == 2
    assert joint["factors"] == {"x": [1.0, 2.0], "auto": [1.0, 2.0], "p": [1.0]}


def test_a_failure_has_its_least_error():
    errors = iter([0.5, 0.3, 0.4, 0.6, 0.7])

    def attempt(tolerance):
        return {"error": next(errors), "maps": 1.0, "products": 0.0, "converged": True}

    found = solvers_suite.reach(attempt, 1e-3)
    assert (found["met"], found["nearest"]) == (False, 0.3)
    settings = SimpleNamespace(targets=(1e-3, 1e-5), repeats=1)
    worker = SimpleNamespace(
        run=lambda *_: {"error": 0.5, "maps": 1000.0, "products": 0.0, "converged": False}
    )
    runs = solvers_suite.contest(worker, "p", 1e-12, settings)
    assert [(run["met"], run["nearest"]) for run in runs] == [(False, 0.5)] * 2


def test_everyone_has_the_weights_in_float32():
    _, experts = exported(FITTING[0])
    arrays = [value for value in dataclasses.asdict(experts).values() if not np.isscalar(value)]
    assert all(value is None or value.dtype == np.float32 for value in arrays)

"""The suite `priors`: its judge, what contestants get, and a tiny run without PyTorch."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import deq_keras as dk
from benchmarks import peers_suite, priors_suite
from benchmarks.peers import ours_reconstruction
from benchmarks.reconstruction import Judge

ROOT = Path(__file__).resolve().parents[2]
PRESETS = ("foe_bsd400", "wcrr_bsd400")


@pytest.fixture(scope="module", params=PRESETS)
def problem(request):
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.normal(size=(2, 17, 21, 1)), axis=1) / 10
    return ours_reconstruction.problem(request.param, smooth)


def test_the_judge_has_the_energy_of_the_library(problem):
    u = np.random.default_rng(1).uniform(size=problem.measurement.shape).astype(np.float32)
    prior = dk.presets.load(problem.preset)
    data = 0.5 * np.sum((u - problem.measurement).astype(np.float64) ** 2, axis=(1, 2, 3))
    expected = data + problem.weight * prior.energy(tf.constant(u)).numpy()
    np.testing.assert_allclose(Judge(problem).energy(u), expected, rtol=1e-5)


def test_its_gradient_is_the_derivative_of_its_energy(problem):
    rng, judge = np.random.default_rng(2), Judge(problem)
    u, direction = rng.uniform(size=(2, *problem.measurement.shape))
    ends = [judge.energy(u + length * direction) for length in (1e-5, -1e-5)]
    slopes = np.sum(judge.gradient(u) * direction[..., 0], axis=(1, 2))
    np.testing.assert_allclose(slopes, (ends[0] - ends[1]) / 2e-5, rtol=1e-6)


def test_the_layers_are_the_filters(problem):
    composed = functools.reduce(dk.convolution.compose, problem.layers)
    np.testing.assert_allclose(composed, problem.filters, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["Variational, defaults", "Variational, NonmonotoneAPG"])
def test_ours_reaches_a_norm(problem, family):
    options = dict(ours_reconstruction.FAMILIES[family])
    if not options.pop("fixed", False):
        options["tolerance"] = 1e-4
    step, finish = ours_reconstruction.build(problem, options)
    judge = Judge(problem)
    assert judge(finish(step()))["gradient"] < 2e-4
    assert judge({"solution": problem.measurement})["gradient"] > 1e-2


def test_what_is_unknown_is_refused():
    with pytest.raises(ValueError, match="Expected contestants among"):
        peers_suite.contestants(["torch"], groups=priors_suite.GROUPS)
    with pytest.raises(ValueError, match="Expected settings of ours"):
        peers_suite.contestants(["ours"], "nmAPG", priors_suite.GROUPS)


@pytest.mark.slow
def test_the_program_without_pytorch(tmp_path):
    path = tmp_path / "priors.json"
    command = [sys.executable, "-m", "benchmarks", "--suite=priors", f"--output={path}"]
    command += ["--contestants=ours", "--size=24", "--images=2", "--repeats=2", "--only=L-BFGS"]
    environment = {**os.environ, "MPLBACKEND": "Agg"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(path.read_text("utf-8"))["results"]
    assert set(results) == set(PRESETS)
    for found in results.values():
        (target,) = found["targets"]
        (entry,) = target["contestants"]
        assert entry["met"]
        assert entry["errors"]["gradient"] <= 1e-4
        assert len(entry["seconds"]) == 2
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")

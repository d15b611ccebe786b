"""Grids: which runs there are, what they are called, and which comes first."""

import pytest

from experiments.configs.riccio2022 import faces, mnist
from experiments.reproduction import grid, original
from trainers.process.errors import ConfigurationError


def _runs(config):
    return {run.name: run for run in grid.runs(config)}


def test_the_full_grid_is_that_of_the_paper():
    config = mnist.get_config("full")
    config.fidelity = ("paper",)
    config.grid.further = ()
    found = grid.runs(config)
    # 5 noise levels, 5 steps, 3 weights, 3 activations: 225 settings of each task and model.
    for task in ("denoising", "inpainting", "deblurring"):
        for model in ("bilevel", "equilibrium"):
            these = [r for r in found if (r.settings["task"], r.settings["model"]) == (task, model)]
            assert len(these) == 225
    assert len({run.name for run in found}) == len(found) == 6 * 225


def test_the_settings_whose_losses_are_known():
    found = grid.runs(mnist.get_config("reference"))
    assert all(original.losses(run.settings) for run in found if _is_known(run))
    assert sum(map(_is_known, found)) == 2 * 9
    other = {**found[0].settings, "tau": 0.9}
    assert original.losses(other) == []


def _is_known(run):
    unknown = ("denoising", "identity", "equilibrium")
    return tuple(run.settings[key] for key in ("task", "activation", "model")) != unknown


def test_variations_one_by_one():
    config = mnist.get_config("quick")
    settings = grid.cases(config)
    base = settings[0]
    assert [case["task"] for case in settings[:3]] == list(config.grid.tasks)
    for case in settings[3:]:
        assert sum(case[name] != base[name] for name in base) == 1
    assert all(run.after is None for run in grid.runs(config) if run.settings["start"] == "random")


def test_runs_that_start_from_others():
    found = _runs(mnist.get_config("quick"))
    for run in found.values():
        if run.settings["start"] in ("bilevel", "bilevel_further"):
            first = found[run.after].settings
            assert (first["model"], first["start"]) == ("bilevel", "random")
            assert run.settings["fidelity"] == first["fidelity"] == "ours"
            same = set(first) - {"model", "start"}
            assert all(run.settings[key] == first[key] for key in same)
    found = _runs(faces.get_config("full"))
    deblurring = [r for r in found.values() if r.settings["start"] == "denoising"]
    # 5 x 5 and 11 x 11, 4 starts of the filters, with and without norms, 2 models, 2 modes
    assert len(deblurring) == 2 * 4 * 2 * 2 * 2
    for run in deblurring:
        first = found[run.after].settings
        assert (first["task"], first["noise"]) == ("denoising", 0.1)
        assert all(
            first[key] == run.settings[key] for key in ("filters", "norms", "model", "fidelity")
        )


def test_names_are_names_of_folders():
    for config in (mnist.get_config("quick"), faces.get_config("quick")):
        for name, run in _runs(config).items():
            assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_.-"), name
            assert name.endswith(run.settings["fidelity"])
    assert grid.Run({"task": "denoising", "norms": False, "noise": 0.05}).name == (
        "denoising_no-norms_noise0.05"
    )


def test_what_is_wrong_with_a_grid():
    config = mnist.get_config("quick")
    config.grid.vary = "all"
    with pytest.raises(ConfigurationError, match="'each', 'product' or 'listed'. Received 'all'"):
        grid.runs(config)
    config = faces.get_config("quick")
    config.grid.tasks = ("deblurring",)
    with pytest.raises(ConfigurationError, match="starts from .denoising with .*not in the grid"):
        grid.runs(config)

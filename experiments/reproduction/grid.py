"""The runs of an experiment: every combination of settings, model and mode that is trained."""

import itertools
from typing import Any, NamedTuple

from trainers.process.errors import ConfigurationError

MODELS = ("bilevel", "equilibrium")


class Run(NamedTuple):
    """One training.

    Attributes:
        settings: What it is of: `task`, the settings of the experiment, and

            - `model`: `"bilevel"` or `"equilibrium"`;
            - `start`: `"random"`, the first weights of the experiment; `"bilevel"`, an equilibrium
              model that starts from the trained bilevel one; `"bilevel_further"`, the bilevel model
              trained as long; `"denoising"`, the model trained for denoising;
            - `fidelity`: `"paper"`, the solvers of the paper, or `"ours"`.
        after: The name of the run whose weights it starts from, or `None`.
    """

    settings: dict[str, Any]
    after: str | None = None

    @property
    def name(self):
        """Its name, of a folder too."""
        return "_".join(map(_word, self.settings.items()))


def runs(config):
    """All runs of a configuration, those that others start from before these.

    Raises:
        ConfigurationError: If a run starts from one that is not among them.
    """
    found = {}
    for fidelity, case in itertools.product(config.fidelity, cases(config)):
        starts = config.grid.get("starts", {}).get(case["task"], ("random",))
        for start, model in itertools.product(starts, MODELS):
            run = _run(case, model, start, fidelity)
            if start == "denoising":
                run = run._replace(after=_of_denoising(case, model, fidelity, config))
            found[run.name] = run
        if fidelity in config.grid.further:
            first = _run(case, "bilevel", starts[0], fidelity).name
            for model, start in (("bilevel", "bilevel_further"), ("equilibrium", "bilevel")):
                run = _run(case, model, start, fidelity)._replace(after=first)
                found[run.name] = run
    for run in found.values():
        if run.after is not None and run.after not in found:
            raise ConfigurationError(
                f"The run {run.name!r} starts from {run.after!r}, which is not in the grid: add "
                "its task and settings, or take other `grid.starts`."
            )
    return list(found.values())


def cases(config):
    """The settings that are tried, without model, start and fidelity."""
    grid = config.grid
    if grid.vary == "listed":
        found = [dict(case) for case in grid.cases if case["task"] in grid.tasks]
    else:
        found = [
            {"task": task, **grid.base.to_dict(), **grid.of_task[task].to_dict()}
            for task in grid.tasks
        ]
        values = {name: tuple(chosen) for name, chosen in grid.variations.items()}
        if grid.vary == "each":
            found += [
                {**case, name: value}
                for case in found
                if case["task"] in grid.varied
                for name in values
                for value in values[name]
            ]
        elif grid.vary == "product":
            found = [
                {**case, **dict(zip(values, chosen, strict=True))}
                for case in found
                for chosen in itertools.product(*values.values())
            ]
        else:
            raise ConfigurationError(
                f"Expected grid.vary to be 'each', 'product' or 'listed'. Received {grid.vary!r}."
            )
    # Each once, in their order.
    return [case for number, case in enumerate(found) if case not in found[:number]]


def _run(case, model, start, fidelity):
    return Run({**case, "model": model, "start": start, "fidelity": fidelity})


def _of_denoising(case, model, fidelity, config):
    """The name of the run for denoising with the same prior."""
    same = {key: case[key] for key in ("filters", "norms")}
    for other in cases(config):
        if other["task"] == "denoising" and same.items() <= other.items():
            return _run(other, model, "random", fidelity).name
    return f"denoising with {same}"


def _word(item):
    key, value = item
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return key if value else f"no-{key}"
    return f"{key}{value:g}"

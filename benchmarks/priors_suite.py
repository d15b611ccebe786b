"""Suite `priors`: a reconstruction with each trained ridge prior, ours against PyTorch's nmAPG.

Denoising of photographs (noise 0.1) until the norm of the energy's gradient is a part of that of a
black image, for the worst image of the batch and as float64 sees it. The energy is the same, given
in arrays. Everyone takes the loosest tolerance and the settings that get there fastest, as in the
suite `peers`; nmAPG stops by that norm itself.
"""

import os

import numpy as np

from benchmarks import measure, problems
from benchmarks.peers import ours_reconstruction, torch_nmapg
from benchmarks.peers_suite import conclude, describe, race
from benchmarks.reconstruction import Judge
from benchmarks.remote import Remote

NOISE = 0.1
CONTESTANTS = {"ours": ours_reconstruction, "pytorch": torch_nmapg}


def contestants(names, only=""):
    """`[(contestant, module of `peers`, families)]`.

    Args:
        names: Some of `CONTESTANTS`.
        only: Families whose label does not contain this are left out.

    Raises:
        ValueError: If a name is unknown, or if nothing is left of a contestant.
    """
    if unknown := sorted(set(names) - set(CONTESTANTS)):
        raise ValueError(f"Expected contestants among {list(CONTESTANTS)}. Received {unknown}.")
    chosen = []
    for name in names:
        kind = CONTESTANTS[name]
        families = {label: found for label, found in kind.FAMILIES.items() if only in label}
        if not families:
            raise ValueError(f"Expected settings of {name} with {only!r} in their label.")
        chosen.append((name, kind.__name__.rpartition(".")[2], families))
    return chosen


def to_norms(families, targets):
    """Families with a fixed tolerance for each target: of a method that stops by what is judged."""
    return {
        f"{label}, to {target:g}": {**options, "tolerance": 0.99 * target, "fixed": True}
        for target in targets
        for label, options in families.items()
    }


def run(settings, say):
    """The results of the suite, ready for JSON.

    Args:
        settings: The program's `Settings`.
        say: Called with lines for the terminal.
    """
    size = settings.size
    clean = problems.photographs(settings.images, settings.data_dir, size, size)
    noise = np.random.default_rng(settings.seed).normal(size=clean.shape)
    measurement = (clean + NOISE * noise).astype(np.float32)
    own = "ours_reconstruction"
    with Remote(settings.threads, settings.log) as remote:
        presets = remote.call(own, "presets")
        found = {name: remote.call(own, "problem", name, measurement) for name in presets}
    return {name: of_preset(problem, settings, say) for name, problem in found.items()}


def of_preset(problem, settings, say):
    """The results for a preset."""
    rows, best, loads, targets = [], {}, [measure.load()], []
    with measure.Contest(problem, Judge(problem), settings.threads, settings.log) as contest:
        for name, module, families in contestants(settings.contestants, settings.only):
            say(f"{problem.preset}: settings of {name} …")
            if name == "pytorch":
                families = to_norms(families, settings.targets)
            found, best[name] = measure.tune(
                contest, name, module, families, settings.targets, lambda row: say(describe(row))
            )
            rows += found
            loads.append(measure.load())
        for target in sorted(settings.targets, reverse=True):
            targets.append(race(contest, best, rows, target, settings.repeats))
            conclude(targets[-1])
            loads.append(measure.load())
    return {
        "shape": list(problem.measurement.shape),
        "filters": list(problem.filters.shape),
        "sweep": rows,
        "targets": targets,
        "load": {"cores": os.cpu_count(), "threads": settings.threads, "over_time": loads},
    }

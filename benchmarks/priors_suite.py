"""Suite `priors`: a reconstruction with each trained ridge prior, ours against PyTorch's nmAPG.

Denoising of photographs (noise 0.1) until the norm of the energy's gradient is a part of that of a
black image, for the worst image of the batch and as float64 sees it. The energy is the same, given
in arrays. Everyone takes the loosest tolerance and the settings that get there fastest, as in the
suite `peers`; nmAPG stops by that norm itself.
"""

import os

import numpy as np

from benchmarks import measure, problems
from benchmarks.peers_suite import conclude, contestants, describe, race
from benchmarks.reconstruction import Judge
from benchmarks.remote import Remote

NOISE = 0.1
OURS = "ours_reconstruction"
GROUPS = {"ours": (OURS, {"ours": None}), "pytorch": ("torch_nmapg", {"pytorch": None})}


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
    with Remote(settings.threads, settings.log) as remote:
        presets = remote.call(OURS, "presets")
        found = {name: remote.call(OURS, "problem", name, measurement) for name in presets}
    return {name: of_preset(problem, settings, say) for name, problem in found.items()}


def of_preset(problem, settings, say):
    """The results for a preset."""
    rows, best, loads, targets = [], {}, [measure.load()], []
    with measure.Contest(problem, Judge(problem), settings.threads, settings.log) as contest:
        for name, module, families in contestants(settings.contestants, settings.only, GROUPS):
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

"""Suite `peers`: one training step at equal true gradient error, ours against every peer."""

import importlib
import importlib.util
import os

from benchmarks import measure, problems, reference

# Contestants: the module of `peers`, and its families of settings; `None` for all.
OURS = {
    "ours": None,
    "ours, a user's cell": {
        "Equilibrium of a cell, defaults": {"route": "cell", "fixed": True},
        "Equilibrium of a cell, Anderson + GMRES": {"route": "cell"},
        "a cell of dk.layers.Conv2D, defaults": {
            "route": "cell",
            "convolutions": "layers",
            "fixed": True,
        },
        "the same with the library's convolutions": {"route": "cell", "convolutions": "library"},
        "and conjugate gradients": {
            "route": "cell",
            "convolutions": "library",
            "linear": "conjugate_gradient",
        },
    },
}
PEERS = ("torchdeq", "deepinv", "jaxopt", "optimistix")
# Names of groups: the module of each, and its contestants.
GROUPS = {"ours": ("ours", OURS), **{name: (name, {name: None}) for name in PEERS}}


def contestants(names, only="", groups=GROUPS):
    """`[(contestant, module, families)]` for names of groups.

    Args:
        names: Some of `groups`.
        only: Families whose label does not contain this are left out.
        groups: From names to a module of `peers` and its contestants, as `GROUPS`.

    Raises:
        ValueError: If a name is unknown, or if nothing is left of a contestant.
    """
    unknown = sorted(set(names) - set(groups))
    if unknown:
        raise ValueError(f"Expected contestants among {list(groups)}. Received {unknown}.")
    chosen = []
    for module, members in (groups[name] for name in names):
        every = importlib.import_module(f"benchmarks.peers.{module}").FAMILIES
        for name, families in members.items():
            families = {k: family for k, family in (families or every).items() if only in k}
            if not families:
                raise ValueError(f"Expected settings of {name} with {only!r} in their label.")
            chosen.append((name, module, families))
    return chosen


def check_installed(names):
    """Ask for everything that modules of `peers` need before anything runs.

    Raises:
        ImportError: If something is missing, with the extra that installs it.
    """
    modules = [importlib.import_module(f"benchmarks.peers.{name}") for name in names]
    needed = {name for module in modules for name in module.REQUIRES}
    missing = sorted(name for name in needed if importlib.util.find_spec(name) is None)
    if missing:
        raise ImportError(
            f"{', '.join(missing)} not found. The peers are in the extra `benchmark`: "
            'python -m pip install -e ".[cpu,train,benchmark]", or make benchmark. '
            "The suites `peers` and `priors` run without them on --contestants=ours."
        )


def run(settings, say):
    """The results of the suite, ready for JSON.

    Args:
        settings: The program's `Settings`.
        say: Called with lines for the terminal.
    """
    (chi,) = settings.sharpness
    given = {"count": settings.filters, "seed": settings.seed, "sharpness": chi}
    problem = problems.peers(settings.batch, settings.size, **given)
    small = problems.peers(1, min(16, settings.size), **given)
    loads = [measure.load()]
    say("Solving in float64 …")
    truth = reference.solve(problem, processes=settings.threads)
    rows, best = [], {}
    with measure.Contest(
        problem, reference.judge(truth), settings.threads, settings.log
    ) as contest:
        identity = None
        if "ours" in settings.contestants:
            identity = contest.remote("ours").call("ours", "check_map", problem)
        for name, module, families in contestants(settings.contestants, settings.only):
            say(f"Settings of {name} …")
            found, best[name] = measure.tune(
                contest, name, module, families, settings.targets, lambda row: say(describe(row))
            )
            rows += found
            loads.append(measure.load())
        targets = []
        for target in sorted(settings.targets, reverse=True):
            targets.append(race(contest, best, rows, target, settings.repeats))
            loads.append(measure.load())
    for target in targets:
        for entry in target["contestants"]:
            if entry["met"] and settings.memory:
                say(f"Memory of {entry['contestant']} at {target['target']:g} …")
                entry["peak_bytes"] = measure.memory(
                    entry["module"], small, problem, entry["options"], settings.threads
                )
        conclude(target)
    return {
        "problem": {
            "map": f"u - {problem.step:.3g} ((u - y) + A^T tanh({chi:g} A u))",
            "shape": list(problem.measurement.shape),
            "filters": list(problem.filters.shape),
            "norm_of_filters": problems.filters_norm(problem.filters),
            "difference_of_our_energy": identity,
        },
        "reference": reference_record(truth),
        "sweep": rows,
        "targets": targets,
        "load": {"cores": os.cpu_count(), "threads": settings.threads, "over_time": loads},
    }


def race(contest, best, rows, target, repeats):
    """Interleaved runs of everyone's fastest setting for a target."""
    finalists = [(name, found[target]) for name, found in best.items() if found[target]]
    entries = [(row["module"], row["options"]) for _, row in finalists]
    seconds, errors = contest.interleave(entries, repeats) if entries else ([], [])
    results = []
    for name in (name for name, found in best.items() if not found[target]):
        tried = [row["error"] for row in rows if row["contestant"] == name]
        results.append({"contestant": name, "met": False, "best_error": min(tried)})
    for (name, row), times, error in zip(finalists, seconds, errors, strict=True):
        results.append(
            {
                "contestant": name,
                "met": error["gradient"] <= 1.02 * target,
                "module": row["module"],
                "family": row["family"],
                "options": row["options"],
                "steps": row["steps"],
                "errors": error,
                "seconds": times,
                **measure.quartiles(times),
            }
        )
    return {"target": target, "contestants": results}


def conclude(target):
    """Ratios to each of our entries, and the fastest and the leanest peer, within one target."""
    met = [entry for entry in target["contestants"] if entry["met"]]
    others = [entry for entry in met if not entry["module"].startswith("ours")]
    for own in (entry for entry in met if entry["module"].startswith("ours")):
        own["ratios"] = {
            entry["contestant"]: measure.ratio(entry["seconds"], own["seconds"]) for entry in others
        }
    fastest = min(others, key=lambda entry: entry["median"], default=None)
    lean = [entry for entry in others if entry.get("peak_bytes") is not None]
    leanest = min(lean, key=lambda entry: entry["peak_bytes"], default=None)
    target["fastest_peer"] = fastest and fastest["contestant"]
    target["leanest_peer"] = leanest and leanest["contestant"]


def reference_record(truth):
    """What JSON says of a `Reference`."""
    return {"residual": truth.residual, "adjoint_residual": truth.adjoint_residual}


def describe(row):
    """One line for one run of the sweep."""
    tolerance = "-" if row.get("tolerance") is None else f"{row['tolerance']:.1e}"
    if "failed" in row:
        return f"  {row['family']:<42} tolerance {tolerance:>8}  failed: {row['failed'][:90]}"
    seconds, error = row["seconds"], row["error"]
    return (
        f"  {row['family']:<42} tolerance {tolerance:>8}  {seconds:8.3f} s  "
        f"gradient error {error:.1e}"
    )

"""Suite `solvers`: every solver on a grid of problems, at equal true error of the solution.

The grid is that of `solvers_grid`, small: at most two images of 64 x 64 and 24 experts. Each
problem is solved in float64 first. Then each solver's tolerance is lowered until its answer is as
near to that solution as is asked for; given are the time, the evaluations of the map and the
products with its Jacobian of the cheapest run that got there. One that takes `CAP` evaluations and
products, or stops at the rounding errors of float32 before, has failed.

Solvers of other libraries run on the problems whose map they can be given, on the same arrays in
float32; see `solvers_peers`. Those that get there then run in turn with what `"auto"` takes, round
by round: the ratios of their seconds are within a round.

Performance profiles (Dolan and More, Benchmarking optimization software with performance profiles,
Math. Program. 2002) say for each solver the share of problems that it solves within a factor of
the best solver of each.
"""

import math
import os

from benchmarks import measure, solvers_grid, solvers_peers
from benchmarks.remote import Remote, RemoteError

CAP = 1000
TRIES = 5  # settings of the tolerance for each solver and target
TIGHTEST = 1e-9
TRUSTED = 1e-2  # the reference's error, relative to the target
AUTO = "auto"
# What a profile may compare: seconds, those that cores worked, evaluations and products.
COSTS = ("seconds", "processor", "work")


def run(settings, say):
    """The results of the suite, ready for JSON.

    Args:
        settings: The program's `Settings`.
        say: Called with lines for the terminal.
    """
    rows, loads, grid = [], [measure.load()], grid_of(settings)
    names = [name for name in settings.contestants if name != "ours"]
    with (
        Remote(settings.threads, settings.log, "solvers_worker") as remote,
        solvers_peers.Field(names, settings.threads, settings.log) as field,
    ):
        for name, words in field.missing.items():
            say(f"{name}: not run, {words}.")
        for family in grid:
            say(f"{family.name} …")
            labels, auto = remote.open(family, CAP)
            for sharpness in family.levels(settings.sharpness):
                row = problem(remote, family, sharpness, labels, settings)
                rows.append({**row, "auto": auto, "duels": []})
                if names and solvers_peers.fits(family):
                    meet(rows[-1], remote, field, settings)
                say(describe(rows[-1]))
            if names and not solvers_peers.fits(family):
                say("  Peers: not run, their frameworks have no map of this problem here.")
            loads.append(measure.load())
    targets = sorted(settings.targets, reverse=True)
    return {
        "images": [grid[0].batch, grid[0].size, grid[0].size, 1],
        "filters": grid[0].filters,
        "cap": CAP,
        "peers_missing": field.missing,
        "problems": rows,
        "profiles": profiles(rows, targets),
        "groups": [group for target in targets for group in groups(own_of(rows), target)],
        "load": {"cores": os.cpu_count(), "threads": settings.threads, "over_time": loads},
    }


def grid_of(settings):
    """The families to measure: a small part of what the flags would allow."""
    sizes = min(settings.batch, 2), min(settings.size, 64), min(settings.filters, 24)
    return solvers_grid.families(*sizes, settings.seed, settings.only)


def problem(remote, family, sharpness, labels, settings):
    """Every solver on one problem."""
    row = {"problem": family.name, "kind": family.kind, "task": family.task}
    row.update(prior=family.prior, sharpness=sharpness, runs=[])
    row["reference"] = remote.reference(sharpness)
    for label in labels:
        runs = contest(remote, label, row["reference"]["error"], settings)
        row["runs"] += [{**run, "peer": False} for run in runs]
    return row


def meet(row, remote, field, settings):
    """Add the runs of the peers to those of a problem, and the `duels`: for each target the ratios
    of their seconds to those of what `"auto"` takes."""
    workers, auto = field.open(remote.experts(), CAP), row["auto"]
    for label, worker in workers.items():
        runs = contest(worker, label, row["reference"]["error"], settings)
        row["runs"] += [{**run, "peer": True} for run in runs]
    for target in sorted(settings.targets, reverse=True):
        runs = [run for run in row["runs"] if run["target"] == target]
        ratios = solvers_peers.race({auto: remote, **workers}, runs, auto, settings.repeats)
        row["duels"].append({"target": target, "ratios": ratios})


def contest(remote, label, uncertainty, settings):
    """The runs of one solver on one problem: for each target the cheapest one."""
    runs, ratio = [], 1.0  # of the tolerance to the target
    for target in sorted(settings.targets, reverse=True):
        if uncertainty > TRUSTED * target:
            found = {"met": False, "why": "no reference"}
        elif runs and not runs[-1]["met"]:
            # Nor will it reach a harder one.
            found = {name: runs[-1].get(name) for name in ("met", "why", "nearest")}
        else:
            try:
                found = reach(lambda tolerance: remote.run(label, tolerance), target, ratio)
                if found["met"]:
                    ratio = min(1.0, found["tolerance"] / target)
                    again = remote.run(label, found["tolerance"], settings.repeats)
                    for clock in ("seconds", "processor"):
                        found[clock] = min(found[clock], again[clock])
            except RemoteError as error:
                if "worker died" in str(error):
                    raise
                found = {"met": False, "why": str(error).splitlines()[0][:300]}
        runs.append({"solver": label, "target": target, **found})
    return runs


def reach(attempt, target, ratio=1.0):
    """The cheapest run that meets a target.

    Args:
        attempt: From a tolerance to a dictionary with `error`, `maps`, `products` and `converged`.
        target: The largest `error` that will do.
        ratio: Of the first tolerance to the target.

    Returns:
        That run with its `tolerance`, `work` and `met=True`; or the last one with `met=False` and
        `why`: `"cap"`, that of evaluations, or `"rounding"`, when no tolerance led there; and with
        `nearest`, the least error of all.
    """
    tolerance, best, missed, nearest = ratio * target, None, False, math.inf
    for _ in range(TRIES):
        found = {**attempt(tolerance), "tolerance": tolerance}
        found["work"] = found["maps"] + found["products"]
        error = found["error"] if math.isfinite(found["error"]) else math.inf
        nearest = min(nearest, error)
        if error <= target:
            if found["converged"] and (best is None or found["work"] <= best["work"]):
                best = found
            # Not by much; or a looser tolerance is known not to do.
            if found["converged"] and (error > target / 2 or missed):
                break
            factor = min(max(0.8 * target / max(error, 1e-30), 2.0), 30.0)
        elif best is not None or not found["converged"] or tolerance <= TIGHTEST:
            break
        else:
            missed, factor = True, max(0.6 * target / error, 1e-2)
        tolerance = max(factor * tolerance, TIGHTEST)
    if best is not None:
        return {**best, "met": True, "why": None}
    why = "rounding" if found["converged"] else "cap"
    return {**found, "met": False, "why": why, "nearest": nearest}


def costs(rows, kind, target, cost, wanted=lambda row: True):
    """`{problem: {solver: cost}}` of the runs that met a target; `"auto"` is a solver as well."""
    found = {}
    for row in rows:
        if row["kind"] != kind or not wanted(row):
            continue
        met = {r["solver"]: r[cost] for r in row["runs"] if r["target"] == target and r["met"]}
        if row["auto"] in met:
            met[AUTO] = met[row["auto"]]
        found[row["problem"], row["sharpness"]] = met
    return found


def own_of(rows):
    """Problems without the runs of the peers, which do not run on all of them."""
    return [{**row, "runs": [r for r in row["runs"] if not r["peer"]]} for row in rows]


def profiles(rows, targets):
    """The profiles of our solvers on all problems, and of all on those that the peers ran on."""
    met = [row for row in rows if row["duels"]]
    own = own_of(rows)
    return [
        {**{"kind": kind + words, "target": target, "cost": cost}, **found}
        for chosen, words in ((own, ""), (met, " of all libraries"))
        for kind in dict.fromkeys(row["kind"] for row in chosen)
        for target in targets
        for cost in COSTS
        for found in [profile(costs(chosen, kind, target, cost))]
    ]


def profile(costs):
    """A performance profile.

    Args:
        costs: `{problem: {solver: cost}}`, without those that failed.

    Returns:
        `{"problems": n, "factors": {solver: [...]}}`: the number of problems that any solver
        solved, and, in increasing order, the factors of each solver over the best one on those
        that it solved. Its share at a factor is the number of entries up to it over `n`.
    """
    solved = [met for met in costs.values() if met]
    factors = {solver: [] for met in solved for solver in met}
    for met in solved:
        best = min(met.values())
        for solver, cost in met.items():
            factors[solver].append(cost / best)
    return {"problems": len(solved), "factors": {k: sorted(v) for k, v in factors.items()}}


def groups(rows, target):
    """Where which solver wins: of each prior and sharpness, over the tasks, a row per solver with
    the geometric mean of its factors over the best one, for each of `COSTS`."""
    found = []
    for prior, sharpness in dict.fromkeys((row["prior"], row["sharpness"]) for row in rows):
        entries = {}
        for cost in COSTS:
            part = profile(
                costs(
                    rows,
                    solvers_grid.KINDS[prior],
                    target,
                    cost,
                    lambda row, which=(prior, sharpness): (row["prior"], row["sharpness"]) == which,
                )
            )
            for solver, factors in part["factors"].items():
                entry = entries.setdefault(solver, {"solved": len(factors)})
                entry[cost] = math.exp(sum(map(math.log, factors)) / len(factors))
        size = {"target": target, "prior": prior, "sharpness": sharpness}
        found.append({**size, "problems": part["problems"], "solvers": entries})
    return found


def describe(row):
    """The best solvers of a problem, for the terminal."""
    where = "" if row["sharpness"] is None else f"sharpness {row['sharpness']:g}, "
    parts = []
    for target in dict.fromkeys(run["target"] for run in row["runs"]):
        met = [run for run in row["runs"] if run["target"] == target and run["met"]]
        met = sorted(met, key=lambda run: run["seconds"])[:2]
        best = ", ".join(f"{r['solver']} {r['seconds']:.3f} s ({r['work']:.0f})" for r in met)
        parts.append(f"{target:g}: {best or 'nobody'}")
    return f"  {where}{'; '.join(parts)}"

"""Suite `scaling`: what a training step of ours costs in time and memory, and every combination.

Time and peak memory are measured in a process of their own each, as the increment over a process
that has run a tiny problem. The tables: a forced number of iterations (of a step so short that it
cannot converge before), image size, batch, tolerance; each forward solver with each linear solver
and adjoint; and compaction, with 2 slow images of 16.
"""

import dataclasses
import itertools

import numpy as np

from benchmarks import measure, problems, reference
from benchmarks.remote import Remote, RemoteError

FORCED = {"route": "energy", "solver": "picard", "linear": "neumann", "tolerance": 1e-7}
DEFAULTS = {"route": "energy"}


def run(settings, say):
    """The results of the suite, ready for JSON.

    Args:
        settings: The program's `Settings`.
        say: Called with lines for the terminal.
    """
    tables = {}
    for name, cases in plan(settings).items():
        tables[name] = []
        for label, problem, options in cases:
            row = {name: label, **single(problem, options, settings)}
            say(f"  {name} {label}: {summary(row)}")
            tables[name].append(row)
    peaks = [r["peak_bytes"] for r in tables["iterations"] if r.get("peak_bytes")]
    growth = max(peaks) / peaks[0] - 1.0 if peaks else None
    return {
        **tables,
        "memory_growth_with_iterations": growth,
        "combinations": combinations(settings, say),
        "compaction": compaction(settings, say),
    }


def plan(settings):
    """From the name of a table to its cases: `(label, problem, options)`."""

    def problem(batch=settings.batch, size=settings.size):
        return problems.peers(batch, size, settings.filters, seed=settings.seed)

    slow = {**FORCED, "step_size": problem().step / 50}
    sizes = sorted({max(8, settings.size * k // 4) for k in (2, 4, 8)})
    batches = sorted({max(1, settings.batch * k // 4) for k in (1, 4, 8)})
    return {
        "iterations": [(n, problem(), {**slow, "steps": n}) for n in settings.iterations],
        "size": [(n, problem(size=n), DEFAULTS) for n in sizes],
        "batch": [(n, problem(batch=n), DEFAULTS) for n in batches],
        "tolerance": [(t, problem(), {**DEFAULTS, "tolerance": t}) for t in (1e-2, 1e-4, 1e-6)],
    }


def single(problem, options, settings):
    """Seconds and peak memory of one training step, in a new process."""
    small = problems.peers(1, 8, settings.filters, seed=settings.seed)
    try:
        with Remote(settings.threads, settings.log) as remote:
            remote.build("small", "ours", small, options)
            remote.drop("small")
            remote.mark()
            remote.build("large", "ours", problem, options)
            seconds, result = remote.run("large", settings.repeats)
            peak = remote.peak()
    except RemoteError as error:
        return {"failed": reason(error)}
    steps = {key: value for key, value in result.items() if "steps" in key}
    return {"seconds": seconds, **measure.quartiles(seconds), "peak_bytes": peak, **steps}


def combinations(settings, say):
    """Each solver with each linear solver and each other adjoint, at a small size."""
    size = min(settings.size, 48)
    problem = problems.peers(min(settings.batch, 4), size, settings.filters, seed=settings.seed)
    truth = reference.solve(problem)
    rows = []
    with measure.Contest(
        problem, reference.judge(truth), settings.threads, settings.log
    ) as contest:
        known = contest.remote("ours").call("ours", "names")
        linear = [("implicit", {"linear": name}) for name in known["linear_solvers"]]
        others = [(name, {"adjoint": name}) for name in known["adjoints"] if name != "implicit"]
        for solver, (adjoint, extra) in itertools.product(known["solvers"], linear + others):
            options = {"route": "energy", "solver": solver, **extra}
            found = contest.evaluate("ours", options)
            row = {"solver": solver, "adjoint": adjoint, "linear": extra.get("linear"), **found}
            rows.append(row)
            label = f"{solver} + {extra.get('linear') or adjoint}"
            say(f"  {label:<40} {summary(row)}")
    return rows


def compaction(settings, say):
    """Every solver with and without compaction; 14 images of 16 are nearly solved at the start."""
    problem = two_slow_of_sixteen(settings)
    rows = []
    with Remote(settings.threads, settings.log) as remote:
        known = remote.call("ours", "names")["solvers"]
        for solver in known:
            if not remote.call("ours", "accepts", "solvers", solver, "compact"):
                rows.append({"solver": solver, "failed": "has no option `compact`"})
                continue
            row = {"solver": solver}
            try:
                for compact in (False, True):
                    options = {"route": "energy", "solver": solver, "compact": compact}
                    remote.build(compact, "ours", problem, options)
                for compact in [False, True] * settings.repeats:  # in turn
                    seconds, result = remote.run(compact)
                    row.setdefault("with" if compact else "without", []).extend(seconds)
                    row["mean_forward_steps"] = result.get("forward_steps")
                row["ratio"] = measure.ratio(row["without"], row["with"])
            except RemoteError as error:
                row["failed"] = reason(error)
            for compact in (False, True):
                remote.drop(compact)
            rows.append(row)
            say(f"  compaction, {solver}: {row.get('failed') or row['ratio']['median']}")
    return rows


def two_slow_of_sixteen(settings):
    """A batch where 14 images are smooth bumps, near their fixed points, and 2 are not."""
    problem = problems.peers(16, settings.size, settings.filters, seed=settings.seed)
    window = np.hanning(settings.size) ** 2
    bump = (window[:, None] * window[None])[None, :, :, None]
    easy = np.arange(16)[:, None, None, None] >= 2
    measurement = np.where(easy, bump, problem.measurement).astype(np.float32)
    return dataclasses.replace(problem, measurement=measurement)


def reason(error):
    """The first line of what went wrong."""
    return str(error).splitlines()[0][:300]


def summary(row):
    """The numbers of a row, for the terminal."""
    if "failed" in row:
        return f"refused: {row['failed'][:100]}"
    parts = []
    seconds = row.get("median", row.get("seconds"))
    parts.append(f"{seconds:.3f} s")
    if row.get("peak_bytes") is not None:
        parts.append(f"{row['peak_bytes'] / 2**20:.0f} MiB")
    if "errors" in row:
        parts.append(f"gradient error {row['errors']['gradient']:.1e}")
    return ", ".join(parts)

"""Measurement of contestants: settings to a target error, then interleaved runs."""

import math
import os
import statistics

from benchmarks.remote import Remote, RemoteError

TIGHTEST = 1e-8
TRIES = 4  # settings of the tolerance for each family and target
RUNS = 3  # of each setting in the sweep; the fastest counts, for others may use the machine
HOPELESS = 2.0  # a family that starts this many times slower than the fastest is not tuned


class Contest:
    """A worker for each framework, a problem, and who judges the results.

    Args:
        problem: A `Problem`, or what else the modules of `peers` take for one.
        judge: From the result of a contestant, a dictionary, to one of errors; `gradient` counts.
        threads: Number of threads of each worker.
        log: File for what the workers print, or `None`.
    """

    def __init__(self, problem, judge, threads, log=None):
        self.problem, self.judge = problem, judge
        self.threads, self.log = threads, log
        self._remotes = {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for remote in self._remotes.values():
            remote.close()

    def remote(self, module):
        """The worker of a module of `peers`."""
        if module not in self._remotes:
            self._remotes[module] = Remote(self.threads, self.log)
        return self._remotes[module]

    def evaluate(self, module, options, key="trial", repeats=1):
        """Run a setting; a dictionary with its errors and its best time, or with `failed`."""
        try:
            remote = self.remote(module)
            remote.build(key, module, self.problem, options)
            seconds, result = remote.run(key, repeats)
        except RemoteError as error:
            if "worker died" in str(error):
                self._remotes.pop(module).close()
            return {"failed": str(error).splitlines()[0][:300]}
        return {
            "seconds": min(seconds),
            "errors": self.judge(result),
            "steps": {name: value for name, value in result.items() if "steps" in name},
        }

    def forget(self, module, key="trial"):
        """Free what a setting holds."""
        if module in self._remotes:
            self._remotes[module].drop(key)

    def interleave(self, entries, repeats):
        """Seconds of each entry in each round; `entries` are `(module, options)`.

        Every round runs all entries once, starting with another one each time, so that whatever
        else the machine does falls on all of them.
        """
        for index, (module, options) in enumerate(entries):
            self.remote(module).build(f"final {index}", module, self.problem, options)
        seconds = [[] for _ in entries]
        results = [None] * len(entries)
        for turn in range(repeats):
            for offset in range(len(entries)):
                index = (turn + offset) % len(entries)
                remote = self.remote(entries[index][0])
                (time,), results[index] = remote.run(f"final {index}")
                seconds[index].append(time)
        for index, (module, _) in enumerate(entries):
            self.forget(module, f"final {index}")
        return seconds, [self.judge(result) for result in results]


def tune(contest, name, module, families, targets, report):
    """Find each family's loosest tolerance for each target.

    Args:
        contest: A `Contest`.
        name: Of the contestant.
        module: Module of `peers` that builds it.
        families: From labels to options; one with `"fixed": True` is run as it is.
        targets: Relative errors of the gradient.
        report: Called with each row.

    Returns:
        `(rows, best)`: a dictionary for each run, and for each target the fastest row that meets
        it, or `None`.
    """
    rows, targets = [], sorted(targets, reverse=True)

    def fastest(target):
        met = [row for row in rows if row.get("error", float("inf")) <= target]
        return min(met, key=lambda row: row["seconds"], default=None)

    for family, options in families.items():
        options = dict(options)
        fixed = options.pop("fixed", False)
        tried = {}

        def run(tolerance, family=family, options=options, tried=tried):
            wanted = options if tolerance is None else {**options, "tolerance": tolerance}
            found = contest.evaluate(module, wanted, repeats=RUNS)
            row = {"contestant": name, "module": module, "family": family, "options": wanted}
            row.update(found, tolerance=tolerance)
            row["error"] = found["errors"]["gradient"] if "errors" in found else float("inf")
            rows.append(row)
            tried[tolerance] = row
            report(row)
            return row

        def slower(row, best, factor):
            """Whether a row takes `factor` times as long as the best, in two series of runs.

            Threads that wait by spinning, as PyTorch's do, take several times as long on a busy
            machine: no setting is dropped for one bad moment.
            """
            if row.get("seconds", math.inf) <= factor * best["seconds"]:
                return False
            if "seconds" in row and not row.get("again"):
                again = contest.evaluate(module, row["options"], repeats=RUNS)
                row.update(seconds=min(row["seconds"], again.get("seconds", math.inf)), again=True)
            return row.get("seconds", math.inf) > factor * best["seconds"]

        if fixed:
            run(None)
            continue
        tolerance = targets[0] / 10
        best = fastest(targets[0])
        if best:
            row = run(tolerance)
            if row["error"] > targets[0] / 10 and slower(row, best, HOPELESS):
                continue  # hardly looser tolerances would do, and tighter ones only take longer
        for target in targets:
            for attempt in range(TRIES):
                row = tried.get(tolerance) or run(tolerance)
                if "failed" in row or not math.isfinite(row["error"]):
                    break
                # Met, and not by much: or as near as the tries allow.
                if target / 4 < row["error"] <= target or attempt == TRIES - 1:
                    break
                best = fastest(target)
                if row["error"] > target and best and slower(row, best, 1.3):
                    break  # it is slower already, and has further to go
                stuck = [r["error"] for r in tried.values() if r["tolerance"] > 9 * tolerance]
                if row["error"] > target and stuck and row["error"] > 0.7 * min(stuck):
                    break
                factor = 0.5 * target / max(row["error"], 1e-12)
                tolerance = max(tolerance * min(max(factor, 1e-2), 1e2), TIGHTEST)
            if "failed" in row or not math.isfinite(row["error"]):
                break
            tolerance = max(TIGHTEST, min(tried) if row["error"] > target else tolerance)
            tolerance = max(tolerance * 0.03, TIGHTEST)
    contest.forget(module)
    return rows, {target: fastest(target) for target in targets}


def memory(module, small, problem, options, threads, log=None):
    """Bytes that one training step adds, at its peak, to a process that has run a small one."""
    with Remote(threads, log) as remote:
        try:
            remote.build("small", module, small, options)
            remote.drop("small")
            remote.mark()
            remote.build("large", module, problem, options)
            return remote.peak()
        except RemoteError:
            return None


def load():
    """Processes that wanted to run, on average over the last minute; `None` if not known.

    The measured ones count as well: as many as they have threads, and less where they wait.
    """
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def load_words(load):
    """What the load of the machine was, for people; empty if it is not known.

    Args:
        load: Dictionary with `cores`, `threads` and `over_time`, what `load()` said.
    """
    known = [value for value in load["over_time"] if value is not None]
    if not known:
        return ""
    return (
        f"Load of the machine's {load['cores']} cores, the measured {load['threads']} threads "
        f"included: {min(known):.1f} to {max(known):.1f}. Above the number of threads others took "
        "part"
    )


def quartiles(values):
    """`{"median", "low", "high"}`: the median and the quartiles."""
    values = sorted(values)
    if len(values) == 1:
        return dict.fromkeys(("median", "low", "high"), values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": median, "low": low, "high": high}


def ratio(times, others):
    """Quartiles of the ratios of the same round: `times / others`."""
    return quartiles([a / b for a, b in zip(times, others, strict=True)])

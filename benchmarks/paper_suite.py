"""Suite `paper`: the published procedure against our defaults on the published energy.

The procedure does the same arithmetic in both memory layouts, so its gradient is measured once, by
whole runs in the faster layout. In the slower one a run takes some ten minutes; unless `--full` is
given, its cost for an iteration is measured and multiplied by the number of iterations of the whole
run, and the result says so.
"""

import statistics

from benchmarks import measure, problems, reference
from benchmarks.peers import ours
from benchmarks.peers_suite import describe, reference_record

SHORT = 6  # iterations of each direction in a shortened run
FLOOR = 1e-5  # nobody is asked for a smaller error than float32 can tell


def run(settings, say):
    """The results of the suite, ready for JSON.

    Args:
        settings: The program's `Settings`.
        say: Called with lines for the terminal.
    """
    return {task: run_task(task, settings, say) for task in settings.tasks}


def run_task(task, settings, say):
    """The results for `"denoising"` or `"deblurring"`."""
    size = {"height": settings.height, "width": settings.width, "seed": settings.seed}
    problem = problems.paper(task, settings.images, settings.data_dir, **size)
    say(f"{task}: solving in float64 …")
    truth = reference.solve(problem, tolerance=1e-10, processes=settings.threads)
    limit = settings.procedure_iterations
    with measure.Contest(
        problem, reference.judge(truth), settings.threads, settings.log
    ) as contest:
        identity = contest.remote("ours").call("ours", "check_map", problem)
        say(f"{task}: the published procedure, channels_last …")
        options = {"layout": "channels_last", "iterations": limit}
        probe = whole(contest, options, 1)
        target = max(probe["errors"]["gradient"], FLOOR)
        say(f"  {probe['seconds'][0]:.1f} s, gradient error {probe['errors']['gradient']:.1e}")
        families = {"defaults": {"route": "energy", "fixed": True}, **ours.FAMILIES}
        rows, best = measure.tune(
            contest, "ours", "ours", families, [target], lambda row: say(describe(row))
        )
        fastest = best[target]
        if fastest is None:  # the comparison is then not at equal error, and says so
            fastest = min(rows, key=lambda row: row["error"])
            say(f"  No setting of ours reached {target:.1e}; the next is {fastest['error']:.1e}.")
        contest.remote("ours").build("ours", "ours", problem, fastest["options"])
        procedure, own_seconds = [probe], []
        for turn in range(settings.procedure_repeats):
            before, _ = contest.remote("ours").run("ours", settings.repeats)
            if turn:
                procedure.append(whole(contest, options, 1))
            after, _ = contest.remote("ours").run("ours", settings.repeats)
            own_seconds.append([*before, *after])
        layouts = {"channels_last": collect(procedure)}
        say(f"{task}: the published procedure, default layout …")
        options = {"layout": "default", "iterations": limit}
        if settings.full:
            runs = [whole(contest, options, 1) for _ in range(settings.procedure_repeats)]
            layouts["default"] = collect(runs)
        else:
            layouts["default"] = extrapolate(contest, layouts["channels_last"], options)
    mine = [time for times in own_seconds for time in times]
    return {
        "problem": {
            "energy": "18.156 ||K u - y||^2 / 2 + sum log cosh(100 A u) / 100",
            "shape": list(problem.measurement.shape),
            "filters": list(problem.filters.shape),
            "difference_of_our_energy": identity,
        },
        "reference": reference_record(truth),
        "sweep": rows,
        "ours": {**fastest, "seconds": mine, **measure.quartiles(mine)},
        "ours_defaults": rows[0],
        "equal_error": best[target] is not None,
        "procedure": layouts,
        "comparison": {
            name: compare(layout, own_seconds, fastest) for name, layout in layouts.items()
        },
    }


def whole(contest, options, repeats):
    """Whole runs of the procedure: seconds, errors, steps. The first call includes no warm-up:
    a thousand iterations are their own."""
    remote = contest.remote("paper_procedure")
    short = {**options, "iterations": min(2, options["iterations"])}
    remote.build("warm", "paper_procedure", contest.problem, short)
    found = []
    for _ in range(repeats):
        found.append(remote.call("paper_procedure", "once", contest.problem, options))
    seconds, result = [pair[0] for pair in found], found[-1][1]
    return {
        "seconds": seconds,
        "errors": contest.judge(result),
        **{k: v for k, v in result.items() if k not in ("filters", "measurement")},
    }


def collect(runs):
    """One record from several whole runs."""
    seconds = [time for run in runs for time in run["seconds"]]
    last = {key: value for key, value in runs[-1].items() if key != "seconds"}
    return {**last, "seconds": seconds, **measure.quartiles(seconds), "extrapolated": False}


def extrapolate(contest, other, options):
    """The procedure in another layout, from the cost of an iteration."""
    remote = contest.remote("paper_procedure")
    short = {**options, "iterations": min(SHORT, options["iterations"])}
    remote.build("short", "paper_procedure", contest.problem, short)
    costs = {"forward": [], "backward": []}
    for _ in range(3):
        _, result = remote.run("short")
        for name, values in costs.items():
            values.append(result[f"{name}_seconds"] / result[f"{name}_steps"])
    cost = {name: statistics.median(values) for name, values in costs.items()}
    seconds = sum(cost[name] * other[f"{name}_steps"] for name in cost)
    return {
        **{key: other[key] for key in ("errors", "forward_steps", "backward_steps")},
        "forward_seconds": cost["forward"] * other["forward_steps"],
        "backward_seconds": cost["backward"] * other["backward_steps"],
        "seconds": [seconds],
        **measure.quartiles([seconds]),
        "extrapolated": True,
    }


def compare(layout, own_seconds, own):
    """How many times faster, and which part of it comes from where.

    The algorithm's part is the ratio of iterations, the implementation's the ratio of the costs of
    one; their product is the ratio of times.
    """
    runs = zip(layout["seconds"], own_seconds, strict=False)
    ratios = [theirs / statistics.median(mine) for theirs, mine in runs]
    steps = own["steps"]["forward_steps"] + own["steps"]["backward_steps"]
    their_steps = layout["forward_steps"] + layout["backward_steps"]
    ratio = measure.quartiles(ratios)
    return {
        "ratio": ratio,
        "ours_iterations": steps,
        "procedure_iterations": their_steps,
        "algorithm": their_steps / steps,
        "implementation": ratio["median"] * steps / their_steps,
        "seconds_per_iteration": layout["median"] / their_steps,
        "ours_seconds_per_iteration": layout["median"] / ratio["median"] / steps,
        "extrapolated": layout["extrapolated"],
    }

"""Suite `distributed`: one process with one thread against two, at the same global batch.

All are real processes on loopback, each with a core of its own, that train by
`trainers.training.Trainer`: the single one without distribution, the pair under
`MultiWorkerMirroredStrategy`. They train on the same examples in turn, round by round; the times
are those of `metrics.jsonl`, without the first round, in which graphs are made, and the first step
of each, in which the data begin to flow. That the losses agree shows that the work is the same.

Then the pair takes some steps apart (see `distributed_worker`), and all-reduces are timed alone.
From these costs follows, on paper, what more workers would give (see `forecast`).
"""

import json
import os
import select
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import forecast, measure
from benchmarks.remote import Remote, RemoteError
from trainers.launch.worker import free_addresses
from trainers.process.cores import allowed as allowed_cores

MODELS = {"bilevel": "fields of experts", "equilibrium": "untied experts"}
WANTED = 1.7  # times faster
EQUAL = 1e-5  # largest relative difference of the losses
FREE = 0.9  # least share of its core that the busiest process has on a machine that is free
KERNEL, WEIGHT = 5, 0.1  # side of the filters, and lambda, near the best one
DISSECTED = 2  # rounds whose steps are taken apart
REDUCES, LARGE = 300, 2**20  # all-reduces of each size, and the size that shows the bandwidth
TIMEOUT = 600  # seconds for any answer


def run(settings, say):
    """The results of the suite, ready for JSON.

    Args:
        settings: The program's `Settings`; `batch` is that of each of the two processes.
        say: Called with lines for the terminal.

    Raises:
        ValueError: If there are fewer than two cores.
        RemoteError: If a process fails.
    """
    chosen = cores()
    say(f"Cores {chosen[0]} and {chosen[1]}, load of the machine {os.getloadavg()[0]:.1f}.")
    models = {}
    for name in MODELS:
        say(f"{name}: starting three processes …")
        with tempfile.TemporaryDirectory() as folder:
            measured = contest(name, settings, chosen, Path(folder), say)
        models[name] = summarise(measured, settings)
        say(f"  ratio {models[name]['ratio']['median']:.2f}")
    return {
        "cores": chosen,
        "problem": {
            "task": "denoising",
            "size": settings.size,
            "images": 2 * settings.batch,
            "filters": settings.filters,
            "kernel_size": KERNEL,
        },
        "wanted": WANTED,
        "network": forecast.ETHERNET,
        "assumptions": forecast.ASSUMPTIONS,
        "models": models,
    }


def cores(system="/sys/devices/system/cpu"):
    """Two cores for the processes, no threads of the same one.

    Raises:
        ValueError: If this program may not use two.
    """
    allowed, first = allowed_cores(), {}
    for cpu in allowed:
        try:
            path = Path(system) / f"cpu{cpu}" / "topology" / "thread_siblings_list"
            first.setdefault(path.read_text().strip(), cpu)
        except OSError:  # not Linux
            first[cpu] = cpu
    if len(first) < 2:
        raise ValueError(
            "Expected two cores, one for each of two processes: on a single one two cannot be "
            f"faster than one. This program may use the processors {allowed}, which are "
            f"{len(first)} core. Run it on another machine, or allow it more cores."
        )
    return list(first.values())[:2]


class Group:
    """Processes that are asked the same at the same time.

    Args:
        chosen: The core of each.
        log: File for what they print, or `None`.
        distributed: Whether they are the workers of one cluster.
    """

    def __init__(self, chosen, log, distributed):
        addresses = free_addresses(len(chosen))
        self._remotes = []
        for index, core in enumerate(chosen):
            task = {"type": "worker", "index": index}
            config = json.dumps({"cluster": {"worker": addresses}, "task": task})
            variables = {"TF_CONFIG": config} if distributed else {}
            self._remotes.append(Remote(1, log, "distributed_worker", [core], variables))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for remote in self._remotes:
            remote.close()

    def ask(self, method, *args, seconds=TIMEOUT):
        """Their answers.

        Raises:
            RemoteError: What the first one says that fails; the others, which may wait for it in
                vain, are ended.
        """
        for remote in self._remotes:
            remote.send(method, *args)
        answers, deadline = {}, time.monotonic() + seconds
        waiting = list(self._remotes)
        while waiting:
            left = max(0.0, deadline - time.monotonic())
            ready = select.select(waiting, [], [], left)[0] or waiting[:1]
            try:
                for remote in ready:
                    answers[remote] = remote.receive(left)
                    waiting.remove(remote)
            except RemoteError:
                for remote in waiting:
                    remote.kill()
                raise
        return [answers[remote] for remote in self._remotes]


def contest(name, settings, chosen, folder, say):
    """Measure a model: `summarise` has what the entries mean."""
    options = {
        "model": name,
        "size": settings.size,
        "batch": 2 * settings.batch,
        "filters": settings.filters,
        "kernel_size": KERNEL,
        "weight": WEIGHT,
        "seed": settings.seed,
    }
    with (
        Group(chosen[:1], settings.log, False) as one,
        Group(chosen, settings.log, True) as two,
    ):
        contestants = {"one": (one, "none"), "two": (two, "multi_worker")}
        for which, (group, strategy) in contestants.items():
            place = {"strategy": strategy, "workdir": str(folder / which)}
            numbers = group.ask("start", {**options, **place})[0]
        rounds = {"one": [], "two": []}
        say(f"{name}: {settings.repeats} rounds of {settings.steps} steps …")
        for turn in range(settings.repeats + 1):
            order = list(contestants) if turn % 2 else list(contestants)[::-1]
            for which in order:
                group, _ = contestants[which]
                rounds[which].append(group.ask("train", turn + 1, settings.steps))
        say(f"{name}: taking steps apart …")
        parts = two.ask("dissect", DISSECTED * settings.steps)
        whole = []
        for turn in range(DISSECTED):
            epoch = settings.repeats + 2 + turn
            whole += one.ask("train", epoch, settings.steps)[0][0]
        reduced = {size: two.ask("reduce", size, REDUCES) for size in (1, numbers, LARGE)}
        dispatch = two.ask("dispatch", 1, REDUCES)
    return {
        "numbers": numbers,
        "rounds": rounds,
        "dissected": parts,
        "whole": whole,
        "reduced": reduced,
        "dispatch": dispatch,
    }


def summarise(measured, settings):
    """The record of a model.

    Args:
        measured: `numbers`, that are added up in a step; `rounds` of `one` and `two`, for each
            process what `distributed_worker.Server.train` returns, and so on for the other
            methods: `dissected`, `reduced` for each size, and `dispatch`; `whole`, the lines of
            the single process for the steps that were dissected.
        settings: The program's `Settings`.
    """
    rounds = list(zip(measured["rounds"]["one"], measured["rounds"]["two"], strict=True))
    losses = [
        abs(a["loss"] - b["loss"]) / abs(a["loss"])
        for one, two in rounds
        for a, b in zip(one[0][0], two[0][0], strict=True)
    ]
    # Ratios are of the same step in both, for there the work is the same.
    ratios = []
    seconds, used, shares = ({"one": [], "two": []} for _ in range(3))
    for pair in rounds[1:]:
        steps = [[row["seconds"] for row in group[0][0][1:]] for group in pair]
        ratios.append(measure.ratio(*steps)["median"])
        for which, values, group in zip(seconds, steps, pair, strict=True):
            seconds[which].append(statistics.median(values))
            # The busiest process of each step: the other one waits for it.
            clocks = zip(*(clock[1:] for _, clock in group), strict=True)
            busiest = [max(step, key=lambda times: times[1]) for step in clocks]
            used[which].append(statistics.median(busy for _, busy in busiest))
            shares[which] += [busy / wall for wall, busy in busiest]
    ratio, share = measure.quartiles(ratios), min(map(statistics.median, shares.values()))
    reduces = {
        size: statistics.median(map(max, zip(*workers, strict=True)))
        for size, workers in measured["reduced"].items()
    }
    dispatch = statistics.median(map(max, zip(*measured["dispatch"], strict=True)))
    exchange = {
        "bytes": 4 * measured["numbers"],
        "all_reduce": reduces[measured["numbers"]],
        "all_reduce_one_number": reduces[1],
        "all_reduce_large": reduces[LARGE],
        "large_bytes": 4 * LARGE,
        "dispatch": dispatch,
    }
    step = dissection(measured["dissected"], measured["whole"], settings.steps)
    return {
        **{name: {"seconds": times, **measure.quartiles(times)} for name, times in seconds.items()},
        "processor_seconds": {name: statistics.median(times) for name, times in used.items()},
        "ratio": ratio,
        "met": ratio["median"] >= WANTED,
        "loss_difference": max(losses),
        "equal_work": max(losses) <= EQUAL,
        "core_share": share,
        "free": share >= FREE,
        "exchange": exchange,
        "step": step,
        "share_of_all_reduce": exchange["all_reduce"] / step["together"],
        "forecast": forecast.predict(step, exchange, settings.batch),
    }


def dissection(workers, whole, steps):
    """Where the time of the pair's steps went; medians over the steps.

    Args:
        workers: For each, the lists of `distributed_worker.Server.dissect`.
        whole: The lines of `metrics.jsonl` of the single process for these steps.
        steps: Steps of a round; the first one does not count.
    """
    kept = [index for index in range(len(whole)) if index % steps]

    def over(name, choose):
        return [choose(worker[name][index] for worker in workers) for index in kept]

    alone, slowest_alone = over("alone", statistics.mean), over("alone", max)
    mean, slowest = over("at_once", statistics.mean), over("at_once", max)
    together = over("together", max)
    waiting = [(b - a) / c for a, b, c in zip(mean, slowest, together, strict=True)]
    exchange = [(c - b) / c for b, c in zip(slowest, together, strict=True)]
    return {
        "whole": statistics.median(whole[index]["seconds"] for index in kept),
        "alone": statistics.median(alone),
        "slowest_alone": statistics.median(slowest_alone),
        "at_once": statistics.median(mean),
        "slowest_at_once": statistics.median(slowest),
        "together": statistics.median(together),
        "share_of_waiting": statistics.median(waiting),
        "share_of_exchange": statistics.median(exchange),
        "samples": [worker["alone"][index] for worker in workers for index in kept],
    }

"""Time, memory and true gradient errors of deq_keras, of its peers and of the published procedure.

    python -m benchmarks --suite=peers --output=runs/benchmark/peers.json
    python -m benchmarks --suite=paper --output=runs/benchmark/paper.json
    python -m benchmarks --suite=paper --full --output=runs/benchmark/paper.json
    python -m benchmarks --suite=scaling --output=runs/benchmark/scaling.json
    python -m benchmarks --suite=solvers --output=runs/benchmark/solvers.json
    python -m benchmarks --suite=priors --size=128 --output=runs/benchmark/priors.json
    python -m benchmarks --suite=distributed --output=runs/benchmark/distributed.json

`make benchmark` runs the six, in an environment with the peers (the extra `benchmark`). Each
writes a JSON file, a plot (`.png`) next to it, and tables to the terminal.

- `peers`: one training step on the map u - 0.1 ((u - y) + A^T tanh(A u)) to relative errors of the
  gradient of 1e-3 and 1e-5: ours against torchdeq, deepinv, jaxopt and optimistix. `--sharpness=20`
  takes the harder one with tanh(20 A u).
- `paper`: the energy of arXiv:2206.13193 on photographs: our defaults against its procedure.
- `scaling`: our time and peak memory against size, batch, iterations and tolerance; each solver
  with each adjoint; compaction.
- `solvers`: every solver on a grid of problems at equal true error, and performance profiles; with
  torchdeq, deepinv and optimistix where they are installed and can be given the map.
- `priors`: a reconstruction with each trained ridge prior to a gradient norm of 1e-4, ours against
  the same energy in PyTorch with nonmonotone APG.
- `distributed`: two processes against one at the same global batch, the share of communication,
  and on paper what more would give.

How it measures. Each framework runs in a process of its own with the same number of threads and
cores, since their pools of threads disturb each other in one process. The settings of
every contestant (its solvers, adjoint solvers, memory layouts: `FAMILIES` in its module) are
tuned first: the loosest tolerance of each family that meets the target, then the fastest
family. These finalists then run in turn, round by round, after a warm-up that takes the
compilation; given are medians and quartiles of times and of the ratios within a round. Beside
every time stands the true error of the gradient with respect to filters and measurement (the
larger one counts) against a float64 solution by an independent implementation in NumPy.
"""

import dataclasses
import datetime
import os
import platform
import sys
import time
from pathlib import Path

from absl import app, flags
from rich.console import Console

from benchmarks import (
    distributed_suite,
    output,
    paper_suite,
    peers_suite,
    priors_suite,
    scaling_suite,
    solvers_grid,
    solvers_peers,
    solvers_suite,
)
from benchmarks.remote import RemoteError
from trainers.process.versions import installed

SUITES = {
    "peers": peers_suite,
    "paper": paper_suite,
    "scaling": scaling_suite,
    "solvers": solvers_suite,
    "priors": priors_suite,
    "distributed": distributed_suite,
}

GROUPS = {"peers": peers_suite.GROUPS, "priors": priors_suite.GROUPS}

_SUITE = flags.DEFINE_enum("suite", None, list(SUITES), "What to measure.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file to write; a plot is put next to it.")
_THREADS = flags.DEFINE_integer(
    "threads",
    min(2, os.cpu_count() or 1),
    "Threads of each framework (distributed: 1).",
    lower_bound=1,
)
_REPEATS = flags.DEFINE_integer("repeats", 7, "Measured rounds.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of filters, images and noise.", lower_bound=0)
_LOG = flags.DEFINE_string("log", None, "File for what the frameworks print.")
_CONTESTANTS = flags.DEFINE_list(
    "contestants",
    None,
    f"Some of them; peers: of {', '.join(peers_suite.GROUPS)}; priors: of "
    f"{', '.join(priors_suite.GROUPS)}; solvers: of ours, {', '.join(solvers_peers.PEERS)}, and "
    "ours take part in any case.",
)
_ONLY = flags.DEFINE_string(
    "only", "", "peers, priors: only settings, solvers: only problems, whose name contains this."
)
_TARGETS = flags.DEFINE_list(
    "targets",
    None,
    "Errors to reach; peers, solvers: 1e-3 and 1e-5 if not given, priors: gradient norms, 1e-4.",
)
_SHARPNESS = flags.DEFINE_list(
    "sharpness",
    None,
    "solvers: sharpnesses of the experts, 50, 500, 5000 and 20000 if not given; peers: one, 1.",
)
_SIZE = flags.DEFINE_integer("size", 96, "All but paper: side of the images.", lower_bound=8)
_BATCH = flags.DEFINE_integer(
    "batch", 8, "All but paper, priors: images (distributed: of each process).", lower_bound=1
)
_MEMORY = flags.DEFINE_boolean("memory", True, "peers: measure peak memory, too.")
_FILTERS = flags.DEFINE_integer(
    "filters", 32, "All but paper, priors: number of filters.", lower_bound=1
)
_ITERATIONS = flags.DEFINE_list(
    "iterations", ["10", "50", "200"], "scaling: forced numbers of iterations."
)
_STEPS = flags.DEFINE_integer(
    "steps", 6, "distributed: steps of a round; the first does not count.", lower_bound=3
)
_TASKS = flags.DEFINE_list("tasks", ["denoising", "deblurring"], "paper: some of these.")
_IMAGES = flags.DEFINE_integer("images", 10, "paper, priors: images of the batch.", lower_bound=1)
_HEIGHT = flags.DEFINE_integer("height", 218, "paper: height of the images.", lower_bound=11)
_WIDTH = flags.DEFINE_integer("width", 178, "paper: width of the images.", lower_bound=11)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "paper, priors: folder of images to use instead.")
_PROCEDURE_REPEATS = flags.DEFINE_integer(
    "procedure_repeats", 1, "paper: whole runs of the procedure.", lower_bound=1
)
_PROCEDURE_ITERATIONS = flags.DEFINE_integer(
    "procedure_iterations",
    1000,
    "paper: limit of the procedure.",
    lower_bound=1,
)
_FULL = flags.DEFINE_boolean(
    "full", False, "paper: whole runs in the slow layout too, some ten minutes each."
)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The flags, checked; see their help."""

    threads: int
    repeats: int
    seed: int
    log: str | None
    contestants: tuple
    only: str
    targets: tuple
    size: int
    batch: int
    filters: int
    memory: bool
    sharpness: tuple
    iterations: tuple
    steps: int
    tasks: tuple
    images: int
    height: int
    width: int
    data_dir: str | None
    procedure_repeats: int
    procedure_iterations: int
    full: bool


def settings():
    """The `Settings` that the flags say.

    Raises:
        ValueError: If a value is not among those that there are.
    """
    usual = ["1e-4"] if _SUITE.value == "priors" else ["1e-3", "1e-5"]
    targets = tuple(_number("targets", text, float) for text in _TARGETS.value or usual)
    usual = ("50", "500", "5000", "20000") if _SUITE.value == "solvers" else ("1",)
    sharpness = tuple(_number("sharpness", text, float) for text in _SHARPNESS.value or usual)
    if _SUITE.value == "peers" and len(sharpness) > 1:
        raise ValueError(f"Expected one --sharpness for the suite peers. Received {sharpness}.")
    iterations = tuple(_number("iterations", text, int) for text in _ITERATIONS.value)
    for name in _TASKS.value:
        if name not in ("denoising", "deblurring"):
            raise ValueError(f"Expected --tasks of denoising and deblurring. Received {name!r}.")
    groups = GROUPS.get(_SUITE.value, peers_suite.GROUPS)
    every = ("ours", *solvers_peers.PEERS) if _SUITE.value == "solvers" else groups
    contestants = tuple(_CONTESTANTS.value or every)
    if _SUITE.value == "solvers":
        solvers_peers.check(contestants)
        solvers_grid.families(1, 8, 1, 0, _ONLY.value)
    else:
        peers_suite.contestants(contestants, _ONLY.value, groups)
    if min(targets, default=1.0) < 1e-6:
        raise ValueError(f"Expected --targets >= 1e-6: it is all float32. Received {targets}.")
    return Settings(
        threads=_THREADS.value,
        repeats=_REPEATS.value,
        seed=_SEED.value,
        log=_LOG.value,
        contestants=contestants,
        only=_ONLY.value,
        targets=targets,
        size=_SIZE.value,
        batch=_BATCH.value,
        filters=_FILTERS.value,
        memory=_MEMORY.value,
        sharpness=sharpness,
        iterations=iterations,
        steps=_STEPS.value,
        tasks=tuple(_TASKS.value),
        images=_IMAGES.value,
        height=_HEIGHT.value,
        width=_WIDTH.value,
        data_dir=_DATA_DIR.value,
        procedure_repeats=_PROCEDURE_REPEATS.value,
        procedure_iterations=_PROCEDURE_ITERATIONS.value,
        full=_FULL.value,
    )


def _number(name, text, kind):
    try:
        value = kind(text)
    except ValueError:
        value = 0
    if not value > 0:
        raise ValueError(f"Expected --{name} to be positive numbers. Received {text!r}.")
    return value


def versions():
    """The versions of everything that may have been measured."""
    names = ("tensorflow", "tensorflow_cpu", "keras", "numpy", "torch", "torchdeq", "deepinv")
    names = ("deq_keras", *names, "jax", "jaxopt", "optimistix", "lineax")
    return {"python": platform.python_version(), **installed(*names)}


def benchmark():
    """Everything, from the flags to the files."""
    console = Console(width=None if sys.stdout.isatty() else 160)
    begin, chosen = time.perf_counter(), settings()
    needed = ["paper_procedure"] if _SUITE.value == "paper" else []
    if groups := GROUPS.get(_SUITE.value):
        needed = [groups[name][0] for name in chosen.contestants]
    peers_suite.check_installed(needed)
    path = Path(_OUTPUT.value)
    if path.is_dir():
        raise ValueError(
            f"Expected --output to name a JSON file. Received the folder {str(path)!r}: "
            f"write --output={path / (_SUITE.value + '.json')}."
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    results = SUITES[_SUITE.value].run(
        chosen, lambda line: console.print(line, highlight=False, markup=False)
    )
    record = {
        "suite": _SUITE.value,
        "created": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": "python -m benchmarks " + " ".join(sys.argv[1:]),
        "settings": dataclasses.asdict(chosen),
        "versions": versions(),
        "machine": {"cpus": os.cpu_count(), "processor": platform.processor()},
        "seconds": time.perf_counter() - begin,
        "results": results,
    }
    output.write(path, record)
    output.tables(record, console)
    console.print(f"Results: {path}\nPlot:    {output.plot(path.with_suffix('.png'), record)}")


def main(argv):
    if len(argv) > 1:
        raise app.UsageError(f"Unexpected arguments: {argv[1:]}. Options begin with --.")
    try:
        benchmark()
    except (ImportError, ValueError, OSError, RuntimeError, RemoteError) as error:
        raise SystemExit(f"Error: {error}") from None


if __name__ == "__main__":
    flags.mark_flags_as_required(["suite", "output"])
    app.run(main)

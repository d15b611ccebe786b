"""Other libraries in the suite `solvers`: what they are given, and how they are compared.

They get the map of fields of experts for denoising and deconvolution as arrays: the cell's own
normalised filters, weight and step size in float32, and the same start. Other problems have no map
in their frameworks and are not run. Each library has a process of its own, as in `remote`.
"""

import dataclasses
import importlib.util

import numpy as np

from benchmarks import measure, solvers_grid
from benchmarks.remote import Remote

# Peers: the module of `benchmarks.peers` with their `solvers`, and what must be installed.
PEERS = {
    "torchdeq": ("solve_torchdeq", ("torch", "torchdeq")),
    "deepinv": ("solve_deepinv", ("torch", "deepinv")),
    "optimistix": ("solve_optimistix", ("jax", "optimistix", "lineax")),
}
TASKS = ("denoising", "deconvolution")


@dataclasses.dataclass(frozen=True)
class Experts:
    """The map `f(u) = u - tau (K^T (K u - y) + S^T tanh(A u))`; arrays are float32.

    Filters see the image mirrored about its border pixels.

    Attributes:
        filters: `A`, with the sharpness in it, `(side, side, 1, count)` with an odd side.
        synthesis: `S`, with the weight of the prior in it, of the same shape.
        measurement: `y`, `(batch, height, width, 1)`.
        step: `tau`.
        tied: Whether `S` is a multiple of `A`, so that the map is a step on an energy.
        blur: Kernel of the circular `K`, `(side, side)` with odd sides, or `None`: the identity.
        start: Where all solvers start, of the shape of `y`.
        truth: The fixed point in float64.
    """

    filters: np.ndarray
    synthesis: np.ndarray
    measurement: np.ndarray
    step: float
    tied: bool
    blur: np.ndarray | None
    start: np.ndarray
    truth: np.ndarray

    @property
    def target(self):
        """What `TorchMap` takes for the loss; there is none here."""
        return self.start


def check(names):
    """Refuse unknown contestants.

    Raises:
        ValueError: If one of the names is neither `"ours"` nor a peer.
    """
    unknown = sorted(set(names) - {"ours", *PEERS})
    if unknown:
        raise ValueError(f"Expected contestants among {['ours', *PEERS]}. Received {unknown}.")


def missing(names):
    """`{peer: words}` for those that are not installed."""
    found = {}
    for name in names:
        absent = [part for part in PEERS[name][1] if importlib.util.find_spec(part) is None]
        if absent:
            found[name] = f"{' and '.join(absent)} not installed (the extra `benchmark`)"
    return found


def fits(family):
    """Whether the peers have the map of a family of problems."""
    return family.prior in solvers_grid.EXPERTS and family.task in TASKS


class Field:
    """The peers that run, each in its process.

    Args:
        names: Some of `PEERS`.
        threads: Of each.
        log: File for what they print, or `None`.
    """

    def __init__(self, names, threads, log):
        self.missing = missing(names)
        self._remotes = {
            name: Remote(threads, log, "solvers_peers_worker")
            for name in names
            if name not in self.missing
        }

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for remote in self._remotes.values():
            remote.close()

    def open(self, experts, cap):
        """`{label: worker}` of all solvers, once the peers have the problem `experts`."""
        workers = {}
        for name, remote in self._remotes.items():
            labels = remote.open(PEERS[name][0], experts, cap)
            workers.update(dict.fromkeys(labels, remote))
        return workers


def race(workers, runs, auto, repeats):
    """Seconds of the peers over those of what `"auto"` takes, run in turn round by round.

    Args:
        workers: From labels to the worker of each, that of `auto` included.
        runs: Those of a problem to one target; they say the tolerance of each solver.
        auto: Label of the solver that is compared with.
        repeats: Rounds.

    Returns:
        `{label: quartiles of the ratios within a round}`, of those that met the target.
    """
    tolerances = {run["solver"]: run["tolerance"] for run in runs if run["met"]}
    tolerances = {label: tolerances[label] for label in workers if label in tolerances}
    seconds = {label: [] for label in tolerances}
    if auto not in seconds or len(seconds) == 1:
        return {}
    for turn in range(repeats):
        for offset in range(len(seconds)):
            label = list(seconds)[(turn + offset) % len(seconds)]
            seconds[label].append(workers[label].run(label, tolerances[label])["seconds"])
    own = seconds.pop(auto)
    return {label: measure.ratio(times, own) for label, times in seconds.items()}

"""Forecast of what more workers would give: a model of a step's time, fed with measured costs.

A step of `N` workers takes

    compute + waiting + 2 (N - 1) latency + 2 (N - 1) / N bytes / bandwidth + overhead.

The middle two are a ring all-reduce: `2 (N - 1)` rounds, one after the other, in each of which
every worker sends an `N`-th of the vector to the next one. Waiting is for the slowest worker: the
solvers stop when the last image of a batch has converged, so the time of a worker's batch is a
maximum over its images, and such maxima follow Gumbel's distribution: the mean of the largest of
`N` of them is that of one plus `scale ln N`.
"""

import dataclasses
import math
import statistics

ASSUMPTIONS = (
    "All workers are like the measured one: one core, the same memory to itself.",
    "Ring all-reduce of all numbers at once, as TensorFlow's on CPUs, after the gradient: nothing "
    "of it overlaps with computing.",
    "A round of the ring takes as long as measured on loopback, half of an all-reduce of one "
    "number by two processes, plus what the network adds.",
    "Weak scaling: every worker keeps its number of images; its time varies from batch to batch "
    "by Gumbel's law, with the measured standard deviation.",
    "Strong scaling: a fixed global batch; a step without others is a fixed time plus a time an "
    "image, both measured. The slowest image of the batch sets the number of iterations however "
    "the batch is cut, so that nobody waits more than for it.",
    "No faults, no other traffic, and data that are there in time.",
)

WORKERS, GLOBAL_BATCH = (8, 64, 512), 512  # the latter for strong scaling
ETHERNET = {"name": "10 Gbit/s Ethernet", "latency": 50e-6, "bandwidth": 10e9 / 8}


@dataclasses.dataclass(frozen=True)
class Network:
    """Seconds of a round of the ring, and bytes a second."""

    latency: float
    bandwidth: float

    def over(self, latency, bandwidth):
        """The same software over wires with such latency and bandwidth."""
        return Network(self.latency + latency, min(self.bandwidth, bandwidth))


@dataclasses.dataclass(frozen=True)
class Costs:
    """Measured costs of a model.

    Attributes:
        local: Mean seconds of a worker's step without the others, `images` each.
        scale: Gumbel's, of these seconds.
        images: Images of a worker.
        fixed: Seconds of a step that do not depend on the number of images.
        image: Seconds of an image.
        overhead: Further seconds of a step under the strategy, without the all-reduce.
        bytes: Size of what is added up.
    """

    local: float
    scale: float
    images: int
    fixed: float
    image: float
    overhead: float
    bytes: int


def ring(workers, size, network):
    """Seconds of an all-reduce of `size` bytes."""
    rounds = 2 * (workers - 1)
    return rounds * (network.latency + size / workers / network.bandwidth)


def gumbel_scale(samples):
    """The scale of Gumbel's distribution with the standard deviation of these numbers."""
    return statistics.stdev(samples) * math.sqrt(6.0) / math.pi


def fixed_and_image(whole, half, images):
    """`(fixed, image)` from the seconds of steps with all `images` and with half of them.

    Where the half takes less than half of the time, which noise can do, nothing is fixed.
    """
    fixed = min(max(0.0, 2.0 * half - whole), whole)
    return fixed, (whole - fixed) / images


def weak(costs, network, workers):
    """A row of the forecast: every worker has `costs.images` images."""
    waiting = costs.scale * math.log(workers)
    one = workers * costs.local
    return _row(costs, network, workers, workers * costs.images, costs.local, waiting, one)


def strong(costs, network, workers, images):
    """A row of the forecast: all workers together have `images` images."""
    compute = costs.fixed + costs.image * math.ceil(images / workers)
    one = costs.fixed + costs.image * images
    return _row(costs, network, workers, images, compute, 0.0, one)


def _row(costs, network, workers, images, compute, waiting, one):
    """`one`: seconds that one worker would need for all images."""
    exchange = ring(workers, costs.bytes, network) + costs.overhead * (workers > 1)
    seconds = compute + waiting + exchange
    return {
        "workers": workers,
        "images": images,
        "seconds": seconds,
        "compute": compute,
        "waiting": waiting,
        "exchange": exchange,
        "speedup": one / seconds,
        "efficiency": one / seconds / workers,
        "extrapolated": True,
    }


def predict(step, exchange, batch):
    """The forecast for more workers, and as a check that for the two that were measured.

    Args:
        step: What `distributed_suite.dissection` gives.
        exchange: Seconds of all-reduces, as `distributed_suite.summarise` has them.
        batch: Images of each of the two workers.
    """
    loopback = Network(
        latency=max(0.0, exchange["all_reduce_one_number"] - exchange["dispatch"]) / 2.0,
        bandwidth=exchange["large_bytes"]
        / max(exchange["all_reduce_large"] - exchange["all_reduce_one_number"], 1e-9),
    )
    fixed, image = fixed_and_image(step["whole"], step["slowest_alone"], 2 * batch)
    beside = step["together"] - step["slowest_at_once"] - exchange["all_reduce"]
    costs = Costs(
        local=step["alone"],
        scale=gumbel_scale(step["samples"]),
        images=batch,
        fixed=fixed,
        image=image,
        overhead=max(0.0, beside),
        bytes=exchange["bytes"],
    )
    network = loopback.over(ETHERNET["latency"], ETHERNET["bandwidth"])
    two = weak(costs, loopback, 2)["seconds"]
    return {
        "costs": vars(costs),
        "loopback": vars(loopback),
        "assumed": vars(network),
        "check": {"predicted": two, "measured": step["together"]},
        "weak": [weak(costs, network, n) for n in WORKERS],
        "strong": [strong(costs, network, n, GLOBAL_BATCH) for n in WORKERS],
    }

"""Workers of a training, and which of them this process is: from `TF_CONFIG` or from Slurm."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import socket
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from trainers.process.errors import AddressTaken, ConfigurationError

JOBS = ("chief", "worker")
SLURM_PORT = 8888  # of the first task on a node; the next ones follow
_MOST_NODES = 2**16  # of a range, as in Slurm
_EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222", "10.0.0.2:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


class Cluster(NamedTuple):
    """The workers of a training.

    Attributes:
        addresses: `host:port` of each worker, the chief first.
        index: The number of this one.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def others(self) -> dict[int, str]:
        """The addresses of the other workers by their number."""
        return {n: a for n, a in enumerate(self.addresses) if n != self.index}

    def place(self, index: int) -> tuple[str, int]:
        """Host and port of a worker."""
        return split(self.addresses[index])


def from_tf_config(text: str) -> Cluster:
    """The cluster that the environment variable `TF_CONFIG` describes.

    Args:
        text: Its value.

    Raises:
        ConfigurationError: If it is malformed, with what is wrong.
    """

    def wrong(what):
        shown = text if len(text) < 300 else text[:300] + "..."
        return ConfigurationError(
            f"TF_CONFIG is malformed: {what}. Expected something like {_EXAMPLE}. Received: {shown}"
        )

    try:
        content = json.loads(text)
    except ValueError as error:
        raise wrong(f"it is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise wrong("it is not an object")
    cluster, task = content.get("cluster"), content.get("task")
    if not isinstance(cluster, dict) or not cluster:
        raise wrong("`cluster` is missing, or not an object")
    if not isinstance(task, dict):
        raise wrong("`task` is missing, or not an object")
    if unknown := set(cluster) - set(JOBS):
        raise wrong(
            f"`cluster` has {sorted(unknown)}, and only {list(JOBS)} take part in this training"
        )
    kind, index = task.get("type"), task.get("index")
    if not isinstance(kind, str) or kind not in cluster:
        raise wrong(f"`task.type` is {kind!r}, which is not in `cluster`")
    if not isinstance(index, int) or isinstance(index, bool):
        raise wrong(f"`task.index` is {index!r}, which is not an integer")
    for job, addresses in cluster.items():
        if not isinstance(addresses, list) or not addresses:
            raise wrong(f"`cluster.{job}` is not a list of addresses")
        for address in addresses:
            if not isinstance(address, str) or split(address) is None:
                raise wrong(f"{address!r} is not `host:port` with a port from 1 to 65535")
    if not 0 <= index < len(cluster[kind]):
        raise wrong(f"`task.index` is {index}, and there are {len(cluster[kind])} of {kind!r}")
    if len(cluster.get("chief", ())) > 1:
        raise wrong("there is more than one chief")
    together = [address for job in JOBS for address in cluster.get(job, ())]
    if len(set(together)) < len(together):
        raise wrong("two workers have the same address")
    before = len(cluster.get("chief", ())) if kind == "worker" else 0
    return Cluster(tuple(together), before + index)


def from_slurm(variables: Mapping[str, str]) -> Cluster:
    """The cluster of the tasks of a Slurm step: a worker each, at ports from `SLURM_PORT` on.

    TensorFlow's `SlurmClusterResolver` fails where there are fewer GPUs than tasks, and sorts the
    nodes by name, which puts the tenth before the ninth.

    Args:
        variables: The environment of a task.

    Raises:
        ConfigurationError: If it does not describe a cluster, with what is wrong.
    """

    def wrong(what):
        return ConfigurationError(
            f"Slurm's variables do not describe a cluster: {what}. Start the program with `srun`, "
            "a task for each worker, or set TF_CONFIG."
        )

    try:
        hosts = list(_hosts(variables["SLURM_STEP_NODELIST"]))
        counts = list(_counts(variables["SLURM_STEP_TASKS_PER_NODE"]))
        rank = int(variables["SLURM_PROCID"])
        node = int(variables.get("SLURM_NODEID", -1))
    except KeyError as error:
        raise wrong(f"{error.args[0]} is missing") from None
    except ValueError as error:
        raise wrong(error) from None
    if len(hosts) != len(counts):
        raise wrong(f"there are {len(hosts)} nodes, and numbers of tasks for {len(counts)}")
    places = [(n, port) for n, count in enumerate(counts) for port in range(count)]
    if not 0 <= rank < len(places):
        raise wrong(f"SLURM_PROCID is {rank}, and there are {len(places)} tasks")
    if node >= 0 and node != places[rank][0]:
        raise wrong(
            f"task {rank} runs on node {node}, and would on node {places[rank][0]} if they were "
            "dealt out in blocks (`srun --distribution=block`)"
        )
    return Cluster(tuple(f"{hosts[n]}:{SLURM_PORT + port}" for n, port in places), rank)


def _hosts(text) -> Iterator[str]:
    """`n[09-10,12].x,m` to n09.x, n10.x, n12.x, m, as `scontrol show hostnames` has them."""
    numbers = r"\[\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*\]"
    name = rf"(?:[\w.-]|{numbers})+"
    if not re.fullmatch(rf"{name}(?:,{name})*", text, re.ASCII):
        raise ValueError(f"SLURM_STEP_NODELIST={text!r} is not a list of nodes")
    for entry in re.findall(name, text, re.ASCII):
        parts = re.findall(rf"{numbers}|[^\[\]]+", entry)
        # The last bracket counts fastest.
        for choice in itertools.product(*map(_alternatives, parts)):
            yield "".join(choice)


def _alternatives(part) -> list[str]:
    """`[09-10,12]` to 09, 10, 12; what is in no brackets stays as it is."""
    if not part.startswith("["):
        return [part]
    found = []
    for numbers in part[1:-1].split(","):
        first, _, last = numbers.partition("-")
        low, high = int(first), int(last or first)
        if not low <= high < low + _MOST_NODES:
            raise ValueError(f"SLURM_STEP_NODELIST has a range of nodes {numbers!r}")
        found += [f"{number:0{len(first)}d}" for number in range(low, high + 1)]
    return found


def _counts(text) -> Iterator[int]:
    """`2(x3),1` to 2, 2, 2, 1."""
    for part in text.split(","):
        match = re.fullmatch(r"(\d+)(?:\(x(\d+)\))?", part)
        if match is None:
            raise ValueError(f"SLURM_STEP_TASKS_PER_NODE={text!r} is not a list of numbers")
        yield from [int(match[1])] * int(match[2] or 1)


def split(address: str) -> tuple[str, int] | None:
    """Host and port of an address, `None` if it is malformed."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 1 <= int(port) <= 65535:
        return None
    return host.strip("[]"), int(port)


def check_port(cluster: Cluster) -> None:
    """Raises `AddressTaken` if another program has this worker's port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            # Without `listen` nobody can connect to it.
            probe.bind(("", cluster.place(cluster.index)[1]))
        except OSError as error:
            raise occupied(cluster, error) from None


def occupied(cluster: Cluster, error: OSError) -> AddressTaken:
    """What to say when this worker cannot listen at its address."""
    what = {
        errno.EADDRINUSE: "another program uses this port",
        errno.EACCES: "only privileged programs may use this port",
        errno.EADDRNOTAVAIL: "this machine does not have this address",
    }.get(error.errno, error.strerror or str(error))
    return AddressTaken(
        f"Worker {cluster.index} cannot listen at {cluster.addresses[cluster.index]}: {what}. "
        "Choose another address, in the cluster of all workers alike. (`python -m trainers.launch` "
        "finds free ports.)"
    )


def in_slurm() -> bool:
    """Whether this process is a task of a Slurm step."""
    return "SLURM_PROCID" in os.environ and "SLURM_STEP_NODELIST" in os.environ

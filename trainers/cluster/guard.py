"""Guard of TensorFlow's server: it is bound to the network interface that the cluster is on.

The gRPC of `tf.distribute` has neither authentication nor encryption, and its server always
listens at the wildcard address, whatever the cluster says. So its socket is bound to the network
interface of the cluster's address as soon as the server has started; to the others it is as if
nobody listened. It does not replace a private network: whoever is on that one can still connect.
"""

from __future__ import annotations

import contextlib
import os
import socket
from pathlib import Path

import psutil

_LISTEN = "0A"


def interface(cluster) -> str:
    """The network interface through which the other workers of a cluster are reached.

    Args:
        cluster: A `trainers.cluster.resolver.Cluster`.

    Raises:
        OSError: If there is none, or more than one.
    """
    found = set()
    for number in cluster.others or [cluster.index]:
        host, port = cluster.place(number)
        # The route says it: a machine may call itself 127.0.1.1, and be another to the others.
        with contextlib.suppress(socket.gaierror):  # one name that is known is enough
            family, _, _, _, target = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect(target)  # sends nothing
                found |= _carrying(probe.getsockname()[0].partition("%")[0])
    if len(found) != 1:
        raise OSError(f"the other workers are reached through {sorted(found) or 'no interface'}")
    return found.pop()


def restrict(port: int, name: str) -> bool:
    """Bind this process's server on a port to a network interface.

    Args:
        port: The port it listens on.
        name: The name of the interface.

    Returns:
        Whether there was a server.

    Raises:
        OSError: If the system cannot do it: it takes Linux 5.7.
    """
    if not hasattr(socket, "SO_BINDTODEVICE"):
        raise OSError("this system has no SO_BINDTODEVICE")
    descriptors = list(_listening(port))
    for descriptor in descriptors:
        with socket.socket(fileno=os.dup(descriptor)) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode() + b"\0")
    return bool(descriptors)


def _carrying(address):
    """The interfaces that have an address; all of 127.0.0.0/8 is the loopback's."""
    if address.startswith("127."):
        address = "127.0.0.1"
    return {
        name
        for name, entries in psutil.net_if_addrs().items()
        if any(entry.address.partition("%")[0] == address for entry in entries)
    }


def _listening(port):
    """The descriptors of this process that listen on a port."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(FileNotFoundError):
            for line in Path("/proc/self/net", name).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
                    inodes.add(f"socket:[{fields[9]}]")
    for path in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if os.readlink(path) in inodes:
                yield int(path.name)

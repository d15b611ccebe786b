"""A server on all interfaces is bound to the one that the cluster is on, and goes on working.

`SO_BINDTODEVICE` needs no privilege, and is Linux's; a filter of the kernel would need one.
"""

import contextlib
import os
import socket
import sys

import psutil
import pytest

from trainers.cluster import guard
from trainers.cluster.resolver import Cluster

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="SO_BINDTODEVICE is Linux's")


def other_addresses():
    """IPv4 addresses of this machine that are not the loopback's."""
    return [
        entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if entry.family == socket.AF_INET and not entry.address.startswith("127.")
    ]


def has_ipv6():
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


@contextlib.contextmanager
def listener():
    """A server at the wildcard address that serves IPv4 and IPv6, as TensorFlow's does."""
    with socket.socket(socket.AF_INET6 if has_ipv6() else socket.AF_INET) as server:
        if server.family == socket.AF_INET6:
            server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        server.bind(("", 0))
        server.listen(8)
        server.settimeout(10)
        yield server, server.getsockname()[1]


def reaches(server, port, address):
    """Whether a connection to an address comes about, and carries what is said both ways."""
    try:
        with socket.create_connection((address, port), 2) as client:
            connection, _ = server.accept()
            with connection:
                client.sendall(b"ping")
                assert connection.recv(4) == b"ping"
                connection.sendall(b"pong")
                assert client.recv(4) == b"pong"
        return True
    except (ConnectionRefusedError, TimeoutError):
        return False


LOOPBACK = ["127.0.0.1", *(["::1"] if has_ipv6() else [])]


def test_a_server_is_reached_through_the_interface_only():
    with listener() as (server, port):
        for address in (*LOOPBACK, *other_addresses()):
            assert reaches(server, port, address)
        assert guard.restrict(port, "lo")
        for address in LOOPBACK:
            assert reaches(server, port, address)
        for address in other_addresses():
            assert not reaches(server, port, address)


@pytest.mark.skipif(not other_addresses(), reason="needs a second interface")
def test_the_loopback_is_shut_out_as_well():
    (address, *_) = other_addresses()
    cluster = Cluster((f"{address}:1", f"{address}:2"), 0)
    with listener() as (server, port):
        assert guard.restrict(port, guard.interface(cluster))
        assert reaches(server, port, address)
        assert not reaches(server, port, "127.0.0.1")


def test_only_this_port_is_touched():
    with listener() as (_, port), listener() as (other, other_port):
        guard.restrict(port, "lo")
        for address in (*LOOPBACK, *other_addresses()):
            assert reaches(other, other_port, address)


def test_no_server_is_said():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert not guard.restrict(bound.getsockname()[1], "lo")


def test_no_privilege_is_needed():
    """In a child process, which gives up being root if it is."""
    with listener() as (server, port):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                if os.getuid() == 0:
                    os.setuid(65534)
                code = 0 if guard.restrict(port, "lo") else 2
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        for address in other_addresses():
            assert not reaches(server, port, address)


@pytest.mark.parametrize(
    "addresses",
    [
        ("127.0.0.1:1", "127.0.0.1:2"),
        ("localhost:1", "127.0.0.5:2"),
        ("127.0.0.1:1",),
    ],
)
def test_interface_of_a_cluster_on_the_loopback(addresses):
    assert guard.interface(Cluster(addresses, 0)) == "lo"


def test_a_name_of_ones_own_that_is_the_loopback_does_not_mislead():
    """Debian gives a machine's own name to 127.0.1.1; the others know it by another address."""
    for address in other_addresses()[:1]:
        assert guard.interface(Cluster(("127.0.1.1:1", f"{address}:2"), 0)) != "lo"


def test_unknown_interface():
    with listener() as (_, port), pytest.raises(OSError, match="No such device"):
        guard.restrict(port, "nothere0")

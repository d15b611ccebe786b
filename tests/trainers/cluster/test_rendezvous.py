"""Workers meet over real sockets; whoever is missing, wrong or a stranger is told apart."""

import contextlib
import json
import random
import socket
import threading
import time

import pytest

from trainers.cluster.rendezvous import meet
from trainers.cluster.resolver import Cluster, check_port
from trainers.process.errors import AddressTaken, ConfigurationError, PeerLost

PATIENCE = 60  # seconds, on a machine that does much else; nothing here waits that long by itself


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def addresses(count):
    """The chief's is free; at the others' nobody ever listens here."""
    return (f"127.0.0.1:{free_port()}", *(f"127.0.0.{n + 1}:9" for n in range(1, count)))


class Meeting(threading.Thread):
    """A worker that goes to the meeting."""

    def __init__(self, cluster, timeout=PATIENCE, delay=0.0):
        super().__init__(daemon=True)
        self.cluster, self.timeout, self.delay, self.error = cluster, timeout, delay, None
        self.start()

    def run(self):
        time.sleep(self.delay)
        try:
            meet(self.cluster, self.timeout)
        except (ConfigurationError, PeerLost) as error:
            self.error = error

    def outcome(self):
        self.join(2 * PATIENCE)
        assert not self.is_alive(), f"worker {self.cluster.index} waits for ever"
        return self.error


def outcomes(*workers):
    return [worker.outcome() for worker in workers]


def visit(port, act=None):
    """A connection to the chief, as soon as it listens."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            connection = socket.create_connection(("127.0.0.1", port), PATIENCE)
        except ConnectionError:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        else:
            if act is not None:
                with connection:
                    act(connection)
            return connection


def test_one_worker_meets_nobody():
    meet(Cluster(("10.0.0.1:1",), 0), timeout=0)


@pytest.mark.parametrize("seed", range(4))
def test_all_meet_in_any_order_and_leave_the_port_free(seed):
    order = random.Random(seed)
    names = addresses(seed + 2)
    delays = [order.uniform(0, 0.3) for _ in names]
    workers = [Meeting(Cluster(names, n), delay=delay) for n, delay in enumerate(delays)]
    assert outcomes(*workers) == [None] * len(names)
    check_port(Cluster(names, 0))
    with socket.socket() as server:  # as strict as a server can be: without SO_REUSEADDR
        server.bind(("", Cluster(names, 0).place(0)[1]))


def test_nobody_goes_on_before_all_are_there():
    names = addresses(3)
    early = [Meeting(Cluster(names, n)) for n in (0, 1)]
    early[1].join(0.5)
    assert all(worker.is_alive() for worker in early)
    assert outcomes(Meeting(Cluster(names, 2)), *early) == [None] * 3


def test_message_of_a_cluster_of_hundreds():
    """Its length goes with the cluster; here the names are long instead."""
    long = [f"{'x' * 5000}{n}:1" for n in range(5)]
    names = (addresses(1)[0], *long)
    workers = [Meeting(Cluster(names, n)) for n in range(len(names))]
    assert outcomes(*workers) == [None] * len(names)


# Missing ones


def test_missing_workers_are_named_on_all_that_are_there():
    names = addresses(4)
    chief, worker = (Meeting(Cluster(names, n), timeout=0.5) for n in (0, 2))
    said, heard = outcomes(chief, worker)
    assert isinstance(said, PeerLost)
    assert str(said).startswith(
        f"worker 1 at {names[1]}, worker 3 at {names[3]} did not come up within 0.5 s. "
    )
    assert isinstance(heard, PeerLost)
    assert str(heard) == f"Worker 0 at {names[0]} says: {said}"


def test_missing_chief_is_named():
    names = addresses(2)
    (error,) = outcomes(Meeting(Cluster(names, 1), timeout=0.3))
    assert isinstance(error, PeerLost)
    message = f"Worker 1 did not find worker 0 at {names[0]} within 0.3 s \\(Connection refused\\)"
    with pytest.raises(PeerLost, match=message):
        raise error


def test_chief_that_ended_is_waited_for():
    names = addresses(2)
    cluster = Cluster(names, 0)
    with socket.socket() as first:
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(cluster.place(0))
        first.listen()
        worker = Meeting(Cluster(names, 1))
        first.settimeout(PATIENCE)
        first.accept()[0].close()  # killed before it said anything
    assert outcomes(Meeting(cluster), worker) == [None, None]


def test_worker_that_ended_may_come_again():
    names = addresses(3)
    chief = Meeting(Cluster(names, 0))
    hello = json.dumps({"index": 1, "addresses": names}).encode() + b"\n"
    visit(Cluster(names, 0).place(0)[1], lambda connection: connection.sendall(hello))
    again, last = (Meeting(Cluster(names, n), delay=0.2 * n) for n in (1, 2))
    assert outcomes(chief, again, last) == [None] * 3


# Wrong ones


def test_different_clusters_are_refused_on_both():
    names = addresses(2)
    other = (*names, "127.0.0.9:9")
    said, heard = outcomes(Meeting(Cluster(names, 0)), Meeting(Cluster(other, 1)))
    for error in (said, heard):
        assert type(error) is ConfigurationError
        assert f"Worker 0 has {list(names)}" in str(error)
        assert f"calls itself worker 1 has {list(other)}" in str(error)


def test_two_that_are_the_same_worker_are_refused_and_all_hear_of_it():
    names = addresses(4)
    errors = outcomes(*(Meeting(Cluster(names, n)) for n in (0, 1, 1)))
    for error in errors:
        assert type(error) is ConfigurationError
        assert "Two processes are worker 1. Give each a task index of its own." in str(error)


def test_second_chief_finds_the_port_taken():
    names = addresses(2)
    chief = Meeting(Cluster(names, 0))
    visit(Cluster(names, 0).place(0)[1]).close()
    (error,) = outcomes(Meeting(Cluster(names, 0)))
    assert isinstance(error, AddressTaken)
    assert "another program uses this port" in str(error)
    assert outcomes(chief, Meeting(Cluster(names, 1))) == [None, None]


# Strangers


def sends(data):
    return lambda connection: connection.sendall(data)


STRANGERS = {
    "scan": lambda connection: None,
    "browser": sends(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
    "bytes": sends(bytes(range(256))),
    "not text": sends(b"\xff\xfe\n"),
    "number": sends(b"3\n"),
    "list": sends(b"[1, 2]\n"),
    "object": sends(b'{"a": 1}\n'),
    "half": sends(b'{"index": 1, "addr'),
    "index": sends(b'{"index": 1}\n'),
    "no number": sends(b'{"index": [], "addresses": []}\n'),
    "no list": sends(b'{"index": 1, "addresses": 3}\n'),
    "long": sends(b"x" * 3_000_000),
}


@pytest.mark.parametrize("name", STRANGERS)
def test_stranger_does_not_disturb(name):
    names = addresses(2)
    chief = Meeting(Cluster(names, 0))
    with contextlib.suppress(ConnectionError):  # the chief may hang up on it
        visit(Cluster(names, 0).place(0)[1], STRANGERS[name])
    assert outcomes(chief, Meeting(Cluster(names, 1))) == [None, None]


def test_worker_that_is_in_no_cluster_is_not_counted():
    names = addresses(3)
    chief = Meeting(Cluster(names, 0), timeout=0.5)
    for index in (7, -1):
        hello = json.dumps({"index": index, "addresses": names}).encode() + b"\n"
        visit(Cluster(names, 0).place(0)[1], sends(hello))
    (error,) = outcomes(chief)
    assert isinstance(error, PeerLost)
    assert all(f"worker {n} at {names[n]}" in str(error) for n in (1, 2))


@pytest.mark.slow
def test_strangers_that_say_nothing_or_little_do_not_hold_the_meeting_up():
    names = addresses(2)
    chief = Meeting(Cluster(names, 0), timeout=30)
    silent, slow = (visit(Cluster(names, 0).place(0)[1]) for _ in range(2))
    stop = threading.Event()

    def drip():
        with contextlib.suppress(OSError):
            while not stop.wait(0.3):
                slow.sendall(b"x")

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        assert outcomes(chief, Meeting(Cluster(names, 1), timeout=30)) == [None, None]
    finally:
        stop.set()
        thread.join()
        silent.close()
        slow.close()

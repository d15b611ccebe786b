"""Rendezvous of the workers, before TensorFlow's servers start: one that is missing is named.

TensorFlow waits for a missing worker in C++ code, for as long as an hour, and Python cannot
interrupt it. So each worker first says to the chief, at the address that TensorFlow's server will
have, who it is; when all are there the chief lets them go on.
"""

from __future__ import annotations

import contextlib
import json
import socket
import time

from trainers.cluster.resolver import Cluster, occupied
from trainers.process.errors import ConfigurationError, PeerLost

_LONGEST = 2**20  # bytes of a message; an address has 20 or so, and there may be hundreds
_PATIENCE = 2.0  # seconds that a connection has to say who it is


def meet(cluster: Cluster, timeout: float) -> None:
    """Return when all workers are there.

    Args:
        cluster: The workers, and which of them this is.
        timeout: Seconds to wait.

    Raises:
        PeerLost: If some are missing, with their addresses.
        ConfigurationError: If the workers have different clusters, or two are the same one.
        AddressTaken: If the chief's port is in use.
    """
    if len(cluster.addresses) == 1:
        return
    deadline = time.monotonic() + timeout
    if cluster.index == 0:
        _receive_all(cluster, deadline, timeout)
    else:
        _report(cluster, deadline, timeout)


def _receive_all(cluster, deadline, timeout):
    present: dict[int, socket.socket] = {}
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(_listen(cluster))
        problem = None
        while len(present) < len(cluster.addresses) - 1 and problem is None:
            server.settimeout(max(0.01, min(1.0, deadline - time.monotonic())))
            try:
                connection, _ = server.accept()
            except TimeoutError:
                if time.monotonic() > deadline:
                    missing = [
                        f"worker {number} at {address}"
                        for number, address in cluster.others.items()
                        if number not in present
                    ]
                    problem = PeerLost(
                        f"{', '.join(missing)} did not come up within {timeout:g} s. Start all "
                        f"{len(cluster.addresses)} workers with the same cluster."
                    )
                continue
            stack.enter_context(connection)
            index, problem = _judge(cluster, _read(connection, _PATIENCE), present)
            if problem is not None:
                present[-1] = connection  # it must hear of it too
            elif index is not None:
                present[index] = connection
            else:
                connection.close()
        final = isinstance(problem, ConfigurationError)
        for connection in present.values():
            with contextlib.suppress(OSError):
                connection.settimeout(5)
                _send(connection, {"error": problem and str(problem), "final": final})
        for connection in present.values():
            # Let them close first: this port is needed again, and must not linger.
            with contextlib.suppress(OSError):
                connection.recv(1)
        if problem is not None:
            raise problem


def _judge(cluster, said, present):
    """Who has come, and what is wrong with it."""
    if not isinstance(said, dict) or not {"index", "addresses"} <= set(said):
        return None, None  # no worker: a scan of the ports, or a check of health
    index, addresses = said["index"], said["addresses"]
    if not isinstance(index, int) or not isinstance(addresses, list):
        return None, None
    if addresses != list(cluster.addresses):
        return None, ConfigurationError(
            "Expected all workers to have the same cluster. Worker 0 has "
            f"{list(cluster.addresses)}, and one that calls itself worker {index} has {addresses}."
        )
    if index == 0 or (index in present and not _gone(present[index])):
        return None, ConfigurationError(
            f"Two processes are worker {index}. Give each a task index of its own."
        )
    return (index if index in cluster.others else None), None


def _gone(connection):
    """Whether a worker that was there has ended, so that another may take its place."""
    connection.setblocking(False)
    try:
        return not connection.recv(1)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _report(cluster, deadline, timeout):
    chief = cluster.addresses[0]
    while True:
        left = deadline - time.monotonic()
        try:
            with socket.create_connection(cluster.place(0), max(0.1, left)) as connection:
                _send(connection, {"index": cluster.index, "addresses": list(cluster.addresses)})
                answer = _read(connection, max(0.1, left) + 2)  # it may have begun to wait later
        except OSError as error:
            problem, answer = error.strerror or str(error), None
        else:
            problem = "it did not answer"
        if isinstance(answer, dict) and "error" in answer:
            if answer["error"] is not None:
                kind = ConfigurationError if answer.get("final") else PeerLost
                raise kind(f"Worker 0 at {chief} says: {answer['error']}")
            return
        if time.monotonic() > deadline:
            raise PeerLost(
                f"Worker {cluster.index} did not find worker 0 at {chief} within {timeout:g} s "
                f"({problem}). Start all {len(cluster.addresses)} workers with the same cluster."
            )
        time.sleep(0.1)


def _listen(cluster):
    host, port = cluster.place(0)
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        server = socket.socket(family)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(address)
    except OSError as error:
        raise occupied(cluster, error) from None
    server.listen(len(cluster.addresses))
    return server


def _send(connection, content):
    connection.sendall(json.dumps(content).encode() + b"\n")


def _read(connection, timeout):
    """A message, `None` if there is none."""
    data, deadline = b"", time.monotonic() + timeout
    with contextlib.suppress(OSError):
        while not data.endswith(b"\n") and len(data) < _LONGEST:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            piece = connection.recv(_LONGEST)
            if not piece or time.monotonic() > deadline:
                break
            data += piece
    try:
        return json.loads(data)
    except ValueError:
        return None

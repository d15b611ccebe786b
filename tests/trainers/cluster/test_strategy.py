"""A name becomes a strategy, or an error that says what is missing; two processes become one."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tensorflow as tf

from trainers.cluster import strategy
from trainers.cluster.resolver import SLURM_PORT
from trainers.process import exits
from trainers.process.errors import AddressTaken, ConfigurationError, PeerLost

ROOT = Path(__file__).resolve().parents[3]
SLURM = ("SLURM_PROCID", "SLURM_STEP_NODELIST", "SLURM_STEP_TASKS_PER_NODE", "SLURM_NODEID")


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch):
    for name in ("TF_CONFIG", "TPU_NAME", strategy.ALL_INTERFACES, *SLURM):
        monkeypatch.delenv(name, raising=False)


# Names


@pytest.mark.parametrize(
    ("name", "hint"),
    [("mirorred", " Did you mean 'mirrored'?"), ("multi-worker", "'multi_worker'?"), ("x", "")],
)
def test_unknown_name_is_refused_with_the_nearest_one(name, hint):
    with pytest.raises(ConfigurationError) as caught:
        strategy.get(name)
    message = str(caught.value)
    assert message.startswith(f"Unknown strategy {name!r}.{hint}") or hint in message
    assert message.endswith(f"Expected one of {sorted(strategy.NAMES)}.")


@pytest.mark.parametrize("name", [None, 3, tf.distribute.get_strategy()])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ConfigurationError, match="Unknown strategy"):
        strategy.get(name)


def test_none_is_the_default_one(single):
    assert strategy.get() is strategy.get("none") is single
    assert single.num_replicas_in_sync == 1


def test_mirrored_over_logical_devices(mirrored):
    assert isinstance(mirrored, tf.distribute.MirroredStrategy)
    assert mirrored.num_replicas_in_sync == 2
    seen = mirrored.run(lambda: tf.distribute.get_replica_context().replica_id_in_sync_group)
    assert [int(n) for n in mirrored.experimental_local_results(seen)] == [0, 1]


def test_mirrored_over_fewer_devices_than_there_are():
    assert strategy.get("mirrored", devices=1).num_replicas_in_sync == 1


def test_more_devices_than_there_can_be():
    tf.config.list_logical_devices()  # TensorFlow has started
    with pytest.raises(ConfigurationError, match="split into 3 devices any more.*before any op"):
        strategy.get("mirrored", devices=3)


@pytest.mark.parametrize("devices", [0, -1, 1.5, "2"])
def test_number_of_devices_out_of_range(devices):
    with pytest.raises(ConfigurationError, match="`devices` to be an integer >= 1"):
        strategy.get("mirrored", devices=devices)


@pytest.mark.parametrize("name", ["none", "multi_worker", "tpu"])
def test_devices_are_for_mirrored_only(name):
    with pytest.raises(ConfigurationError, match="`devices` is for the strategy 'mirrored'"):
        strategy.get(name, devices=2)


def test_machine_without_tpu():
    if any(Path("/dev").glob("accel*")) or Path("/dev/vfio/0").exists():
        pytest.skip("this machine may have one")
    with pytest.raises(ConfigurationError, match="needs TPUs, and this machine has none"):
        strategy.get("tpu")


# Clusters that do not come about. Each ends before TensorFlow's servers start, in this process.


def tf_config(addresses, index):
    return json.dumps(
        {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": index}}
    )


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_no_cluster_at_all():
    with pytest.raises(ConfigurationError, match="neither is in the environment.*trainers.launch"):
        strategy.get("multi_worker")


def test_malformed_tf_config(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", '{"cluster": ')
    with pytest.raises(ConfigurationError, match="TF_CONFIG is malformed: it is not JSON"):
        strategy.get("multi_worker")


def test_malformed_slurm(monkeypatch):
    for name, value in zip(SLURM, ("0", "localhost", "two", "0"), strict=True):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match="SLURM_STEP_TASKS_PER_NODE='two'"):
        strategy.get("multi_worker")


def test_port_in_use(monkeypatch):
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("TF_CONFIG", tf_config([f"127.0.0.1:{port}", "127.0.0.2:9"], 0))
        with pytest.raises(AddressTaken, match=f"cannot listen at 127.0.0.1:{port}"):
            strategy.get("multi_worker", cluster_timeout=1)


@pytest.mark.parametrize("index", [0, 1])
def test_worker_that_does_not_come_up_is_named(monkeypatch, index):
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    monkeypatch.setenv("TF_CONFIG", tf_config(addresses, index))
    with pytest.raises(PeerLost, match=f"worker {1 - index} at {addresses[1 - index]}"):
        strategy.get("multi_worker", cluster_timeout=0.3)
    assert not exits.serves


@pytest.mark.parametrize("problem", ["the server was not found", "Operation not permitted"])
def test_server_that_cannot_be_restricted_is_refused_unless_told(monkeypatch, problem):
    def restrict(port, name):
        assert port == 3333
        if problem.startswith("Operation"):
            raise OSError(problem)
        return False

    monkeypatch.setattr(strategy.guard, "restrict", restrict)
    cluster = strategy.resolver.Cluster(("127.0.0.1:2222", "127.0.0.1:3333"), 1)
    message = rf"127\.0\.0\.1:3333 \({problem}\).*{strategy.ALL_INTERFACES}=1"
    with pytest.raises(ConfigurationError, match=message):
        strategy._restrict(cluster)
    monkeypatch.setenv(strategy.ALL_INTERFACES, "1")
    strategy._restrict(cluster)


# Two real processes

WORKER = """
import json, os, socket, sys
from trainers.cluster import agreement, guard, strategy
from trainers.process import exits
from trainers.cluster.resolver import from_slurm
from trainers.training.feed import Feed
from trainers.training import Options
from trainers.training import Trainer

def interfaces(port):
    for descriptor in guard._listening(port):
        with socket.socket(fileno=os.dup(descriptor)) as server:
            name = server.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)
            yield name.rstrip(b"\\0").decode()

with exits.exit_codes():
    cluster = from_slurm(os.environ)
    workers = strategy.get("multi_worker", cluster_timeout=60)
    feed = Feed(workers)
    said = agreement.gathered(workers, {"worker": cluster.index, "long": "x" * cluster.index})
    flags = [agreement.any_of(workers, cluster.index == n) for n in (0, 1, 2)]
    port = cluster.place(cluster.index)[1]
    report = {
        "place": [feed.workers, feed.worker, feed.replicas],
        "said": said,
        "flags": flags,
        "interfaces": list(interfaces(port)),
    }
    print(json.dumps(report), flush=True)
    Trainer(
        lambda: sys.exit("a model was built"),
        sys.argv[1],
        strategy=workers,
        config={"model": {"filters": 4 + cluster.index}},
    )
"""


@contextlib.contextmanager
def processes(commands):
    """Starts them, each with an environment; none is left over."""
    started = []
    try:
        for command, environment in commands:
            started.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=environment,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    start_new_session=True,
                )
            )
        yield started
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def in_use(port):
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError:
            return True
    return False


@pytest.mark.slow  # of another launcher; two workers train in tests/trainers/test_workers.py
@pytest.mark.skipif(sys.platform != "linux", reason="restricts the server by a filter of Linux")
def test_two_tasks_of_slurm(tmp_path):
    """They agree, listen on the cluster's interface only, and notice that they differ."""
    if any(in_use(SLURM_PORT + n) for n in (0, 1)):
        pytest.skip(f"port {SLURM_PORT} or the next one is in use")
    commands = []
    for rank in range(2):
        values = (str(rank), "localhost", "2", "0")
        environment = {**os.environ, **dict(zip(SLURM, values, strict=True))}
        commands.append(([sys.executable, "-c", WORKER, str(tmp_path / "run")], environment))
    with processes(commands) as started:
        deadline = time.monotonic() + 120
        ended = [
            (*process.communicate(timeout=max(1, deadline - time.monotonic())), process.returncode)
            for process in started
        ]
    for rank, (output, errors, code) in enumerate(ended):
        assert code == exits.CONFIG, errors
        report = json.loads(output)
        assert report["place"] == [2, rank, 2]
        assert report["said"] == [{"worker": n, "long": "x" * n} for n in (0, 1)]
        assert report["flags"] == [True, True, False]
        assert set(report["interfaces"]) == {"lo"}
        message = (
            "Worker 1 has another configuration than worker 0: config.model.filters was 4, is 5"
        )
        assert message in errors
    assert not (tmp_path / "run").exists()

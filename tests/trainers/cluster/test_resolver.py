"""Who is in the cluster: every malformed description is refused with what is wrong with it."""

import errno
import json
import re
import socket

import pytest

from trainers.cluster.resolver import (
    SLURM_PORT,
    Cluster,
    check_port,
    from_slurm,
    from_tf_config,
    in_slurm,
    occupied,
    split,
)
from trainers.process.errors import AddressTaken, ConfigurationError
from trainers.process.exits import CONFIG, UNAVAILABLE

A, B, C = "10.0.0.1:2222", "b.example:2222", "[::1]:77"


def config(cluster, kind="worker", index=0):
    return json.dumps({"cluster": cluster, "task": {"type": kind, "index": index}})


# TF_CONFIG


@pytest.mark.parametrize("index", [0, 1, 2])
def test_workers_without_a_chief(index):
    cluster = from_tf_config(config({"worker": [A, B, C]}, index=index))
    assert cluster == Cluster((A, B, C), index)
    assert cluster.others == {n: x for n, x in enumerate((A, B, C)) if n != index}


@pytest.mark.parametrize(
    ("kind", "index", "number"), [("chief", 0, 0), ("worker", 0, 1), ("worker", 1, 2)]
)
def test_chief_comes_first_wherever_it_is_written(kind, index, number):
    for jobs in ({"chief": [A], "worker": [B, C]}, {"worker": [B, C], "chief": [A]}):
        assert from_tf_config(config(jobs, kind, index)) == Cluster((A, B, C), number)


def test_chief_alone():
    assert from_tf_config(config({"chief": [A]}, "chief")) == Cluster((A,), 0)


def test_places():
    cluster = Cluster((A, B, C), 0)
    places = [cluster.place(number) for number in range(3)]
    assert places == [("10.0.0.1", 2222), ("b.example", 2222), ("::1", 77)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("", "it is not JSON"),
        ("{", "it is not JSON"),
        ("None", "it is not JSON"),
        ("[]", "it is not an object"),
        ("3", "it is not an object"),
        ("null", "it is not an object"),
        ("{}", "`cluster` is missing"),
        ('{"cluster": [], "task": {}}', "`cluster` is missing, or not an object"),
        ('{"cluster": {}, "task": {}}', "`cluster` is missing, or not an object"),
        (json.dumps({"cluster": {"worker": [A]}}), "`task` is missing"),
        (json.dumps({"cluster": {"worker": [A]}, "task": "worker"}), "`task` is missing, or no"),
        (config({"worker": [A], "ps": [B]}), "`cluster` has ['ps']"),
        (config({"worker": [A], "evaluator": [B], "ps": [C]}), "['evaluator', 'ps']"),
        (config({"worker": [A]}, "chief"), "`task.type` is 'chief'"),
        (config({"worker": [A]}, None), "`task.type` is None"),
        (config({"worker": [A]}, []), "`task.type` is []"),
        (config({"worker": [A]}, {}), "`task.type` is {}"),
        (config({"worker": [A]}, index="0"), "`task.index` is '0', which is not an integer"),
        (config({"worker": [A]}, index=0.0), "`task.index` is 0.0, which is not an integer"),
        (config({"worker": [A]}, index=None), "`task.index` is None, which is not an integer"),
        (config({"worker": [A]}, index=True), "`task.index` is True, which is not an integer"),
        (config({"worker": [A]}, index=1), "`task.index` is 1, and there are 1 of 'worker'"),
        (config({"worker": [A]}, index=-1), "`task.index` is -1"),
        (config({"worker": A}), "`cluster.worker` is not a list"),
        (config({"worker": {"0": A}}), "`cluster.worker` is not a list"),
        (config({"worker": []}), "`cluster.worker` is not a list"),
        (config({"worker": [A], "chief": []}), "`cluster.chief` is not a list"),
        (config({"worker": [1]}), "1 is not `host:port`"),
        (config({"worker": [None]}), "None is not `host:port`"),
        (config({"worker": [A, ["x:1"]]}), "['x:1'] is not `host:port`"),
        (config({"worker": ["host"]}), "'host' is not `host:port`"),
        (config({"worker": ["host:"]}), "'host:' is not `host:port`"),
        (config({"worker": [":22"]}), "':22' is not `host:port`"),
        (config({"worker": ["host:0"]}), "'host:0' is not `host:port`"),
        (config({"worker": ["host:65536"]}), "'host:65536' is not `host:port`"),
        (config({"worker": ["host:-1"]}), "'host:-1' is not `host:port`"),
        (config({"worker": ["host:http"]}), "'host:http' is not `host:port`"),
        (config({"worker": ["host: 22"]}), "'host: 22' is not `host:port`"),
        (config({"chief": [A, B]}, "chief"), "more than one chief"),
        (config({"worker": [A, A]}), "two workers have the same address"),
        (config({"chief": [A], "worker": [B, A]}), "two workers have the same address"),
    ],
)
def test_malformed_tf_config_is_refused_with_what_is_wrong(text, what):
    with pytest.raises(ConfigurationError) as caught:
        from_tf_config(text)
    message = str(caught.value)
    assert message.startswith("TF_CONFIG is malformed: ")
    assert what in message
    assert message.endswith(f"Received: {text}")
    # What the message gives for an example is one.
    example = re.search(r"something like (\{.*?\}\})", message)[1]
    assert from_tf_config(example).index == 0


def test_long_tf_config_is_not_shown_in_full():
    with pytest.raises(ConfigurationError) as caught:
        from_tf_config("x" * 5000)
    assert len(str(caught.value)) < 700


# Slurm


def slurm(nodes, tasks, rank=0, **more):
    names = {"SLURM_STEP_NODELIST": nodes, "SLURM_STEP_TASKS_PER_NODE": tasks}
    return {**names, "SLURM_PROCID": str(rank), **{k: str(v) for k, v in more.items()}}


@pytest.mark.parametrize(
    ("nodes", "tasks", "expected"),
    [
        ("localhost", "1", ["localhost:0"]),
        ("localhost", "3", ["localhost:0", "localhost:1", "localhost:2"]),
        ("a,b", "1(x2)", ["a:0", "b:0"]),
        # Their order is that of the tasks: not that of the alphabet.
        ("n[9-11]", "1(x3)", ["n9:0", "n10:0", "n11:0"]),
        ("n[09-10,12],m-1.x", "2,1(x3)", ["n09:0", "n09:1", "n10:0", "n12:0", "m-1.x:0"]),
        ("b,a", "1,2", ["b:0", "a:0", "a:1"]),
        ("n[1-2]-gpu", "1(x2)", ["n1-gpu:0", "n2-gpu:0"]),
        ("node[01-02].cluster.local", "1(x2)", [f"node0{n}.cluster.local:0" for n in (1, 2)]),
        ("r[0-1]n[08,9-10]", "1(x6)", [f"r{r}n{n}:0" for r in (0, 1) for n in ("08", "9", "10")]),
        ("a[1]b,c[2-3]d[4]", "1(x3)", ["a1b:0", "c2d4:0", "c3d4:0"]),
        ("n[099-100]", "1(x2)", ["n099:0", "n100:0"]),
    ],
)
def test_cluster_of_slurm(nodes, tasks, expected):
    places = [address.split(":") for address in expected]
    addresses = tuple(f"{host}:{SLURM_PORT + int(port)}" for host, port in places)
    for rank in range(len(expected)):
        assert from_slurm(slurm(nodes, tasks, rank)) == Cluster(addresses, rank)


def test_slurm_says_on_which_node_a_task_is():
    in_blocks = [from_slurm(slurm("a,b", "2(x2)", n, SLURM_NODEID=n // 2)) for n in range(4)]
    assert [cluster.index for cluster in in_blocks] == [0, 1, 2, 3]
    with pytest.raises(ConfigurationError, match="task 1 runs on node 1, .* --distribution=block"):
        from_slurm(slurm("a,b", "2(x2)", 1, SLURM_NODEID=1))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"SLURM_STEP_NODELIST": None}, "SLURM_STEP_NODELIST is missing"),
        ({"SLURM_STEP_TASKS_PER_NODE": None}, "SLURM_STEP_TASKS_PER_NODE is missing"),
        ({"SLURM_PROCID": None}, "SLURM_PROCID is missing"),
        ({"SLURM_PROCID": "x"}, "invalid literal.*'x'"),
        ({"SLURM_PROCID": "2"}, "SLURM_PROCID is 2, and there are 2 tasks"),
        ({"SLURM_PROCID": "-1"}, "SLURM_PROCID is -1"),
        ({"SLURM_STEP_NODELIST": ""}, "SLURM_STEP_NODELIST='' is not a list of nodes"),
        ({"SLURM_STEP_NODELIST": "a,"}, "SLURM_STEP_NODELIST='a,' is not a list of nodes"),
        ({"SLURM_STEP_NODELIST": "n[1-"}, "is not a list of nodes"),
        ({"SLURM_STEP_NODELIST": "n[1-2"}, "is not a list of nodes"),
        ({"SLURM_STEP_NODELIST": "n1-2]"}, "is not a list of nodes"),
        ({"SLURM_STEP_NODELIST": "n[[1]]"}, "is not a list of nodes"),
        ({"SLURM_STEP_NODELIST": "n[]"}, "is not a list of nodes"),
        ({"SLURM_STEP_NODELIST": "n[2-1]"}, "has a range of nodes '2-1'"),
        ({"SLURM_STEP_NODELIST": "n[1-999999999]"}, "has a range of nodes '1-999999999'"),
        ({"SLURM_STEP_NODELIST": "n[1-x]"}, "is not a list of nodes"),
        ({"SLURM_STEP_NODELIST": "n[,]"}, "is not a list of nodes"),
        ({"SLURM_STEP_NODELIST": "a,b,c"}, "there are 3 nodes, and numbers of tasks for 2"),
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x2"}, "is not a list of numbers"),
        ({"SLURM_STEP_TASKS_PER_NODE": ""}, "is not a list of numbers"),
        ({"SLURM_STEP_TASKS_PER_NODE": "two"}, "is not a list of numbers"),
    ],
)
def test_malformed_variables_of_slurm(change, what):
    variables = {**slurm("a,b", "1(x2)"), **change}
    variables = {key: value for key, value in variables.items() if value is not None}
    with pytest.raises(ConfigurationError, match=f"Slurm's variables .*: .*{what}.*srun"):
        from_slurm(variables)


def test_in_slurm_means_in_a_step(monkeypatch):
    for name in ("SLURM_PROCID", "SLURM_STEP_NODELIST"):
        monkeypatch.delenv(name, raising=False)
    assert not in_slurm()
    monkeypatch.setenv("SLURM_PROCID", "0")  # the script of a job has it as well
    assert not in_slurm()
    monkeypatch.setenv("SLURM_STEP_NODELIST", "localhost")
    assert in_slurm()


# Addresses


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("a:1", ("a", 1)),
        ("a:65535", ("a", 65535)),
        ("[::1]:80", ("::1", 80)),
        ("", None),
        ("a", None),
        (":", None),
        ("a:+1", None),
        ("a:1.0", None),
        ("a:²", None),
    ],
)
def test_split(address, place):
    assert split(address) == place


def test_port_in_use_is_said_before_tensorflow_starts():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        cluster = Cluster(("127.0.0.1:1", f"127.0.0.1:{port}"), 1)
        message = f"Worker 1 cannot listen at 127.0.0.1:{port}: another program uses this port"
        with pytest.raises(AddressTaken, match=message) as caught:
            check_port(cluster)
        assert caught.value.exit_code == UNAVAILABLE  # it may be free in a moment
    check_port(cluster)  # and now it is


def test_kinds_of_refusal():
    assert ConfigurationError.exit_code == CONFIG
    cluster = Cluster((A, B), 1)
    texts = {
        errno.EACCES: "privileged",
        errno.EADDRNOTAVAIL: "does not have this address",
        errno.EIO: "odd",
    }
    for number, what in texts.items():
        assert what in str(occupied(cluster, OSError(number, "odd")))

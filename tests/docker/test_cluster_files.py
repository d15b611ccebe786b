"""The compose files, the Kubernetes manifest and the Slurm script: that they agree with each other
and with the program, and keep closed what must be. `make lint-docker` checks their syntax."""

import json
import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "docker"


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((DOCKER / "compose.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def workers(compose):
    return {n: s for n, s in compose["services"].items() if n.startswith("worker")}


@pytest.fixture(scope="module")
def manifest():
    documents = yaml.safe_load_all((DOCKER / "tfjob.yaml").read_text("utf-8"))
    return {(d["kind"], d["metadata"]["name"]): d for d in documents}


@pytest.fixture(scope="module")
def job(manifest):
    return manifest["TFJob", "deq-keras"]


@pytest.fixture(scope="module")
def replicas(job):
    return job["spec"]["tfReplicaSpecs"]["Worker"]


@pytest.fixture(scope="module")
def pod(replicas):
    return replicas["template"]["spec"]


@pytest.fixture(scope="module")
def container(pod):
    (container,) = pod["containers"]
    return container


def _training(command):
    """The part of a command that trains."""
    return command[command.index("experiments.train") - 2 :]


def _slurm_training():
    text = (DOCKER / "slurm.sh").read_text("utf-8").replace("\\\n", " ")
    (call,) = re.findall(r"^srun .*?(-m experiments\.train.*?) \|\|", text, re.M | re.S)
    defaults = dict(re.findall(r"^(\w+)=\$\{\1:-(\S+)\}$", text, re.M))
    call = call.replace('"', "").replace("$DATA_DIR", "FOLDER")
    return ["python", *re.sub(r"\$(\w+)", lambda m: defaults[m[1]], call).split()]


def _flags(command):
    return dict(word[2:].split("=", 1) for word in command if word.startswith("--"))


def test_all_call_the_same_program(workers, container):
    slurm = _slurm_training()
    commands = [worker["command"] for worker in workers.values()] + [container["command"]]
    commands = [_training(command) for command in commands]
    assert all(command == commands[0] for command in commands)
    assert slurm[:3] == commands[0][:3] == ["python", "-m", "experiments.train"]
    assert _flags(slurm).keys() == _flags(commands[0]).keys()
    for name in ("config", "strategy"):
        assert _flags(slurm)[name] == _flags(commands[0])[name]


def test_the_program_has_these_flags(container):
    from absl import flags

    from experiments import train  # noqa: F401  (defines them)

    given = _flags(_training(container["command"]))
    assert not set(given) - set(flags.FLAGS), "There are no such flags."
    assert (ROOT / given["config"]).is_file()
    assert given["strategy"] in flags.FLAGS["strategy"].help


def test_each_service_has_the_cluster_that_compose_starts(workers):
    clusters = [json.loads(worker["environment"]["TF_CONFIG"]) for worker in workers.values()]
    hosts = [address.split(":")[0] for address in clusters[0]["cluster"]["worker"]]
    assert hosts == list(workers)
    assert all(cluster["cluster"] == clusters[0]["cluster"] for cluster in clusters)
    tasks = [(cluster["task"]["type"], cluster["task"]["index"]) for cluster in clusters]
    assert tasks == [("worker", index) for index in range(len(hosts))]


def test_only_tensorboard_is_published_and_to_this_machine_only(compose):
    ports = {name: s["ports"] for name, s in compose["services"].items() if "ports" in s}
    assert list(ports) == ["tensorboard"]
    assert all(port.startswith("127.0.0.1:") for port in ports["tensorboard"])
    text = (DOCKER / "compose.gpu.yaml").read_text("utf-8")
    assert not re.search(r"ports|network_mode|privileged|cap_add", text)


def test_the_workers_have_a_network_of_their_own(compose, workers):
    internal = {name for name, net in compose["networks"].items() if net.get("internal")}
    for worker in workers.values():
        assert worker["networks"]
        assert set(worker["networks"]) <= internal
    assert not internal & set(compose["services"]["tensorboard"]["networks"])


def test_the_services_are_locked_down(compose, assert_locked_down):
    for service in compose["services"].values():
        assert_locked_down(service)


def test_a_stopped_worker_may_save_and_a_lost_one_comes_back(workers, replicas, pod):
    for worker in workers.values():
        assert worker["init"]
        assert worker["stop_grace_period"] == "2m"
        # Bounded: Docker would start a wrong configuration again as well.
        assert re.fullmatch(r"on-failure:\d+", worker["restart"])
    assert pod["terminationGracePeriodSeconds"] >= 120
    # Only with the translated codes is 75, stopped and saved, no failure for good.
    assert replicas["restartPolicy"] == "ExitCode"
    command = pod["containers"][0]["command"]
    assert command[:3] == ["python", "docker/retryable.py", "--"]
    probe = pod["containers"][0]["livenessProbe"]["exec"]["command"]
    assert all((ROOT / words[1]).is_file() for words in (command, probe))


def test_threads_are_as_many_as_processors(workers, container):
    variables = {entry["name"]: entry["value"] for entry in container["env"]}
    given = [(variables, container["resources"]["limits"]["cpu"])]
    for worker in workers.values():
        given.append((worker["environment"], worker["deploy"]["resources"]["limits"]["cpus"]))
    for environment, limit in given:
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
            assert environment[name] == limit


def test_the_pods_are_locked_down(pod, container):
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
    assert not any("hostPort" in port for port in container["ports"])


def test_what_the_operator_looks_for(job, replicas, container, manifest, pod):
    assert container["name"] == "tensorflow"
    assert [port["name"] for port in container["ports"]] == ["tfjob-port"]
    assert set(job["spec"]["tfReplicaSpecs"]) == {"Worker"}  # worker 0 is the chief
    assert replicas["replicas"] == 2
    # It sets this itself.
    assert "TF_CONFIG" not in {entry["name"] for entry in container["env"]}
    for volume in pod["volumes"]:
        if "persistentVolumeClaim" in volume:
            claim = manifest["PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]]
            assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"/runs", "/data", "/tmp"}


def test_only_the_pods_of_the_job_talk_to_each_other(job, manifest):
    policy = manifest["NetworkPolicy", "deq-keras"]["spec"]
    label = {"training.kubeflow.org/job-name": job["metadata"]["name"]}
    assert policy["podSelector"] == {"matchLabels": label}
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    assert policy["ingress"] == [{"from": [{"podSelector": {"matchLabels": label}}]}]
    first, dns = policy["egress"]
    assert first == {"to": [{"podSelector": {"matchLabels": label}}]}
    assert {port["port"] for port in dns["ports"]} == {53}

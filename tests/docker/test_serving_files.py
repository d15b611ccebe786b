"""The files of docker/serving: what is closed stays closed, and names and ports agree.

`make lint-docker` checks their syntax, and `make serving-test` runs a real Triton.
"""

import http.server
import json
import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest
import yaml

SERVING = Path(__file__).resolve().parents[2] / "docker" / "serving"
TRITON = SERVING / "triton"
SECONDS = 60


@pytest.fixture(scope="module")
def compose():
    return yaml.safe_load((SERVING / "compose.yaml").read_text("utf-8"))


@pytest.fixture(scope="module")
def readme():
    return (SERVING / "README.md").read_text("utf-8")


@pytest.fixture(scope="module")
def manifest():
    documents = yaml.safe_load_all((SERVING / "kserve.yaml").read_text("utf-8"))
    return {document["kind"]: document for document in documents}


def _flags(service):
    return dict(word[2:].partition("=")[::2] for word in service["command"])


def _served_names():
    return re.findall(
        r'name: "([^"]+)"', (SERVING / "tensorflow" / "models.config").read_text("utf-8")
    )


def test_the_services_are_locked_down(compose, assert_locked_down):
    assert compose["services"].keys() == {"tensorflow-serving", "triton"}
    for service in compose["services"].values():
        assert_locked_down(service)
        assert service["volumes"]
        assert all(volume["read_only"] for volume in service["volumes"])


def test_they_are_published_to_this_machine_only(compose):
    for service in compose["services"].values():
        for port in service["ports"]:
            assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)
    text = (SERVING / "compose.batching.yaml").read_text("utf-8")
    assert not re.search(r"ports|network_mode|privileged|cap_add", text)


def test_the_published_ports_are_those_that_the_servers_listen_on(compose):
    for name, flags in {
        "tensorflow-serving": ("port", "rest_api_port"),
        "triton": ("http-port", "grpc-port", "metrics-port"),
    }.items():
        service = compose["services"][name]
        listening = {_flags(service)[flag] for flag in flags}
        assert {port.split(":")[-1] for port in service["ports"]} == listening


def test_the_readme_names_the_published_ports(compose, readme):
    tensorflow, triton = re.split(r"^## NVIDIA Triton$", readme, flags=re.M)
    triton = triton.split("## Kubernetes")[0]
    for name, text in {"tensorflow-serving": tensorflow, "triton": triton}.items():
        published = {port.split(":")[1] for port in compose["services"][name]["ports"]}
        called = set(re.findall(r"127\.0\.0\.1:(\d+)", text))
        assert called
        assert called <= published


def test_threads_are_as_many_as_processors(compose):
    for service in compose["services"].values():
        limit = service["deploy"]["resources"]["limits"]["cpus"]
        for name in ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS"):
            assert service["environment"][name] == limit
    flags = _flags(compose["services"]["tensorflow-serving"])
    for kind in ("intra", "inter"):
        assert flags[f"tensorflow_{kind}_op_parallelism"] == limit


def test_batching_adds_to_the_same_command_and_never_pads(compose):
    batching = yaml.safe_load((SERVING / "compose.batching.yaml").read_text("utf-8"))
    plain = compose["services"]["tensorflow-serving"]["command"]
    command = batching["services"]["tensorflow-serving"]["command"]
    assert command[: len(plain)] == plain
    added = dict(word.split("=") for word in command[len(plain) :])
    assert added.keys() == {"--enable_batching", "--batching_parameters_file"}
    assert "enable_batching" not in " ".join(plain)
    parameters = (SERVING / "tensorflow" / "batching.config").read_text("utf-8")
    assert "pad_variable_length_inputs: false" in parameters


def test_each_file_that_a_command_names_is_mounted(compose):
    for flag, value in _flags(compose["services"]["tensorflow-serving"]).items():
        if flag.endswith("_file"):
            assert (SERVING / "tensorflow" / Path(value).relative_to("/config")).is_file()


def test_health_is_checked_where_the_servers_are(compose):
    tensorflow = compose["services"]["tensorflow-serving"]["healthcheck"]["test"]
    assert tensorflow[:2] == ["CMD", "bash"]
    for path in tensorflow[2:]:
        assert (SERVING / "tensorflow" / Path(path).relative_to("/config")).is_file()
    default = re.search(r"port=\$\{2:-(\d+)\}", (SERVING / "tensorflow/healthcheck.sh").read_text())
    assert default[1] == _flags(compose["services"]["tensorflow-serving"])["rest_api_port"]

    flags = _flags(compose["services"]["triton"])
    text = (TRITON / "Dockerfile").read_text("utf-8")
    check = json.loads(re.search(r"^HEALTHCHECK .*\\\n +CMD (.*)$", text, re.M)[1])
    assert check == ["bash", "/opt/healthcheck.sh", flags["model-repository"]]
    assert "COPY healthcheck.sh /opt/" in text
    default = re.search(r"port=\$\{2:-(\d+)\}", (TRITON / "healthcheck.sh").read_text())
    assert default[1] == flags["http-port"]


def test_images_are_pinned(compose):
    assert re.fullmatch(
        r"tensorflow/serving:\d+\.\d+\.\d+(@sha256:[0-9a-f]{64})?",
        compose["services"]["tensorflow-serving"]["image"],
    )
    text = (TRITON / "Dockerfile").read_text("utf-8")
    assert re.search(r"^ARG BASE=\S+/tritonserver:\d\d\.\d\d-py3@sha256:[0-9a-f]{64}$", text, re.M)
    assert "--require-hashes" in text
    assert re.findall(r"^USER (\d+)", text, re.M)[-1] != "0"
    assert re.search(r"^tensorflow-cpu==", (TRITON / "requirements.txt").read_text("utf-8"), re.M)


def test_kserve_serves_what_compose_serves(compose, manifest):
    model = manifest["InferenceService"]["spec"]["predictor"]["model"]
    image = compose["services"]["tensorflow-serving"]["image"]
    assert image.split("@")[0].endswith(f":{model['runtimeVersion']}")
    name = manifest["InferenceService"]["metadata"]["name"]
    assert [name] == _served_names()
    claim = manifest["PersistentVolumeClaim"]["metadata"]["name"]
    assert model["storageUri"] == f"pvc://{claim}/{name}"
    for probe in ("startupProbe", "readinessProbe"):
        assert f"/v1/models/{name}" in model[probe]["httpGet"]["path"]
    selector = manifest["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"]
    assert selector == {"serving.kserve.io/inferenceservice": name}


def test_the_pods_are_locked_down(manifest):
    predictor = manifest["InferenceService"]["spec"]["predictor"]
    assert predictor["securityContext"]["runAsNonRoot"]
    assert predictor["securityContext"]["runAsUser"] > 0
    assert predictor["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert predictor["automountServiceAccountToken"] is False
    assert predictor["model"]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} <= predictor["model"]["resources"].keys()


@pytest.fixture
def states():
    """A server that knows the states of models as TensorFlow Serving says them; and its port."""
    found = {}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            state = found.get(self.path.removeprefix("/v1/models/"))
            answer = {"model_version_status": [{"version": "1", "state": state}]}
            self.send_response(200 if state else 404)
            self.end_headers()
            self.wfile.write(json.dumps(answer, indent=1).encode())

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found, server.server_port
        server.shutdown()


def _health(config, port):
    command = ["bash", SERVING / "tensorflow" / "healthcheck.sh", config, str(port)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)


def test_healthy_is_that_every_model_is_served(states, tmp_path):
    found, port = states
    names = ("first", "second")
    config = tmp_path / "models.config"
    config.write_text("".join(f'config {{\n  name: "{name}"\n}}\n' for name in names))
    found.update(first="AVAILABLE", second="AVAILABLE")
    assert _health(config, port).returncode == 0
    found.update(second="LOADING")
    done = _health(config, port)
    assert done.returncode == 1
    assert "second is not served" in done.stdout
    del found["second"]
    assert _health(config, port).returncode == 1


def test_nobody_listening_is_unhealthy(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and does not listen
        port = free.getsockname()[1]
        config = SERVING / "tensorflow" / "models.config"
        assert _health(config, port).returncode != 0
    config = tmp_path / "models.config"
    config.write_text("")
    assert "No models" in _health(config, port).stdout

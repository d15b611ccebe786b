"""The program against servers: each protocol, without TensorFlow; servers that are not there."""

import os
import signal
import socket
import subprocess
import sys
from itertools import product

import numpy as np
import pytest
from PIL import Image

from experiments.restoration import connection, summary
from experiments.restoration.errors import Refused, Unavailable
from experiments.restoration.restoring import Settings, restore
from tests.experiments.restoration.servers import LIMIT, NAME, ROOT, Server
from tests.variants import covering
from trainers.process import exits
from trainers.process.errors import ConfigurationError

PROTOCOLS = (*connection.PROTOCOLS, "kserve-rest-binary")
# Importing what the program must do without fails.
CLIENT = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "keras", "deq_keras"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
from experiments import restore
restore.run()
"""


def _start(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, *map(str, arguments)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def server_and_early_client(saved, tmp_path_factory):
    """A server, a client that had waited for it before it was started, and the client's output."""
    folder, port = tmp_path_factory.mktemp("early"), _free_port()
    array = np.random.default_rng(1).integers(1, 256, (12, 17), np.uint8)
    Image.fromarray(array).save(folder / "good.png")
    flags = [f"--output={folder / 'out'}", f"--server=127.0.0.1:{port}", f"--name={NAME}"]
    client = _start(folder / "good.png", *flags, "--timeout=100")
    assert client.stderr.readline().startswith("Waiting for 127.0.0.1")
    running = Server(saved("grey") / "1", port)
    yield running, client, folder / "out"
    running.close()
    client.kill()
    client.communicate()


@pytest.fixture(scope="module")
def server(server_and_early_client):
    return server_and_early_client[0]


@pytest.fixture(scope="module")
def addresses(server):
    return server.ready()


@pytest.fixture
def pictures(tmp_path, rng):
    """A folder with a picture that converges and one that does not, and what comes of them."""
    folder, expected = tmp_path / "in", {}
    folder.mkdir()
    for name, least in (("good.png", 1), ("slow.png", 0)):
        array = rng.integers(1, 256, (12, 17), np.uint8)
        array[0, 0] = least
        Image.fromarray(array).save(folder / name)
        expected[name] = 0.5 + 0.5 * array / 255
    return folder, expected


def _read(path):
    with Image.open(path) as image:
        return np.asarray(image) / 255


def test_a_server_that_comes_up_late(server_and_early_client):
    _, client, folder = server_and_early_client
    _, errors = client.communicate(timeout=120)
    assert client.returncode == 0, errors
    assert (folder / "good.png").exists()


@pytest.mark.parametrize(("asked", "protocol"), covering(product(["auto", "named"], PROTOCOLS)))
def test_pictures_through_a_server_without_tensorflow(
    addresses, pictures, tmp_path, protocol, asked
):
    folder, expected = pictures
    name = protocol.removesuffix("-binary")
    flags = [f"--output={tmp_path / 'out'}", f"--server={addresses[protocol]}", f"--name={NAME}"]
    flags += [] if asked == "auto" else [f"--protocol={name}"]
    client = _start(folder / "good.png", folder / "slow.png", *flags)
    output, errors = client.communicate(timeout=120)
    assert client.returncode == summary.NOT_CONVERGED, errors
    owner = "TensorFlow Serving" if name.startswith("tensorflow") else "KServe"
    assert f"({owner}, {'gRPC' if name.endswith('grpc') else 'REST'})" in output
    for picture, values in expected.items():
        np.testing.assert_allclose(_read(tmp_path / "out" / picture), values, atol=0.6 / 255)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_answers_are_those_of_the_model(addresses, rng, protocol):
    model = connection.connect(addresses[protocol], NAME)
    assert model.channels == 1
    images = np.stack([np.zeros((6, 7, 1)), rng.random((6, 7, 1)) + 0.1])
    answer = model.diagnose(images, {}, max_steps=9)
    np.testing.assert_allclose(answer.reconstruction, 0.5 + 0.5 * images, atol=1e-6)
    assert answer.converged.tolist() == [False, True]
    assert answer.steps.tolist() == [5, 5]
    np.testing.assert_allclose(answer.residual, 1e-5)
    limited = model.diagnose(images, {}, max_steps=2)
    assert limited.steps.tolist() == [2, 2]
    assert not limited.converged.any()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_request_that_is_too_large_goes_in_smaller_tiles(addresses, rng, protocol):
    model = connection.connect(addresses[protocol], NAME)
    image = 0.1 + 0.9 * rng.random((1, 190, 200, 1), np.float32)
    assert image.nbytes > LIMIT
    whole = restore(model, image, {}, Settings(tile=0))
    assert whole.tiles > 1
    np.testing.assert_allclose(whole.reconstruction, 0.5 + 0.5 * image, atol=1e-5)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_server_refuses_one_request_and_takes_the_next(addresses, protocol):
    model = connection.connect(addresses[protocol], NAME)
    images = np.ones((1, 4, 4, 1))
    with pytest.raises(Refused, match="refuses it.*not finite"):
        model.diagnose(np.nan * images, {})
    np.testing.assert_allclose(model.diagnose(images, {}).reconstruction, images)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_server_that_is_away_for_a_moment(server, addresses, protocol, capsys):
    model = connection.connect(addresses[protocol], NAME)
    server.go_away(requests=2)
    answer = model.diagnose(np.ones((1, 4, 4, 1)), {})
    np.testing.assert_allclose(answer.reconstruction, 1)
    assert "Waiting for" in capsys.readouterr().err


def test_a_server_that_stays_away_costs_its_time_once(server, addresses):
    model = connection.connect(addresses["tensorflow-grpc"], NAME, timeout=0.5)
    images = np.ones((1, 4, 4, 1))
    server.go_away(requests=1000)
    requests = []
    for _ in range(3):
        with pytest.raises(Unavailable, match="not yet"):
            model.diagnose(images, {})
        requests.append(1000 - server.go_away(requests=1000))
    assert requests[0] > 1
    assert requests[1:] == [1, 1]
    server.go_away(requests=0)
    np.testing.assert_allclose(model.diagnose(images, {}).reconstruction, 1)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_another_name(addresses, protocol):
    with pytest.raises(ConfigurationError, match=f"No model 'other' at {addresses[protocol]}"):
        connection.connect(addresses[protocol], "other", timeout=10)


def test_another_protocol(addresses):
    with pytest.raises(ConfigurationError, match="kserve-rest: The server refuses it"):
        connection.connect(addresses["tensorflow-rest"], NAME, "kserve-rest", timeout=10)


def test_ways_in_front_of_an_address(addresses):
    grpc, rest = addresses["tensorflow-grpc"], addresses["tensorflow-rest"]
    assert "gRPC" in connection.connect(f"grpc://{grpc}", NAME).where
    assert "REST" in connection.connect(f"http://{rest}", NAME).where
    with pytest.raises(ConfigurationError, match="does not go over http://"):
        connection.connect(f"http://{rest}", NAME, "tensorflow-grpc")
    with pytest.raises(ConfigurationError, match="Expected --server as HOST:PORT"):
        connection.connect(f"ftp://{rest}", NAME)


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def test_nobody_listens(pictures, tmp_path):
    client = _start(
        pictures[0],
        f"--output={tmp_path / 'out'}",
        f"--server=127.0.0.1:{_free_port()}",
        f"--name={NAME}",
        "--timeout=1",
    )
    _, errors = client.communicate(timeout=120)
    assert client.returncode == exits.UNAVAILABLE
    assert "Error: No answer from 127.0.0.1" in errors
    assert "Traceback" not in errors


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_waiting(pictures, tmp_path, signum):
    server = f"127.0.0.1:{_free_port()}"
    client = _start(
        pictures[0],
        f"--output={tmp_path / 'out'}",
        f"--server={server}",
        "--name=a",
        "--timeout=99",
    )
    assert client.stderr.readline().startswith(f"Waiting for {server}")
    client.send_signal(signum)
    output, errors = client.communicate(timeout=60)
    assert client.returncode == exits.STOPPED
    assert f"Stopped by {signum.name}. 2 of 2 are left." in errors
    assert "Traceback" not in errors
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.slow  # once more a server; real ones are above
def test_complex_measurements_over_a_server(saved, tmp_path, rng):
    """They go over gRPC, and over KServe's REST as pairs; over TensorFlow Serving's they cannot."""
    running = Server(saved("fourier") / "1")
    try:
        addresses = running.ready()
        image = rng.random((1, 6, 7), np.float32)
        measurement = np.fft.fft2(image)[..., None].astype(np.complex64)
        for protocol in PROTOCOLS:
            if protocol == "tensorflow-rest":
                with pytest.raises(ConfigurationError, match="complex.*Use gRPC"):
                    connection.connect(addresses[protocol], NAME)
                continue
            model = connection.connect(addresses[protocol], NAME)
            assert model.is_complex
            restored = restore(model, measurement, {}, Settings())
            np.testing.assert_allclose(restored.reconstruction[..., 0], image, atol=1e-5)
    finally:
        running.close()

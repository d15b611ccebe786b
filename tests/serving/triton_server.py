"""NVIDIA's tritonserver, as the package nvidia-pytriton brings it, on loopback and free ports."""

import ctypes
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import psutil
import tritonclient.grpc
import tritonclient.http

HOST = "127.0.0.1"
HEALTHCHECK = Path(__file__).resolve().parents[2] / "docker/serving/triton/healthcheck.sh"


def free_ports(count):
    """Ports that nobody listened on a moment ago."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind((HOST, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _end_with_parent():
    """In the child: SIGKILL when this program is gone, however it went."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class TritonServer:
    """A server in a process of its own, for a `with` statement.

    Args:
        repository: The model repository.
        folder: An empty folder for what it needs; `log` there takes what it says.
        patience: Seconds until it must be ready.
    """

    def __init__(self, repository, folder, patience=300):
        self.repository, self.folder, self.patience = repository, folder, patience
        self.log = Path(folder) / "log"
        self.http_port, self.grpc_port, self.metrics_port = free_ports(3)

    def _command(self):
        """The command line, and the environment that pytriton gives it too."""
        package = Path(importlib.util.find_spec("pytriton").origin).parent
        server = package / "tritonserver"
        # The backend, and beside it the program that runs a model, in this version of Python.
        backends = Path(self.folder) / "backends"
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        stub = server / "python_backend_stubs" / version / "triton_python_backend_stub"
        if not stub.is_file():
            raise RuntimeError(
                f"Expected a Python that {package} has a stub for, "
                f"{sorted(p.name for p in stub.parents[1].iterdir())}; received {version}."
            )
        shutil.copytree(server / "backends", backends)
        shutil.copy(stub, backends / "python")
        libraries = [sysconfig.get_config_var("LIBDIR"), package.parent / "nvidia_pytriton.libs"]
        environment = {
            **os.environ,
            "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
            # By the `python3` that comes first the stub finds its packages; it ignores PYTHONPATH.
            "PATH": f"{Path(sys.prefix) / 'bin'}{os.pathsep}{os.environ['PATH']}",
        }
        command = [
            server / "bin" / "tritonserver",
            f"--model-repository={self.repository}",
            f"--backend-directory={backends}",
            # As in docker/serving/compose.yaml.
            "--model-control-mode=none",
            "--disable-auto-complete-config",
            *(f"--{kind}-address={HOST}" for kind in ("http", "grpc", "metrics")),
            f"--http-port={self.http_port}",
            f"--grpc-port={self.grpc_port}",
            f"--metrics-port={self.metrics_port}",
        ]
        return list(map(str, command)), environment

    def __enter__(self):
        command, environment = self._command()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                command,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _wait(self):
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                if self.http().is_server_ready():
                    return
            except OSError:
                pass
            time.sleep(0.3)
        said = Path(self.log).read_text("utf-8", "replace")[:6000]
        raise RuntimeError(
            f"The server did not get ready (exit code {self.process.poll()}):\n{said}"
        )

    def http(self):
        """A client of the REST interface."""
        return tritonclient.http.InferenceServerClient(
            f"{HOST}:{self.http_port}", connection_timeout=60, network_timeout=120
        )

    def grpc(self):
        """A client of the gRPC interface."""
        return tritonclient.grpc.InferenceServerClient(f"{HOST}:{self.grpc_port}")

    def processes(self):
        """The server and the processes of its models, those that live."""
        server = psutil.Process(self.process.pid)
        found = [server, *server.children(recursive=True)]
        return [one for one in found if one.status() != psutil.STATUS_ZOMBIE]

    def memory(self):
        """Bytes that all of them have to themselves or share with each other, each counted once."""
        return sum(process.memory_full_info().pss for process in self.processes())

    def health(self):
        """What docker/serving/triton/healthcheck.sh says: its exit code, and its words."""
        command = ["bash", str(HEALTHCHECK), str(self.repository), str(self.http_port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    def stop(self):
        """Ends it and the processes of its models."""
        if self.process.poll() is None:
            children = self.processes()
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                pass
            for one in children:
                try:
                    one.kill()
                except psutil.NoSuchProcess:
                    pass
            self.process.wait(30)

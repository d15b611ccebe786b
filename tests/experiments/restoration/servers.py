"""Servers of a SavedModel on loopback, in a process of their own."""

import json
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NAME = "mine"  # of the model in each protocol
LIMIT = 128 * 1024  # bytes of a request


class Server:
    """A process that serves a SavedModel in each protocol, each at a port of its own.

    Args:
        folder: The SavedModel.
        port: Of the API of TensorFlow Serving over gRPC; 0: a free one.
    """

    def __init__(self, folder, port=0):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.experiments.restoration.servers", str(folder), str(port)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self):
        """Waits until it listens; returns a dict from protocol to address."""
        line = self.process.stdout.readline()
        assert line.startswith("{"), f"The server did not come up: {line!r}"
        return {name: f"127.0.0.1:{port}" for name, port in json.loads(line).items()}

    def go_away(self, requests):
        """Makes it say that it is not there, for so many requests.

        Returns how many were left of those before.
        """
        self.process.stdin.write(f"{requests}\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


class Served:
    """The SavedModel, behind each protocol."""

    def __init__(self, folder):
        import tensorflow as tf

        self.errors = (tf.errors.OpError, TypeError, ValueError)
        self._loaded = tf.saved_model.load(str(folder))
        self.signatures = self._loaded.signatures
        self._tf = tf
        self.unavailable = 0
        self._lock = threading.Lock()

    def is_away(self):
        """Whether it says that it is not there: for so many requests at first."""
        with self._lock:
            self.unavailable -= 1
            return self.unavailable >= 0

    def specs(self):
        return self.signatures["diagnose"].structured_input_signature[1]

    def __call__(self, arrays):
        """The outputs for NumPy arrays of the right types, or lists of numbers."""
        specs = self.specs()
        inputs = {k: self._tf.constant(v, specs[k].dtype) for k, v in arrays.items()}
        return {k: v.numpy() for k, v in self.signatures["diagnose"](**inputs).items()}


def main():
    from tests.experiments.restoration import grpc_servers, rest_servers

    served = Served(sys.argv[1])
    ports = {
        "tensorflow-grpc": grpc_servers.tensorflow(served, sys.argv[2], LIMIT),
        "kserve-grpc": grpc_servers.kserve_v2(served, 0, LIMIT),
        "tensorflow-rest": rest_servers.serve(served, "tensorflow-rest", LIMIT),
        "kserve-rest": rest_servers.serve(served, "kserve-rest", LIMIT),
        "kserve-rest-binary": rest_servers.serve(served, "kserve-rest", LIMIT, binary=True),
    }
    print(json.dumps(ports), flush=True)
    for line in sys.stdin:
        left, served.unavailable = served.unavailable, int(line)
        print(left, flush=True)


if __name__ == "__main__":
    main()

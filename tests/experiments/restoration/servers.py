"""Servers of a SavedModel on loopback, each in a process of its own."""

import argparse
import os
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
NAME = "mine"  # of the model at each of them


class Server:
    """A process with a server.

    Args:
        kind: A protocol.
        folder: A SavedModel.
        *arguments: More of the command line.
    """

    def __init__(self, kind, folder, *arguments):
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.experiments.restoration.servers"]
            + [kind, str(folder), *arguments],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ready(self):
        """Waits until it listens; returns its address."""
        line = self.process.stdout.readline()
        assert line.startswith("port "), f"The server did not come up: {line!r}"
        return f"127.0.0.1:{line.split()[1]}"

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Served:
    """The SavedModel, behind each protocol."""

    def __init__(self, folder, unavailable):
        import tensorflow as tf

        self.errors = (tf.errors.OpError, TypeError, ValueError)
        self._loaded = tf.saved_model.load(str(folder))
        self.signatures = self._loaded.signatures
        self._tf = tf
        self._unavailable = unavailable
        self._lock = threading.Lock()

    def is_away(self):
        """Whether it says that it is not there: for so many requests at first."""
        with self._lock:
            self._unavailable -= 1
            return self._unavailable >= 0

    def specs(self):
        return self.signatures["diagnose"].structured_input_signature[1]

    def __call__(self, arrays):
        """The outputs for NumPy arrays of the right types, or lists of numbers."""
        specs = self.specs()
        inputs = {k: self._tf.constant(v, specs[k].dtype) for k, v in arrays.items()}
        return {k: v.numpy() for k, v in self.signatures["diagnose"](**inputs).items()}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("kind")
    parser.add_argument("folder")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--limit", type=int, default=0, help="bytes of a request")
    parser.add_argument("--unavailable", type=int, default=0, help="requests until it is there")
    parser.add_argument("--binary", action="store_true")
    options = parser.parse_args()
    served = Served(options.folder, options.unavailable)
    from tests.experiments.restoration import grpc_servers, rest_servers

    if options.kind == "tensorflow-grpc":
        port = grpc_servers.tensorflow(served, options.port, options.limit)
    elif options.kind == "kserve-grpc":
        port = grpc_servers.kserve_v2(served, options.port, options.limit)
    else:
        limits = (options.limit, options.binary)
        port = rest_servers.serve(served, options.kind, options.port, *limits)
    print("port", port, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()

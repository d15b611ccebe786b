"""The REST APIs of TensorFlow Serving and of KServe, as they are documented."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from tests.experiments.restoration import kserve
from tests.experiments.restoration.servers import NAME


class Handler(BaseHTTPRequestHandler):
    """Both REST protocols; which of them, `kind` says."""

    served = kind = limit = None
    binary = False
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def _send(self, code, content, blob=b""):
        head = json.dumps(content).encode()
        self.send_response(code)
        if blob:
            self.send_header("Inference-Header-Content-Length", str(len(head)))
        self.send_header("Content-Length", str(len(head) + len(blob)))
        self.end_headers()
        self.wfile.write(head + blob)

    def do_GET(self):
        if self.kind == "tensorflow-rest" and self.path == f"/v1/models/{NAME}/metadata":
            found = {
                name: {"inputs": self._inputs(f)} for name, f in self.served.signatures.items()
            }
            content = {"model_spec": {"name": NAME}}
            content["metadata"] = {"signature_def": {"signature_def": found}}
            return self._send(200, content)
        if self.kind == "kserve-rest" and self.path == "/v2":
            extensions = ["binary_tensor_data"] if self.binary else []
            return self._send(200, {"name": "server", "extensions": extensions})
        if self.kind == "kserve-rest" and self.path == f"/v2/models/{NAME}":
            return self._send(200, {"name": NAME, "inputs": list(kserve.metadata(self.served))})
        return self._send(404, {"error": f"Malformed request: GET {self.path}"})

    def _inputs(self, function):
        return {
            name: {
                "dtype": "DT_" + {"float32": "FLOAT"}.get(spec.dtype.name, spec.dtype.name).upper(),
                "tensor_shape": {
                    "dim": [{"size": str(-1 if s is None else s), "name": ""} for s in spec.shape],
                    "unknown_rank": False,
                },
                "name": name,
            }
            for name, spec in function.structured_input_signature[1].items()
        }

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.served.is_away():
            return self._send(503, {"error": "not yet"})
        if self.limit and len(body) > self.limit:
            return self._send(413, {"error": "too large"})
        try:
            if self.path == f"/v1/models/{NAME}:predict" and self.kind == "tensorflow-rest":
                request = json.loads(body)
                assert request["signature_name"] == "diagnose"
                outputs = self.served(request["inputs"])
                return self._send(200, {"outputs": {k: v.tolist() for k, v in outputs.items()}})
            if self.path == f"/v2/models/{NAME}/infer" and self.kind == "kserve-rest":
                return self._infer(body)
        except self.served.errors as error:
            return self._send(400, {"error": str(error)})
        return self._send(404, {"error": f"Malformed request: POST {self.path}"})

    def _infer(self, body):
        split = int(self.headers.get("Inference-Header-Content-Length", len(body)))
        request, blob, arrays = json.loads(body[:split]), body[split:], {}
        for entry in request["inputs"]:
            if self.binary:
                size = entry["parameters"]["binary_data_size"]
                data, blob = blob[:size], blob[size:]
            else:
                data = np.array(entry["data"], kserve.NAMES[entry["datatype"]]).tobytes()
            arrays[entry["name"]] = kserve.to_array(data, entry["datatype"], entry["shape"])
        outputs, blobs = [], []
        for name, value in self.served(kserve.to_complex(self.served, arrays)).items():
            entry = {"name": name, "datatype": kserve.KINDS[value.dtype.name], "shape": value.shape}
            if request.get("parameters", {}).get("binary_data_output"):
                blobs.append(value.tobytes())
                entry["parameters"] = {"binary_data_size": len(blobs[-1])}
            else:
                entry["data"] = value.ravel().tolist()
            outputs.append(entry)
        return self._send(200, {"outputs": outputs}, b"".join(blobs))


def serve(served, kind, limit, binary=False):
    """A server of one of the REST protocols; returns the port."""
    members = {"served": served, "kind": kind, "limit": limit, "binary": binary}
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Of", (Handler,), members))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_address[1]

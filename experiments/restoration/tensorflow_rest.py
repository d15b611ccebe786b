"""TensorFlow Serving over its REST API: JSON, in columns."""

import urllib.parse

import numpy as np

from experiments.restoration.errors import Refused
from experiments.restoration.http_calls import Site
from experiments.restoration.model import Model, Spec, check_signature
from experiments.restoration.tensorflow_messages import dtype_name
from trainers.process.errors import ConfigurationError


class TensorFlowRestModel(Model):
    """A model of TensorFlow Serving, over REST. Complex measurements cannot go this way.

    Args:
        address: `HOST:PORT`, or an address with `http://` or `https://` and maybe a path.
        name: The model's name there.
        patience: A `Patience`: how long to wait, and whether to ask again.

    Raises:
        Unavailable: The server does not answer.
        Refused: It answers something else: no such model, another protocol.
        ConfigurationError: The model has no signature `diagnose`, or a complex measurement.
    """

    def __init__(self, address, name, patience):
        self.where = f"{name!r} at {address} (TensorFlow Serving, REST)"
        self._site = Site(address, patience)
        self._path = f"/v1/models/{urllib.parse.quote(name, safe='')}"
        self.inputs = check_signature(self._metadata(), self.where)
        if self.is_complex:
            raise ConfigurationError(
                f"The model {self.where} takes complex measurements, which JSON cannot hold. Use "
                "gRPC: --protocol=tensorflow-grpc and the server's port for it."
            )

    def _metadata(self):
        answer = self._site.json(f"{self._path}/metadata")
        try:
            signatures = answer["metadata"]["signature_def"]["signature_def"]
            inputs = signatures["diagnose"]["inputs"] if "diagnose" in signatures else None
            return inputs and {name: _spec(info) for name, info in inputs.items()}
        except (KeyError, TypeError, ValueError):
            raise Refused("Its answer is not that of TensorFlow Serving.") from None

    def infer(self, tensors):
        inputs = {name: array.tolist() for name, array in tensors.items()}
        content = {"signature_name": "diagnose", "inputs": inputs}
        answer = self._site.json(f"{self._path}:predict", content)
        outputs = answer.get("outputs") if isinstance(answer, dict) else None
        if not isinstance(outputs, dict):
            raise Refused("Its answer has no outputs by name.")
        return {name: np.array(value) for name, value in outputs.items()}


def _spec(info):
    sizes = [int(dim["size"]) for dim in info["tensor_shape"].get("dim", [])]
    shape = tuple(size if size >= 0 else None for size in sizes)
    return Spec(dtype_name(info["dtype"]), shape)

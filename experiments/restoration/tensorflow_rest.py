"""TensorFlow Serving over its REST API: JSON, in columns."""

import urllib.parse

import numpy as np

from experiments.restoration.errors import Refused
from experiments.restoration.http_calls import Site
from experiments.restoration.model import ServerModel, Spec, free
from experiments.restoration.tensorflow_messages import dtype_name
from trainers.process.errors import ConfigurationError


class TensorFlowRestModel(ServerModel):
    """A model of TensorFlow Serving, over REST. Complex measurements cannot go this way.

    Raises:
        ConfigurationError: The measurement is complex; and as every `ServerModel`.
    """

    protocol = "TensorFlow Serving, REST"

    def __init__(self, address, name, patience):
        super().__init__(address, name, patience)
        if self.is_complex:
            raise ConfigurationError(
                f"The model {self.where} takes complex measurements, which JSON cannot hold. Use "
                "gRPC: --protocol=tensorflow-grpc and the server's port for it."
            )

    def _connect(self, address, patience):
        self._site = Site(address, patience)
        self._path = f"/v1/models/{urllib.parse.quote(self._name, safe='')}"

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
    sizes = [dim["size"] for dim in info["tensor_shape"].get("dim", [])]
    return Spec(dtype_name(info["dtype"]), free(sizes))

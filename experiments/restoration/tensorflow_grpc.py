"""TensorFlow Serving over gRPC, without TensorFlow."""

from experiments.restoration import tensorflow_messages as wire
from experiments.restoration.errors import Refused
from experiments.restoration.grpc_calls import Service
from experiments.restoration.model import Model, Spec, check_signature


class TensorFlowGrpcModel(Model):
    """A model of TensorFlow Serving, over gRPC.

    Args:
        address: `HOST:PORT`. The connection is not encrypted.
        name: The model's name there.
        patience: A `Patience`: how long to wait, and whether to ask again.

    Raises:
        Unavailable: The server does not answer.
        Refused: It answers something else: no such model, another protocol.
        ConfigurationError: The model has no signature `diagnose`.
    """

    def __init__(self, address, name, patience):
        self.where = f"{name!r} at {address} (TensorFlow Serving, gRPC)"
        self._name = name
        service = "tensorflow.serving.PredictionService"
        self._call = Service(address, service, wire.messages(), patience)
        self.inputs = check_signature(self._metadata(), self.where)

    def _metadata(self):
        request = wire.messages().GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = self._name
        answer = self._call("GetModelMetadata", request)
        signatures = wire.messages().SignatureMap.FromString(answer.metadata["signature_def"].value)
        if "diagnose" not in signatures.signature_def:
            return None
        inputs = signatures.signature_def["diagnose"].inputs
        return {name: _spec(info) for name, info in inputs.items()}

    def infer(self, tensors):
        request = wire.messages().PredictRequest()
        request.model_spec.name = self._name
        request.model_spec.signature_name = "diagnose"
        for name, array in tensors.items():
            wire.fill(request.inputs[name], array)
        answer = self._call("Predict", request)
        try:
            return {name: wire.to_array(message) for name, message in answer.outputs.items()}
        except ValueError as error:
            raise Refused(f"Its answer cannot be read: {error}") from None


def _spec(info):
    shape = tuple(dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim)
    return Spec(wire.dtype_name(info.dtype), shape)

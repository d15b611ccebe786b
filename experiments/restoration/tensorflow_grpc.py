"""TensorFlow Serving over gRPC, without TensorFlow."""

from experiments.restoration import tensorflow_messages as wire
from experiments.restoration.errors import Refused
from experiments.restoration.grpc_calls import Service
from experiments.restoration.model import ServerModel, Spec, free


class TensorFlowGrpcModel(ServerModel):
    """A model of TensorFlow Serving, over gRPC."""

    protocol = "TensorFlow Serving, gRPC"

    def _connect(self, address, patience):
        service = "tensorflow.serving.PredictionService"
        self._call = Service(address, service, wire.messages(), patience)

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
    return Spec(wire.dtype_name(info.dtype), free(dim.size for dim in info.tensor_shape.dim))

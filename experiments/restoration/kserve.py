"""The Open Inference Protocol, version 2 of KServe's, as Triton speaks it: gRPC and REST.

The model NAME there is the signature `diagnose`. Complex tensors are FP32 with a last axis of 2,
the real and the imaginary part. (The package `tritonclient` is not used: it holds Protocol Buffers
and ml_dtypes below the versions that TensorFlow is installed with.)
"""

import functools
import json
import urllib.parse

import numpy as np

from experiments.restoration import protobuf
from experiments.restoration.errors import Refused
from experiments.restoration.grpc_calls import Service
from experiments.restoration.http_calls import Site, parse
from experiments.restoration.model import ServerModel, Spec, free

_MESSAGES = {
    "ModelMetadataRequest": {"name": (1, "string")},
    "TensorMetadata": {"name": (1, "string"), "datatype": (2, "string"), "shape": (3, "int64[]")},
    "ModelMetadataResponse": {"inputs": (4, "TensorMetadata[]")},
    "Contents": {
        "bool_contents": (1, "bool[]"),
        "int_contents": (2, "int32[]"),
        "fp32_contents": (6, "float[]"),
    },
    "Tensor": {
        "name": (1, "string"),
        "datatype": (2, "string"),
        "shape": (3, "int64[]"),
        "contents": (5, "Contents"),
    },
    "ModelInferRequest": {
        "model_name": (1, "string"),
        "inputs": (5, "Tensor[]"),
        "raw_input_contents": (7, "bytes[]"),
    },
    "ModelInferResponse": {"outputs": (5, "Tensor[]"), "raw_output_contents": (6, "bytes[]")},
}
_TYPES = {"FP32": "float32", "INT32": "int32", "BOOL": "bool"}
_NAMES = {name: kind for kind, name in _TYPES.items()}
_CONTENTS = {"FP32": "fp32_contents", "INT32": "int_contents", "BOOL": "bool_contents"}
_FOREIGN = "Its answer is not that of the Open Inference Protocol."
_LENGTH = "Inference-Header-Content-Length"


@functools.cache
def messages():
    """The message classes of the gRPC protocol, by name."""
    return protobuf.make("deq_keras.kserve", _MESSAGES)


class KserveGrpcModel(ServerModel):
    """A model of a server that speaks the Open Inference Protocol over gRPC."""

    protocol = "KServe, gRPC"

    def _connect(self, address, patience):
        self._call = Service(address, "inference.GRPCInferenceService", messages(), patience)

    def _metadata(self):
        answer = self._call("ModelMetadata", messages().ModelMetadataRequest(name=self._name))
        return {i.name: _spec(i.datatype, i.shape) for i in answer.inputs}

    def infer(self, tensors):
        request = messages().ModelInferRequest(model_name=self._name)
        for name, array in _real(tensors).items():
            request.inputs.add(name=name, datatype=_NAMES[array.dtype.name], shape=array.shape)
            request.raw_input_contents.append(array.tobytes())
        return outputs(self._call("ModelInfer", request))


def outputs(answer):
    """The arrays of a `ModelInferResponse`: bytes behind all of them, or numbers in each."""
    found = {}
    for number, output in enumerate(answer.outputs):
        if answer.raw_output_contents:
            values = answer.raw_output_contents[number]
        else:
            values = list(getattr(output.contents, _CONTENTS.get(output.datatype, ""), ()))
        found[output.name] = _array(values, output.datatype, output.shape)
    return found


class KserveRestModel(ServerModel):
    """A model of a server that speaks the Open Inference Protocol over REST.

    Tensors go as bytes behind the JSON where the server says that it can (`binary_tensor_data`, as
    Triton does), else as numbers in it.
    """

    protocol = "KServe, REST"

    def _connect(self, address, patience):
        self._site = Site(address, patience)
        self._path = f"/v2/models/{urllib.parse.quote(self._name, safe='')}"

    def _metadata(self):
        try:
            self._binary = "binary_tensor_data" in self._site.json("/v2").get("extensions", ())
            listed = self._site.json(self._path)["inputs"]
            return {i["name"]: _spec(i["datatype"], i["shape"]) for i in listed}
        except (AttributeError, KeyError, TypeError):
            raise Refused(_FOREIGN) from None

    def infer(self, tensors):
        inputs, blobs = [], []
        for name, array in _real(tensors).items():
            entry = {"name": name, "datatype": _NAMES[array.dtype.name], "shape": array.shape}
            if self._binary:
                blobs.append(array.tobytes())
                entry["parameters"] = {"binary_data_size": len(blobs[-1])}
            else:
                entry["data"] = array.ravel().tolist()
            inputs.append(entry)
        content = {"inputs": inputs}
        if self._binary:
            content["parameters"] = {"binary_data_output": True}
        head = json.dumps(content).encode()
        headers = {"Content-Type": "application/json"}
        if self._binary:
            headers = {"Content-Type": "application/octet-stream", _LENGTH: str(len(head))}
        body = b"".join([head, *blobs])
        answer, headers = self._site(f"{self._path}/infer", body, headers)
        split = int(headers.get(_LENGTH, len(answer)))
        return _rest_outputs(parse(answer[:split]), answer[split:])


def _rest_outputs(content, blob):
    """The arrays of an answer of REST, whose numbers lie in it, or in the bytes behind it."""
    found = {}
    try:
        for output in content["outputs"]:
            size = output.get("parameters", {}).get("binary_data_size")
            if size is None:
                values = output["data"]
            else:
                values, blob = blob[:size], blob[size:]
            found[output["name"]] = _array(values, output["datatype"], output["shape"])
    except (KeyError, TypeError):
        raise Refused(_FOREIGN) from None
    return found


def _array(values, kind, shape):
    """An array of bytes or of a list of numbers, maybe nested."""
    if kind not in _TYPES:
        raise Refused(f"Expected outputs of the types {sorted(_TYPES)}. Received: {kind}.")
    try:
        if isinstance(values, bytes):
            return np.frombuffer(values, _TYPES[kind]).reshape(shape)
        return np.array(values, _TYPES[kind]).reshape(shape)
    except ValueError as error:
        raise Refused(f"Its answer cannot be read: {error}") from None


def _spec(kind, shape):
    """A last axis of 2 behind those of an image is the real and the imaginary part."""
    shape = free(shape)
    if len(shape) == 5 and shape[-1] == 2:
        return Spec("complex64", shape[:-1])
    return Spec(_TYPES.get(kind, kind), shape)


def _real(tensors):
    """Contiguous arrays, complex ones as real ones with a last axis of 2."""
    found = {}
    for name, array in tensors.items():
        if np.iscomplexobj(array):
            array = np.stack([array.real, array.imag], axis=-1)
        found[name] = np.ascontiguousarray(array)
    return found

"""Messages that are defined here once more, against those of TensorFlow and of Triton's client."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2

from experiments.restoration import kserve, tensorflow_messages

wire = tensorflow_messages.messages()
ARRAYS = [
    np.linspace(-1, 1, 24, dtype=np.float32).reshape(2, 3, 4, 1),
    np.arange(6).reshape(2, 3).astype(np.int32),
    np.array([True, False]),
    (np.arange(4) - 1j * np.arange(4)).astype(np.complex64),
    np.arange(5, dtype=np.uint8),
    np.array([2.5]),
    np.arange(3),
]


@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: array.dtype.name)
def test_request_is_read_by_tensorflow(array):
    request = wire.PredictRequest()
    request.model_spec.name = "mine"
    request.model_spec.signature_name = "diagnose"
    tensorflow_messages.fill(request.inputs["measurement"], array)
    read = predict_pb2.PredictRequest.FromString(request.SerializeToString())
    assert (read.model_spec.name, read.model_spec.signature_name) == ("mine", "diagnose")
    found = tf.make_ndarray(read.inputs["measurement"])
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def _as_values(array):
    """As a server writes it that puts values into fields of their type."""
    proto = tf.make_tensor_proto(array)
    proto.ClearField("tensor_content")
    field = tensorflow_messages._BY_NUMBER[proto.dtype][1]
    values = array.ravel()
    if array.dtype == np.complex64:
        values = values.view(np.float32)
    proto.ClearField(field)
    getattr(proto, field).extend(values.tolist())
    return proto


@pytest.mark.parametrize("as_proto", [tf.make_tensor_proto, _as_values], ids=["bytes", "values"])
@pytest.mark.parametrize("array", ARRAYS, ids=lambda array: array.dtype.name)
def test_response_of_tensorflow_is_read(array, as_proto):
    response = predict_pb2.PredictResponse()
    response.outputs["value"].CopyFrom(as_proto(array))
    read = wire.PredictResponse.FromString(response.SerializeToString())
    found = tensorflow_messages.to_array(read.outputs["value"])
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


def test_equal_values_are_sent_once():
    proto = tf.make_tensor_proto(0.5, shape=[3, 2])
    assert len(proto.float_val) == 1
    response = predict_pb2.PredictResponse()
    response.outputs["value"].CopyFrom(proto)
    read = wire.PredictResponse.FromString(response.SerializeToString())
    found = tensorflow_messages.to_array(read.outputs["value"])
    np.testing.assert_array_equal(found, np.full((3, 2), 0.5, np.float32))


def test_strings_are_refused():
    tensor = wire.Tensor.FromString(tf.make_tensor_proto(["a"]).SerializeToString())
    with pytest.raises(ValueError, match="Expected numbers"):
        tensorflow_messages.to_array(tensor)


def test_metadata():
    request = wire.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "mine"
    read = get_model_metadata_pb2.GetModelMetadataRequest.FromString(request.SerializeToString())
    assert (read.model_spec.name, list(read.metadata_field)) == ("mine", ["signature_def"])
    signatures = get_model_metadata_pb2.SignatureDefMap()
    info = signatures.signature_def["diagnose"].inputs["measurement"]
    info.dtype = tf.complex64.as_datatype_enum
    info.tensor_shape.CopyFrom(tf.TensorShape([None, 3]).as_proto())
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.metadata["signature_def"].Pack(signatures)
    read = wire.GetModelMetadataResponse.FromString(response.SerializeToString())
    found = wire.SignatureMap.FromString(read.metadata["signature_def"].value)
    info = found.signature_def["diagnose"].inputs["measurement"]
    assert tensorflow_messages.dtype_name(info.dtype) == "complex64"
    assert [dim.size for dim in info.tensor_shape.dim] == [-1, 3]


# Written with the stubs of tritonclient 2.73, which cannot be installed beside this TensorFlow.
REQUEST = "0a046d696e652a170a0b6d6561737572656d656e741204465033321a0201023a080000803f00000040"
METADATA = (
    "0a046d696e651201311a06707974686f6e22340a0b6d6561737572656d656e741204465033321a1fffffffffffff"
    "ffffff01ffffffffffffffffff01ffffffffffffffffff01012a220a0e7265636f6e737472756374696f6e120446"
    "5033321a0affffffffffffffffff01"
)
RESPONSES = {
    "bytes": "0a046d696e651201312a110a0573746570731205494e5433321a01022a140a09636f6e76657267656412"
    "04424f4f4c1a01023208030000000400000032020100",
    "values": "0a046d696e651201312a170a0573746570731205494e5433321a01022a04120203042a1a0a09636f6e76"
    "65726765641204424f4f4c1a01022a040a0201002a1b0a08726573696475616c1204465033321a01012a06320400"
    "00003f",
}


def test_request_is_that_of_tritons_client():
    request = kserve.messages().ModelInferRequest(model_name="mine")
    request.inputs.add(name="measurement", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.array([1, 2], np.float32).tobytes())
    assert request.SerializeToString().hex() == REQUEST


def test_metadata_of_triton_are_read():
    read = kserve.messages().ModelMetadataResponse.FromString(bytes.fromhex(METADATA))
    (entry,) = read.inputs
    assert (entry.name, entry.datatype) == ("measurement", "FP32")
    assert list(entry.shape) == [-1, -1, -1, 1]


@pytest.mark.parametrize("kind", RESPONSES)
def test_response_of_triton_is_read(kind):
    read = kserve.messages().ModelInferResponse.FromString(bytes.fromhex(RESPONSES[kind]))
    found = kserve.outputs(read)
    assert found["steps"].tolist() == [3, 4]
    assert found["converged"].tolist() == [True, False]
    if kind == "values":
        assert found["residual"].tolist() == [0.5]

"""The messages of TensorFlow Serving's gRPC API that a client needs, without TensorFlow.

The package `tensorflow-serving-api` has all of them, and imports TensorFlow.
"""

import functools

import numpy as np

from experiments.restoration import protobuf

_MESSAGES = {
    "Dim": {"size": (1, "int64")},
    "TensorShape": {"dim": (2, "Dim[]")},
    "Tensor": {
        "dtype": (1, "int32"),
        "tensor_shape": (2, "TensorShape"),
        "tensor_content": (4, "bytes"),
        "float_val": (5, "float[]"),
        "double_val": (6, "double[]"),
        "int_val": (7, "int32[]"),
        "scomplex_val": (9, "float[]"),
        "int64_val": (10, "int64[]"),
        "bool_val": (11, "bool[]"),
    },
    "ModelSpec": {"name": (1, "string"), "signature_name": (3, "string")},
    "PredictRequest": {"model_spec": (1, "ModelSpec"), "inputs": (2, "Tensor{}")},
    "PredictResponse": {"outputs": (1, "Tensor{}")},
    "GetModelMetadataRequest": {"model_spec": (1, "ModelSpec"), "metadata_field": (2, "string[]")},
    "Any": {"type_url": (1, "string"), "value": (2, "bytes")},
    "GetModelMetadataResponse": {"metadata": (2, "Any{}")},
    "TensorInfo": {"dtype": (2, "int32"), "tensor_shape": (3, "TensorShape")},
    "Signature": {"inputs": (1, "TensorInfo{}"), "outputs": (2, "TensorInfo{}")},
    "SignatureMap": {"signature_def": (1, "Signature{}")},
}
# The types of TensorFlow: number, name, NumPy's name, and the field of `Tensor` for its values.
_TYPES = (
    (1, "DT_FLOAT", "float32", "float_val"),
    (2, "DT_DOUBLE", "float64", "double_val"),
    (3, "DT_INT32", "int32", "int_val"),
    (4, "DT_UINT8", "uint8", "int_val"),
    (8, "DT_COMPLEX64", "complex64", "scomplex_val"),
    (9, "DT_INT64", "int64", "int64_val"),
    (10, "DT_BOOL", "bool", "bool_val"),
)
_BY_NUMBER = {number: (name, field) for number, _, name, field in _TYPES}
_BY_NAME = {name: number for number, _, name, _ in _TYPES}
_BY_ENUM = {enum: name for _, enum, name, _ in _TYPES}


@functools.cache
def messages():
    """The message classes, by name: `messages().PredictRequest`."""
    return protobuf.make("deq_keras.tensorflow", _MESSAGES)


def dtype_name(kind):
    """NumPy's name of a type of TensorFlow, from its number or its name (`DT_FLOAT`)."""
    known = _BY_ENUM if isinstance(kind, str) else {n: name for n, (name, _) in _BY_NUMBER.items()}
    return known.get(kind, str(kind))


def fill(message, array):
    """Writes an array into a `Tensor` message."""
    message.dtype = _BY_NAME[array.dtype.name]
    for size in array.shape:
        message.tensor_shape.dim.add(size=size)
    message.tensor_content = np.ascontiguousarray(array).tobytes()


def to_array(message):
    """The array of a `Tensor` message.

    A server may send the raw bytes or a list of values, and where all values from one on are equal,
    only the first of these.

    Raises:
        ValueError: A type that is not among those of images and of diagnoses.
    """
    if message.dtype not in _BY_NUMBER:
        raise ValueError(f"Expected numbers. Received TensorFlow's type {message.dtype}.")
    name, field = _BY_NUMBER[message.dtype]
    shape = [dim.size for dim in message.tensor_shape.dim]
    if message.tensor_content:
        return np.frombuffer(message.tensor_content, name).reshape(shape)
    values = np.array(getattr(message, field), np.float32 if name == "complex64" else name)
    if name == "complex64":
        values = values.view(np.complex64)
    missing = int(np.prod(shape)) - len(values)
    if len(values) and missing > 0:
        values = np.concatenate([values, np.repeat(values[-1:], missing)])
    return values.reshape(shape)

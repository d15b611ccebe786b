"""Requests that TensorFlow Serving answers when it loads a model, before the first of a person."""

import numpy as np
import tensorflow as tf

from trainers.export.verification import requests_of

# Fields of `tensorflow_serving/apis`: PredictionLog.predict_log, PredictLog.request,
# PredictRequest.model_spec and .inputs, ModelSpec.name and .signature_name. The package
# `tensorflow-serving-api` has them as classes; its requirement `tensorflow` would put a second
# TensorFlow beside that of others, for these few lines.
_PREDICT_LOG, _REQUEST = 6, 1
_MODEL_SPEC, _INPUTS = 1, 2
_NAME, _SIGNATURE = 1, 3
_KEY, _VALUE = 1, 2


def write(path, name, served, sample):
    """Writes a request for each signature, TFRecords of `tensorflow.serving.PredictionLog`.

    Args:
        path: The file: `assets.extra/tf_serving_warmup_requests` in a SavedModel.
        name: The name of the model.
        served: `trainers.export.Signatures`.
        sample: A batch of measurements, in the structure of the model's input.
    """
    inputs = [np.asarray(part)[:1] for part in tf.nest.flatten(sample)]
    image = served.functions["serving_default"](*map(tf.constant, inputs))["reconstruction"]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for signature, asked in requests_of(served, inputs, image.numpy()).items():
            writer.write(prediction_log(name, signature, asked))


def prediction_log(name, signature, inputs):
    """The bytes of a `tensorflow.serving.PredictionLog` for a request.

    Example:

    >>> prediction_log("m", "s", {})[:3]
    b'2\\n\\n'
    """
    spec = _field(_NAME, name.encode()) + _field(_SIGNATURE, signature.encode())
    request = _field(_MODEL_SPEC, spec)
    for key, array in inputs.items():
        value = tf.make_tensor_proto(array).SerializeToString()
        request += _field(_INPUTS, _field(_KEY, key.encode()) + _field(_VALUE, value))
    return _field(_PREDICT_LOG, _field(_REQUEST, request))


def _field(number, content):
    """A field of bytes in the wire format of protocol buffers."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value):
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])

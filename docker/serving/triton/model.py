"""A model of Triton's Python backend: one signature of a SavedModel.

`make_repository.py` copies this file beside the SavedModel. Each request is computed by itself: its
images need not have the size of another's, and what is wrong with it is its own error. A complex
tensor comes and goes as FP32 with a last axis of two, the real and the imaginary parts.
"""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf
import triton_python_backend_utils as pb_utils


class TritonPythonModel:
    """What the backend makes: `initialize` is called once, `execute` with each list of requests."""

    def initialize(self, args):
        """Loads the SavedModel that lies beside this file."""
        config = json.loads(args["model_config"])
        folder = Path(__file__).resolve().parent / "saved_model"
        # The variables live as long as this attribute: a signature does not keep them.
        self._model = tf.saved_model.load(str(folder))
        name = config["parameters"]["signature"]["string_value"]
        self._signature = self._model.signatures[name]
        self._specs = self._signature.structured_input_signature[1]
        self._optional = {i["name"] for i in config["input"] if i.get("optional")}
        self._outputs = [output["name"] for output in config["output"]]
        self._warm_up()

    def execute(self, requests):
        """A response for each request, in their order; an error is one of that request alone."""
        return [self._respond(request) for request in requests]

    def _warm_up(self):
        """Restores a black image: TensorFlow's first computation takes much longer than others."""
        try:
            self._signature(**{name: _black(spec) for name, spec in self._specs.items()})
        except tf.errors.InvalidArgumentError:
            pass  # an input has another size than the image; the first request is the slow one then

    def _respond(self, request):
        try:
            results = self._signature(**self._inputs(request))
            return pb_utils.InferenceResponse(
                [pb_utils.Tensor(name, _to_triton(results[name])) for name in self._outputs]
            )
        except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
            return _failure(error, pb_utils.TritonError.INVALID_ARG)
        except (tf.errors.ResourceExhaustedError, MemoryError) as error:
            return _failure(error, pb_utils.TritonError.UNAVAILABLE)
        except Exception as error:  # the server and the next request go on, whatever it was
            return _failure(error, pb_utils.TritonError.INTERNAL)

    def _inputs(self, request):
        given = {tensor.name(): tensor.as_numpy() for tensor in request.inputs()}
        missing = sorted(set(self._specs) - set(given) - self._optional)
        if missing:
            raise ValueError(f"Expected the inputs {sorted(self._specs)}, received no {missing}.")
        inputs = {name: _from_triton(value, self._specs[name]) for name, value in given.items()}
        batch = next(iter(inputs.values())).shape[0]
        for name, spec in self._specs.items():
            if name not in inputs:  # optional in config.pbtxt: zero is the model's own
                inputs[name] = tf.zeros([batch], spec.dtype)
        return inputs


def _black(spec, side=32):
    if spec.dtype == tf.string:
        return tf.io.encode_png(tf.zeros([side, side, 1], tf.uint8))[None]
    sizes = [1 if axis == 0 else size or side for axis, size in enumerate(spec.shape)]
    return tf.zeros(sizes, spec.dtype)


def _from_triton(value, spec):
    if spec.dtype.is_complex:
        value = np.ascontiguousarray(value).view(spec.dtype.as_numpy_dtype)[..., 0]
    return tf.constant(value, spec.dtype)


def _to_triton(tensor):
    value = tensor.numpy()
    if np.iscomplexobj(value):
        value = np.stack([value.real, value.imag], -1)
    return value.astype(object) if tensor.dtype == tf.string else np.ascontiguousarray(value)


def _failure(error, code):
    # What is wrong with the request stands between words on where in the graph that was found.
    message = str(getattr(error, "message", None) or error).split("\n\t [[")[0]
    message = message.rpartition("<stack traces unavailable>\n")[2]
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))

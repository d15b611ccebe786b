"""ONNX: one `.onnx` file, for ONNX Runtime and many others."""

import re

SUFFIX = ".onnx"
LIBRARIES = ("tf2onnx", "onnxruntime")
FIXED = False
OPSET = 18

_OPS = re.compile(r"Tensorflow op \[[^:\]]*: (\w+)\] is not supported|No Op registered for (\w+)")


def write(source, target):
    """Converts a SavedModel.

    Args:
        source: Its folder.
        target: The file to write.
    """
    import tensorflow as tf
    import tf2onnx

    loaded = tf.saved_model.load(str(source)).signatures["serving_default"]
    specs = loaded.structured_input_signature[1]

    def function(*tensors):
        return loaded(**dict(zip(specs, tensors, strict=True)))

    tf2onnx.convert.from_function(
        tf.function(function, autograph=False),
        input_signature=list(specs.values()),
        opset=OPSET,
        output_path=str(target),
    )


def run(target, batches):
    """What the runtime makes of batches, dictionaries of the inputs: those of the outputs."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(target), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return [dict(zip(names, session.run(names, batch), strict=True)) for batch in batches]


def unsupported(log):
    """The TensorFlow operations that the converter said it cannot express."""
    return sorted({name for found in _OPS.findall(log) for name in found if name})

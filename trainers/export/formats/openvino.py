"""OpenVINO's intermediate representation: an `.xml` file, and the weights in a `.bin` beside it."""

import re

SUFFIX = ".xml"
LIBRARIES = ("openvino",)
FIXED = False

_OPS = re.compile(r"No translator found for (\w+)|Unsupported op\w*:? (\w+)")


def write(source, target):
    """Converts a SavedModel.

    Args:
        source: Its folder.
        target: The file to write.
    """
    import openvino

    model = openvino.convert_model(str(source))
    openvino.save_model(model, str(target), compress_to_fp16=False)


def run(target, batches):
    """The reconstructions of some batches, dictionaries of the inputs, by the runtime."""
    import openvino

    # Some processors have fast bfloat16 units, which a solver cannot converge with.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(str(target), "CPU", exact)
    return [model(batch)["reconstruction"] for batch in batches]


def unsupported(log):
    """The TensorFlow operations that the converter said it cannot express."""
    return sorted({name for found in _OPS.findall(log) for name in found if name})

"""OpenVINO's intermediate representation: an `.xml` file, and the weights in a `.bin` beside it."""

import re
import sys

SUFFIX = ".xml"
LIBRARIES = ("openvino",)
FIXED = False

_RULES = re.compile(r"^-- No conversion rule found for operations: (.*)$", re.M)
_FAILED = re.compile(r"^-- (\w+) with a message", re.M)


def write(source, target):
    """Converts a SavedModel.

    Args:
        source: Its folder.
        target: The file to write.
    """
    openvino = _library()
    model = openvino.Core().read_model(str(source))
    openvino.save_model(model, str(target), compress_to_fp16=False)


def run(target, batches):
    """What the runtime makes of batches, dictionaries of the inputs: those of the outputs."""
    openvino = _library()
    # Some processors have fast bfloat16 units, which a solver cannot converge with.
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(str(target), "CPU", exact)
    names = [output.any_name for output in model.outputs]
    return [{name: results[name] for name in names} for results in map(model, batches)]


def unsupported(log):
    """The TensorFlow operations that the converter said it cannot express."""
    without_rule = [name for line in _RULES.findall(log) for name in line.split(", ")]
    return sorted({*without_rule, *_FAILED.findall(log)})


def _library():
    # Importing OpenVINO would report that to its makers.
    sys.modules.setdefault("openvino_telemetry", None)
    import openvino

    return openvino

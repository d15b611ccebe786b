"""LiteRT, which was TensorFlow Lite: one `.tflite` file, for phones and small devices."""

import re

SUFFIX = ".tflite"
LIBRARIES = ("ai_edge_litert",)
FIXED = True  # its loops are not reliable where sizes change

_OPS = re.compile(r"'tf\.(\w+)' op is neither|^\s*tf\.(\w+) ?\(", re.M)


def write(source, target):
    """Converts a SavedModel.

    Args:
        source: Its folder.
        target: The file to write.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(str(source))
    # Nothing that needs TensorFlow's own kernels, which the small runtime does not have.
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    target.write_bytes(converter.convert())


def run(target, batches):
    """What the runtime makes of batches, dictionaries of the inputs: those of the outputs."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(target)).get_signature_runner("serving_default")
    return [runner(**batch) for batch in batches]


def unsupported(log):
    """The TensorFlow operations that the converter said it cannot express."""
    return sorted({name for found in _OPS.findall(log) for name in found if name})

"""A SavedModel of this machine. The one file of this folder that imports TensorFlow."""

import os
from pathlib import Path

from experiments.restoration.errors import Refused, TooLarge, plain
from experiments.restoration.model import Model, Spec, check_signature
from trainers.process.errors import ConfigurationError
from trainers.process.files import literal

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
import tensorflow as tf  # noqa: E402


def version_folder(path):
    """The folder of a SavedModel, from that or from the one above it.

    Args:
        path: A folder with `saved_model.pb`, or one with such folders `1`, `2`...: the highest of
            these is taken.

    Raises:
        ConfigurationError: Neither.
    """
    path = Path(path).expanduser()
    if (path / "saved_model.pb").is_file():
        return path
    found = []
    if path.is_dir():
        found = [p for p in path.iterdir() if p.name.isdigit() and (p / "saved_model.pb").is_file()]
    if not found:
        what = "has neither" if path.is_dir() else "is no folder"
        raise ConfigurationError(
            "Expected --model to be a SavedModel, or a folder with its versions (1, 2...). "
            f"{str(path)!r} {what}."
        )
    return max(found, key=lambda p: int(p.name))


class LocalModel(Model):
    """A SavedModel that is run in this process.

    Args:
        path: A version's folder, or the folder of the versions.

    Raises:
        ConfigurationError: There is none, it is damaged, or it has no signature `diagnose`.
    """

    def __init__(self, path):
        folder = version_folder(path)
        self.where = repr(str(folder))
        tf.get_logger().setLevel("ERROR")
        try:
            with literal(folder) as readable:
                self._loaded = tf.saved_model.load(readable)
            signature = self._loaded.signatures.get("diagnose")
        except Exception as error:  # of protocol buffers, of graphs, of files...
            reason = plain(error, 200) or type(error).__name__
            raise ConfigurationError(
                f"The SavedModel {self.where} cannot be loaded: it is damaged, or of another "
                f"TensorFlow ({reason})."
            ) from None
        inputs = None
        if signature is not None:
            specs = signature.structured_input_signature[1].items()
            inputs = {k: Spec(v.dtype.as_numpy_dtype.__name__, tuple(v.shape)) for k, v in specs}
        self.inputs = check_signature(inputs, self.where)
        self._diagnose = signature

    def infer(self, tensors):
        try:
            found = self._diagnose(**{k: tf.constant(v) for k, v in tensors.items()})
        except tf.errors.ResourceExhaustedError as error:
            raise TooLarge(f"Out of memory: {plain(error)}") from None
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise Refused(f"The model refuses it: {plain(error)}") from None
        return {name: value.numpy() for name, value in found.items()}

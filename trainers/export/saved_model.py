"""The exporter: a trained model to a version folder that was verified."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import keras
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from deq_keras.numerics.linear import LINEAR_MAP
from trainers.export import card as cards
from trainers.export import verification, versions, warmup
from trainers.export.signatures import MAX_PIXELS, Signatures
from trainers.process.errors import ConfigurationError

_MARK = "_gradient_op_type"  # of a node whose derivative is not that of its operation
_LINEAR_MAP = re.compile(rf"(^|/){LINEAR_MAP}(_\d+)?/")
# What a request must not make a server do.
_FORBIDDEN = {"PyFunc", "PyFuncStateless", "EagerPyFunc", "ReadFile", "WriteFile", "Print"}


def export(
    model: keras.Model,
    folder: str | os.PathLike,
    *,
    samples: Sequence,
    card: cards.Card | None = None,
    max_pixels: int = MAX_PIXELS,
) -> Path:
    """Write the next version of a model as a SavedModel, verified in another process.

    The folder of the version, `folder/1`, `folder/2` and so on, is there as a whole or not at all.
    It holds the signatures of `trainers.export.Signatures`; in `assets.extra` a card for people
    (`model_card.md`) and for programs (`model_card.json`), and requests that warm up TensorFlow
    Serving. A fresh process, which can import neither Keras nor this package, loads it and
    compares what it answers with the model.

    Args:
        model: A built Keras model.
        folder: The folder of the model; its name is that of the model.
        samples: What is measured, batches of it in the structure of the model's input, as arrays
            of float32 (or complex64), of several sizes; the first is the warm-up request.
        card: What to say of the model.
        max_pixels: Limit of height times width of an image in a request.

    Returns:
        The folder of the version.

    Raises:
        ConfigurationError: If the model cannot be exported.
        trainers.export.verification.Unlike: If the export does not answer as the model does;
            nothing was written.
        StorageError: If the folder cannot be written.

    Example:

    >>> layer = dk.layers.Variational(dk.operators.Identity(), dk.priors.TotalVariation())
    >>> model = keras.Sequential([keras.Input((None, None, 1)), layer])
    >>> samples = [np.full((2, 9, 8, 1), 0.5, "float32")]
    >>> path = export(model, "models/denoise", samples=samples)  # doctest: +SKIP
    """
    served = Signatures(model, max_pixels)
    folder = Path(folder)
    card = card or cards.Card()
    with versions.new_version(folder) as version:
        write(served, version.partial)
        extra = version.partial / "assets.extra"
        extra.mkdir()
        warmup.write(extra / "tf_serving_warmup_requests", folder.name, served, samples[0])
        report = verification.verify(version.partial, served, samples)
        cards.write(extra, folder.name, served, card, report)
    return version.path


def write(served: Signatures, path: str | os.PathLike) -> None:
    """Write the functions of `Signatures` as a SavedModel, and nothing else."""
    module = tf.Module()
    module.weights = [variable.value for variable in served.model.variables]
    tf.saved_model.save(module, str(path), signatures=served.functions)
    _leave_derivatives_to_tensorflow(Path(path) / "saved_model.pb")


def _leave_derivatives_to_tensorflow(path):
    """Takes the marks off convolutions, whose derivatives TensorFlow knows.

    It saves the gradients that such marks stand for, of outermost functions alone: a loaded loop
    could not be differentiated, and loading would take long and warn. The marks of solutions stay.
    """
    saved = saved_model_pb2.SavedModel()
    saved.ParseFromString(path.read_bytes())
    graph = saved.meta_graphs[0]
    library, functions = graph.graph_def.library, graph.object_graph_def.concrete_functions
    marks = set()
    for function in library.function:
        for node in function.node_def:
            if node.op in _FORBIDDEN:
                raise ConfigurationError(
                    f"Expected a model of TensorFlow's own operations. Received one with a "
                    f"{node.op!r}, which a server must not run."
                )
            if _MARK in node.attr:
                if _LINEAR_MAP.search(node.name):
                    del node.attr[_MARK]
                else:
                    marks.add(node.attr[_MARK].s.decode())
    kept = [g for g in library.registered_gradients if g.registered_op_type in marks]
    needless = {g.gradient_func for g in library.registered_gradients if g not in kept}
    del library.registered_gradients[:]
    library.registered_gradients.extend(kept)
    for name in needless:
        functions.pop(name, None)
    defined = [f for f in library.function if f.signature.name not in needless]
    del library.function[:]
    library.function.extend(defined)
    path.write_bytes(saved.SerializeToString())

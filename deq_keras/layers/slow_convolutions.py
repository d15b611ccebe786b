"""Convolutions in a cell that take several times as long as they need, found in its graph."""

from __future__ import annotations

import math
import os
import re
import warnings
from pathlib import Path
from typing import NamedTuple

import keras
import tensorflow as tf

from deq_keras.convolution import correlation
from deq_keras.convolution.correlation import arithmetic
from deq_keras.layers.structure import fill, tried
from deq_keras.numerics.linear import LINEAR_MAP

# Less than a fifth of what the convolutions of the cell compute is not worth a line.
_SHARE = 0.2
_TYPES = {"Conv2D": "correlate", "Conv2DBackpropInput": "correlate_adjoint"}
_PADDINGS = {b"SAME": "zero", b"VALID": "valid"}
_OURS = re.compile(rf"(^|/){LINEAR_MAP}(_\d+)?/")
_PACKAGES = tuple(f"{Path(package.__file__).parent}{os.sep}" for package in (keras, tf)) + (
    f"{Path(__file__).parents[1]}{os.sep}",
)


class SlowConvolution(NamedTuple):
    """A convolution that has a faster form.

    Attributes:
        place: The layer, or the line of a program, that it belongs to.
        remedy: What to write instead.
        shape: Of its filters.
        factor: How many times as much is computed as in the faster form, forward and backward.
        share: Part of the work of all convolutions of the cell that the faster form saves.
    """

    place: str
    remedy: str
    shape: tuple
    factor: float
    share: float


def warn(cell, z_shape, y_shape, dtype):
    """Warns of each slow convolution of a built cell, a line for each layer.

    Args:
        cell: A `deq_keras.layers.Cell`.
        z_shape: Shape, or nested structure of shapes, of the state; unknown sizes are `None`.
        y_shape: The same of the measurement.
        dtype: Of both.
    """
    for slow in find(cell, z_shape, y_shape, dtype):
        kh, kw, c, f = slow.shape
        warnings.warn(
            f"{cell.name}: {slow.place} convolves with filters of {kh} x {kw} x {c} x {f}. That "
            f"and its derivative take a CPU {slow.factor:.1f} times as much work as they need, "
            f"{slow.share:.0%} of that of all convolutions of the cell. {slow.remedy}",
            stacklevel=2,
        )


def find(cell, z_shape, y_shape, dtype) -> list[SlowConvolution]:
    """The slow convolutions of a built cell that matter; args are those of `warn`.

    A convolution to few channels is slow, and so is the derivative of one from few channels, which
    every product with the Jacobian takes. The graph of one evaluation says which there are and how
    large their images: also of those that no Keras layer makes. Those inside of functions of
    TensorFlow that the cell calls are not seen.
    """
    if correlation.accelerated():
        return []
    layers = cell._flatten_layers()
    if all(type(layer).__module__.startswith("deq_keras.") for layer in layers):
        return []  # they take the fast form, and need not be traced
    return tried(lambda: _slow(_graph(cell, z_shape, y_shape, dtype), cell)) or []


def _graph(cell, z_shape, y_shape, dtype):
    z, y = (fill(shape, dtype, lambda s, d: tf.zeros(s, d)) for shape in (z_shape, y_shape))
    function = tf.function(lambda: cell.evaluate(z, y, False), autograph=False)
    return function.get_concrete_function().graph


def _slow(graph, cell):
    total, found = 0.0, {}
    for op in graph.get_operations():
        if op.type not in _TYPES or op.get_attr("data_format") != b"NHWC":
            continue
        shape = op.inputs[1].shape
        images = op.outputs[0].shape if op.type == "Conv2D" else op.inputs[2].shape
        if not shape.is_fully_defined() or not images[1:3].is_fully_defined():
            continue
        pixels = math.prod(images[1:3])
        plain, fast = _both_ways(shape.as_list())
        total += pixels * plain
        if _OURS.search(op.name) or not _has_fast_form(op) or plain < 1.5 * fast:
            continue
        place, remedy = _origin(op, cell)
        saved = found[place].share if place in found else 0.0  # a layer that is called twice
        saved += pixels * (plain - fast)
        found[place] = SlowConvolution(place, remedy, tuple(shape), plain / fast, saved)
    slow = [one._replace(share=one.share / total) for one in found.values()]
    return [one for one in slow if one.share >= _SHARE]


def _both_ways(shape):
    """Work for a pixel of a convolution and of its derivative: as TensorFlow does it, and fast."""
    kh, kw, c, f = shape
    return (sum(pair) for pair in zip(arithmetic(shape), arithmetic((kh, kw, f, c)), strict=True))


def _has_fast_form(op):
    numbers = (*op.get_attr("strides"), *op.get_attr("dilations"))
    plain = all(n == 1 for n in numbers) and op.get_attr("padding") in _PADDINGS
    if op.type == "Conv2D":  # other than in groups of channels
        plain &= op.inputs[0].shape[3] == op.inputs[1].shape[2]
    return plain and op.outputs[0].dtype in (tf.float32, tf.float64)


def _origin(op, cell):
    """Which layer or line a convolution comes from, and what to write there."""
    kinds = (keras.layers.Conv2D, keras.layers.Conv2DTranspose)
    layers = {layer.name: layer for layer in cell._flatten_layers() if isinstance(layer, kinds)}
    for part in reversed(op.name.split("/")):
        # TensorFlow numbers scopes of one name.
        layer = layers.get(part) or layers.get(re.sub(r"_\d+$", "", part))
        if layer is not None:
            kind = "Conv2DTranspose" if isinstance(layer, kinds[1]) else "Conv2D"
            return f"the layer {layer.name!r}", (
                f"Make it a deq_keras.layers.{kind} in place of a keras.layers.{kind}: arguments "
                "and weights are the same."
            )
    frames = [frame for frame in op.traceback if not frame.filename.startswith(_PACKAGES)]
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else f"the operation {op.name!r}"
    padding = _PADDINGS[op.get_attr("padding")]
    return place, (
        f"Use deq_keras.convolution.{_TYPES[op.type]}(images, filters, {padding!r}) in place of "
        "TensorFlow's function."
    )

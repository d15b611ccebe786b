"""The structure of a cell: what it declares, and what is found out by trying it."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import keras
import tensorflow as tf

from deq_keras.numerics.jacobian import transposed_product
from deq_keras.numerics.rows import dot, norm, to_rows
from deq_keras.numerics.shapes import map_shapes

_SIDE = 12  # of the images for sizes that are not known
_LOG = logging.getLogger("deq_keras")


class Structure(NamedTuple):
    """What a layer knows about its cell; `None` stands for what could not be found out.

    Attributes:
        symmetric: Whether the Jacobian is symmetric; the adjoint equation is solved accordingly.
            If that is not known, by a solver for any Jacobian.
        couples_batch: Whether in training images influence each other; the batch is then solved as
            one problem, and so it is if that is not known.
        source: For each of the two `"declared"`, `"tried"` or `"unknown"`.
    """

    symmetric: bool | None
    couples_batch: bool | None
    source: dict


def find(cell, z_shape, y_shape, dtype) -> Structure:
    """The `Structure` of a built cell: what it declares, and the rest by trying it.

    Args:
        cell: A `deq_keras.layers.Cell`.
        z_shape: Shape, or nested structure of shapes, of the state; unknown sizes are `None`.
        y_shape: The same of the measurement.
        dtype: Of both.

    Returns:
        A `Structure`. What was tried is logged at level INFO, what stays unknown at level WARNING,
        by the logger `"deq_keras"`.
    """
    values, source = {}, {}
    for name, attempt in (("symmetric", is_symmetric), ("couples_batch", couples_batch)):
        declared = getattr(cell, name)
        found = attempt(cell, z_shape, y_shape, dtype) if declared is None else declared
        values[name] = found
        source[name] = "declared" if declared is not None else "tried"
        if found is None:
            source[name] = "unknown"
            _LOG.warning(
                "%s: could not find out whether it is `%s`, since it cannot be evaluated on small "
                "random images. The safe choice is used. Declare it: LayerCell(layer, %s=...).",
                cell.name,
                name,
                name,
            )
        elif declared is None:
            _LOG.info("%s: tried, and found %s=%s.", cell.name, name, found)
    return Structure(**values, source=source)


def is_symmetric(cell, z_shape, y_shape, dtype, draws: int = 2) -> bool | None:
    """Whether `<a, J^T b> = <J^T a, b>` for random points, directions and *weights*.

    The weights are drawn about their present values, so that a cell whose Jacobian is symmetric
    at its start alone (two sets of filters that start equal, say) is not taken for symmetric.

    Args:
        cell: As in `find`, and so are the next three.
        z_shape: Of the state.
        y_shape: Of the measurement.
        dtype: Of both.
        draws: Number of experiments; all must agree.

    Returns:
        `None` if the cell cannot be evaluated for images of a small size.
    """
    return tried(lambda: all(_agrees(cell, z_shape, y_shape, dtype, seed) for seed in range(draws)))


def couples_batch(cell, z_shape, y_shape, dtype) -> bool | None:
    """Whether in training an image's result depends on its companions in the batch.

    Args, and `None` where nothing can be said, are those of `is_symmetric`.
    """

    def probe():
        draw = _Normal(0)
        state = _weights_nearby(cell, draw)
        z, y = (fill(shape, dtype, draw, batch=2) for shape in (z_shape, y_shape))
        # The first image stays as it was, the second one changes.
        other = tf.nest.map_structure(lambda leaf: tf.concat([leaf[:1], 2 * leaf[1:]], 0), z)
        rows = []
        for point in (z, other):
            with keras.StatelessScope(state_mapping=state):
                result = to_rows(cell.evaluate(point, y, True))[0]
                rows.append(tf.cast(result[0], tf.float64))
        return bool(tf.norm(rows[0] - rows[1]) > 1e-5 * tf.norm(rows[0]))

    return tried(probe)


def tried(probe):
    """What a function finds out, outside of graphs that are being traced; `None` if it cannot."""

    def run():
        try:
            return probe()
        except (tf.errors.OpError, ValueError, TypeError):
            return None

    if tf.executing_eagerly():
        return run()
    # Out of a graph that is being traced. `tf.init_scope` leads there too, but tapes record nothing
    # in it, and every Jacobian would be zero. Another thread begins with neither graph nor tape.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def _agrees(cell, z_shape, y_shape, dtype, seed):
    draw = _Normal(seed)
    state = _weights_nearby(cell, draw)
    z, a, b = (fill(z_shape, dtype, draw) for _ in range(3))
    y = fill(y_shape, dtype, draw)
    with keras.StatelessScope(state_mapping=state):
        product = transposed_product(lambda z: cell.evaluate(z, y, False), z)
        rows = [to_rows(x)[0] for x in (a, product(b), product(a), b)]
    a, from_b, from_a, b = (tf.cast(x, tf.float64) for x in rows)
    difference = tf.abs(dot(a, from_b) - dot(from_a, b))
    scale = norm(a) * norm(from_b) + norm(from_a) * norm(b)
    # Rounding reaches a tenth of this; an asymmetry of 1 % of the Jacobian, a hundred times this.
    return bool(tf.reduce_all((difference <= 1e-5 * scale) & (scale > 0)))


def _weights_nearby(cell, draw):
    """A snapshot with other weights, of the same size; statistics stay positive."""

    def nearby(value):
        size = 0.2 * tf.reduce_mean(tf.abs(value)) + 0.02
        return value + size * tf.cast(tf.abs(draw(value.shape, "float32")), value.dtype)

    values = [(v, tf.convert_to_tensor(v)) for v in cell.variables]
    return [(v, nearby(value)) for v, value in values if value.dtype.is_floating]


class _Normal:
    """Standard normal tensors, a new one each time, independent of the global seed."""

    def __init__(self, seed):
        self.generator = tf.random.Generator.from_seed(seed)

    def __call__(self, shape, dtype):
        return self.generator.normal(shape, dtype=dtype)


def fill(shapes, dtype, draw, batch=1):
    """Tensors `draw(shape, dtype)` for a structure of shapes, small where sizes are not known."""

    def one(shape):
        known = [batch if axis == 0 else n or _SIDE for axis, n in enumerate(shape)]
        return draw(known, dtype)

    return map_shapes(one, shapes)

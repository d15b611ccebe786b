"""What a cell does not say of itself, found out by trying it, once, when a layer is built."""

from concurrent.futures import ThreadPoolExecutor

import keras
import tensorflow as tf

from deq_keras.adjoints.base import transposed_product
from deq_keras.layers.calling import call_cell
from deq_keras.layers.cells import is_shape
from deq_keras.numerics.rows import dot, norm, to_rows

_SIDE = 12  # of the images for sizes that are not known


def has_symmetric_jacobian(cell, z_shape, y_shape, dtype, draws=2):
    """Whether `<a, J^T b> = <J^T a, b>` for random points, directions and *weights*.

    The weights are drawn about their present values, so that a cell whose Jacobian is symmetric
    at its start alone (two sets of filters that start equal, say) is not taken for symmetric.

    Args:
        cell: A built cell, as in `deq_keras.layers.Equilibrium`.
        z_shape: Shape, or nested structure of shapes, of the state; unknown sizes are `None`.
        y_shape: The same of the measurement.
        dtype: Of both.
        draws: Number of experiments; all must agree.

    Returns:
        A bool. `False` if the cell cannot be evaluated for images of a small size.
    """
    return _tried(
        lambda: all(_agrees(cell, z_shape, y_shape, dtype, seed) for seed in range(draws))
    )


def couples_images(cell, z_shape, y_shape, dtype):
    """Whether in training an image's result depends on its companions in the batch.

    Args and `False` where nothing can be said are those of `has_symmetric_jacobian`.
    """

    def probe():
        draw = _Normal(0)
        state = _weights_nearby(cell, draw)
        z, y = (_fill(shape, dtype, draw, batch=2) for shape in (z_shape, y_shape))
        # The first image as it was, the second one another.
        other = tf.nest.map_structure(lambda leaf: tf.concat([leaf[:1], 2 * leaf[1:]], 0), z)
        rows = []
        for point in (z, other):
            with keras.StatelessScope(state_mapping=state):
                rows.append(tf.cast(to_rows(call_cell(cell, point, y, True))[0][0], tf.float64))
        return bool(tf.norm(rows[0] - rows[1]) > 1e-5 * tf.norm(rows[0]))

    return _tried(probe)


def _tried(probe):
    def run():
        try:
            return probe()
        except (tf.errors.OpError, ValueError, TypeError):
            return False

    if tf.executing_eagerly():
        return run()
    # Out of a graph that is being traced. `tf.init_scope` leads there too, but tapes record nothing
    # in it, and every Jacobian would be zero. Another thread begins with neither graph nor tape.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


def _agrees(cell, z_shape, y_shape, dtype, seed):
    draw = _Normal(seed)
    state = _weights_nearby(cell, draw)
    z, a, b = (_fill(z_shape, dtype, draw) for _ in range(3))
    y = _fill(y_shape, dtype, draw)
    with keras.StatelessScope(state_mapping=state):
        product = transposed_product(lambda z: call_cell(cell, z, y, False), z)
        rows = [to_rows(x)[0] for x in (a, product(b), product(a), b)]
    a, from_b, from_a, b = (tf.cast(x, tf.float64) for x in rows)
    difference = tf.abs(dot(a, from_b) - dot(from_a, b))
    scale = norm(a) * norm(from_b) + norm(from_a) * norm(b)
    # Rounding makes a tenth of this, an asymmetry of a hundredth of the Jacobian a hundred times.
    return bool(tf.reduce_all((difference <= 1e-5 * scale) & (scale > 0)))


def _weights_nearby(cell, draw):
    """A snapshot with other weights, of the same size; statistics stay positive."""

    def nearby(value):
        size = 0.2 * tf.reduce_mean(tf.abs(value)) + 0.02
        return value + size * tf.cast(tf.abs(draw(value.shape, "float32")), value.dtype)

    values = [(v, tf.convert_to_tensor(v)) for v in cell.variables]
    return [(v, nearby(value)) for v, value in values if value.dtype.is_floating]


class _Normal:
    """Standard normal tensors, a new one each time, whatever the global seed."""

    def __init__(self, seed):
        self.generator = tf.random.Generator.from_seed(seed)

    def __call__(self, shape, dtype):
        return self.generator.normal(shape, dtype=dtype)


def _fill(shape, dtype, draw, batch=1):
    if is_shape(shape):
        known = [batch if axis == 0 else n or _SIDE for axis, n in enumerate(shape)]
        return draw(known, dtype)
    if isinstance(shape, dict):
        return {name: _fill(part, dtype, draw, batch) for name, part in shape.items()}
    return [_fill(part, dtype, draw, batch) for part in shape]

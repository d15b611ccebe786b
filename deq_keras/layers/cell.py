"""The contract of a cell `z = f(z, y)`, and how any Keras layer or model becomes one."""

from __future__ import annotations

import inspect

import keras
import tensorflow as tf

from deq_keras.checks import no_integer, solvable
from deq_keras.config import described, deserialise, serialise
from deq_keras.numerics import partial
from deq_keras.numerics.shapes import check_like, map_shapes, shapes_of, sizes_of
from deq_keras.problems import Problem

_OWN_STATE = (
    " It maps a state `z` to the next one, of the shape of the measurement unless the cell defines "
    "`initial_value(y)`."
)


class Cell(keras.layers.Layer):
    """Base class of cells: maps `f(z, y)` whose fixed point in `z` is a reconstruction from `y`.

    A subclass defines `call(z, y, training=None)`, which returns a tensor, list or dictionary of
    tensors like `z`; a row of it may depend on the same row of `z` and `y` only, unless the cell
    says that it couples them. If `z` is not of the shape of the measurement, it defines
    `initial_value(y)` as well. A cell that knows more, such as an energy that it decreases, or that
    has something to compute once for many evaluations, defines `bind` in place of `call`. Any Keras
    layer or model is a cell as it is: `Equilibrium` puts it into a `LayerCell`.

    Args:
        symmetric: Whether the Jacobian of `f` in `z` is symmetric for all weights. `None`: find out
            by trying it, once, when the layer around the cell is built.
        couples_batch: Whether in training the images of a batch influence each other, as by batch
            normalisation: the batch is then solved as one problem. `None`: find out by trying it.

    Call arguments:
        z: The state: a tensor or a structure of them.
        y: The measurement, or a structure of it with what comes with it.
        training: As everywhere in Keras.

    Example:

    >>> class Halfway(deq_keras.layers.Cell):
    ...     def call(self, z, y, training=None):
    ...         return 0.5 * (z + y)
    >>> layer = deq_keras.layers.Equilibrium(Halfway(symmetric=True, couples_batch=False))
    >>> layer(tf.ones((1, 8, 8, 1))).shape
    TensorShape([1, 8, 8, 1])
    """

    def __init__(self, symmetric: bool | None = None, couples_batch: bool | None = None, **kwargs):
        super().__init__(**kwargs)
        solvable(self)
        self.symmetric = None if symmetric is None else bool(symmetric)
        self.couples_batch = None if couples_batch is None else bool(couples_batch)

    @property
    def may_certify(self) -> bool:
        """Whether its problems may have a certified modulus, with which errors are bounded."""
        return type(self).bind is not Cell.bind

    def bind(self, y, initial_value=None, training=None) -> Problem:
        """The problem `z = f(z, y)` for one measurement, and the present weights.

        All that does not depend on `z` is computed here, once. While a solver iterates `problem.f`
        the cell sees one snapshot of its variables: the masks of dropout and the statistics of
        normalisation stay the same. `problem.record` changes the state, as a call does.

        Args:
            y: As in a call.
            initial_value: Where a solver starts, like `z`, in place of the cell's own.
            training: As in a call.

        Returns:
            A `deq_keras.solvers.Problem`.
        """
        leaves = [tf.convert_to_tensor(leaf) for leaf in tf.nest.flatten(y)]

        def evaluate(z, *leaves):
            result = self.evaluate(z, tf.nest.pack_sequence_as(y, leaves), training)
            name = f"the cell {self.name!r}"
            check_like(name, result, z, _OWN_STATE)
            return tf.nest.map_structure(
                lambda a, b: tf.cast(no_integer(name, a), b.dtype), result, z
            )

        f = partial.of_layer(self, evaluate, leaves)
        if initial_value is None:
            initial_value = self.initial_value(y)
        record = self.recorded(lambda z: evaluate(z, *leaves), f.shared[0])
        return Problem(f, initial_value, symmetric=self.symmetric, record=record)

    def recorded(self, function, values):
        """The function `z -> function(z)`, which changes the state of layers as a call does.

        Args:
            function: Map of `z` that calls the cell's layers.
            values: The snapshot of the cell's variables: a tensor for each of them, then for each
                of the variables of metrics.
        """
        variables = [*self.variables, *self.metrics_variables]
        state = list(zip(variables, values, strict=True))

        def record(z):
            # From the snapshot too: a layer that assigns its kernel before it is used (spectral
            # normalisation) then has the derivative by the kernel that was there.
            scope = keras.StatelessScope(state_mapping=state, collect_losses=True)
            with scope:
                result = function(z)
            for variable, old in state:
                new = scope.get_current_value(variable)
                if new is not old:
                    variable.assign(new)
            for loss in scope.losses:
                self.add_loss(loss)
            return result

        return record

    def evaluate(self, z, y, training):
        """`f(z, y)` as a call of the cell by Keras."""
        return call_layer(self, z, y, training)

    def initial_value(self, y):
        """Where to start: zeros like the measurement."""
        return tf.zeros_like(tf.nest.flatten(y)[0])

    def scalars(self) -> dict[str, tf.Tensor]:
        """What can be followed of the weights over a training: a name to a scalar tensor."""
        return {}

    def ensure_built(self, z_shape, y_shape):
        """Create the weights from the shapes of `z` and `y`, if they do not exist yet."""
        if type(self).build is not keras.layers.Layer.build:
            if not self.built:
                self.build(z_shape, y_shape)
            return
        # A symbolic call builds layers and models of any kind, also what is left unbuilt in a
        # loaded one that has no `build` of its own.
        z, y = (symbolic(shape, self.variable_dtype) for shape in (z_shape, y_shape))
        check_like(f"the cell {self.name!r}", call_layer(self, z, y, None), z, _OWN_STATE)

    def state_shape(self, y_shape):
        """The shape of `z`, or a structure of shapes, from that of `y`; `None` where not known."""
        state = InitialValue(self)(symbolic(y_shape, self.variable_dtype))
        return tf.nest.map_structure(lambda leaf: tuple(leaf.shape), state)

    def compute_output_shape(self, z_shape, y_shape=None):
        return z_shape

    @property
    def layers(self) -> list[keras.layers.Layer]:
        """The parts, which `model.summary(expand_nested=True)` shows below this layer."""
        return list(self._flatten_layers(include_self=False, recursive=False))

    def __repr__(self):
        return described(self)

    def get_config(self):
        return {
            **super().get_config(),
            "symmetric": self.symmetric,
            "couples_batch": self.couples_batch,
        }


@keras.saving.register_keras_serializable(package="deq_keras")
class LayerCell(Cell):
    """A Keras layer or model as a cell.

    Args:
        layer: Called as `layer(z, y)`, or `layer([z, y])` if its `call` takes one argument.
        symmetric: As in `Cell`.
        couples_batch: As in `Cell`.

    Example:

    >>> z, y = keras.Input((None, None, 1)), keras.Input((None, None, 1))
    >>> hidden = keras.layers.Conv2D(8, 3, padding="same", activation="tanh")(z)
    >>> output = y + 0.1 * keras.layers.Conv2D(1, 3, padding="same")(hidden)
    >>> cell = deq_keras.layers.LayerCell(keras.Model([z, y], output), couples_batch=False)
    """

    def __init__(
        self,
        layer: keras.layers.Layer,
        symmetric: bool | None = None,
        couples_batch: bool | None = None,
        **kwargs,
    ):
        kwargs.setdefault("dtype", layer.dtype_policy)
        super().__init__(symmetric, couples_batch, autocast=False, **kwargs)
        self.layer = layer

    def call(self, z, y, training=None):
        return self.evaluate(z, y, training)

    def evaluate(self, z, y, training):
        return call_layer(self.layer, z, y, training)

    def get_config(self):
        return {**super().get_config(), "layer": serialise(self.layer)}

    @classmethod
    def from_config(cls, config):
        return cls(**deserialise(config, "layer"))


class WithTraining(keras.layers.Layer):
    """Gives the layers that a function calls a `training` flag that it does not take itself."""

    def __init__(self, function, **kwargs):
        super().__init__(autocast=False, name="cell", **kwargs)
        self.function = function
        self.built = True

    def call(self, *inputs, training=None):
        return self.function(*inputs)


def call_layer(layer, z, y, training):
    """`layer(z, y)`, or `layer([z, y])` if its `call` takes one argument, in training or not."""
    parameters = inspect.signature(layer.call).parameters
    positional = [
        p
        for p in parameters.values()
        if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        and p.name not in ("training", "mask")
    ]
    variadic = any(p.kind == p.VAR_POSITIONAL for p in parameters.values())
    together = len(positional) < 2 and not variadic

    def call(z, y, **kwargs):
        return layer([z, y], **kwargs) if together else layer(z, y, **kwargs)

    if "training" in parameters:
        return call(z, y, training=training)
    return WithTraining(call)(z, y, training=training)


class InitialValue(keras.Operation):
    """A cell's `initial_value` for symbolic tensors."""

    def __init__(self, cell):
        super().__init__()
        self.cell = cell

    def call(self, y):
        return self.cell.initial_value(y)


def symbolic(shape, dtype):
    """Symbolic tensors for a nested structure of shapes."""
    return map_shapes(lambda one: keras.KerasTensor(one, dtype), shape)


def split(y, operator):
    """`(y, data)` from a measurement alone or a pair of a measurement and operator data.

    It takes the shapes of these as well. A measurement is what is nested as the operator says by
    its `measurements`: one tensor, or a list of several.
    """
    if _is_nested_as(y, operator.measurements):
        return y, None
    if isinstance(y, list | tuple) and len(y) == 2 and _is_nested_as(y[0], operator.measurements):
        return y[0], y[1]
    count = len(y) if isinstance(y, list | tuple) else "one"
    one = "a measurement" if operator.measurements is None else "a list of measurements"
    raise ValueError(
        f"Expected {one} or a pair ({one[2:]}, operator data). Received {count} tensors."
    )


def split_with_shape(y, operator, initial_value=None):
    """`(y, data, image shape)`: the shape of the images is that of an initial value, if given."""
    y, data = split(y, operator)
    if initial_value is not None:
        operator.check_measurement(y, sizes_of(initial_value), data)
        return y, data, sizes_of(initial_value)
    return y, data, tuple(operator.image_shape(shapes_of(y), shapes_of(data)))


def split_noise_level(y, prior):
    """What a prior's cell is given, without the noise level, and that; `None` if it takes none.

    It takes the shapes of these as well.
    """
    if not prior.takes_noise_level:
        return y, None
    if not isinstance(y, list | tuple) or len(y) != 2 or _is_shape(y):
        raise ValueError(
            f"Expected a pair (measurement, noise level), as {type(prior).__name__} takes the "
            "noise level of each image, a standard deviation. Received a measurement alone."
        )
    return y[0], y[1]


def expect(name, value, cls):
    """Raises a `ValueError` unless an argument is an object of a class of the library."""
    if not isinstance(value, cls):
        raise ValueError(
            f"Expected `{name}` to be a `{cls.__module__.split('.')[1]}.{cls.__name__}`. "
            f"Received {value!r} of type {type(value).__name__}."
        )


def _is_nested_as(y, measurements):
    is_list = isinstance(y, list | tuple) and not _is_shape(y)
    if measurements is None or not is_list:
        return measurements is None and not is_list
    pairs = zip(y, measurements, strict=False)
    return len(y) == len(measurements) and all(_is_nested_as(*pair) for pair in pairs)


def _is_shape(y):
    return all(size is None or isinstance(size, int) for size in y)

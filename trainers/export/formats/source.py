"""A Keras model as a SavedModel without variables: what every converter starts from."""

import contextlib

import numpy as np
import tensorflow as tf

from deq_keras.operators import Blur


def input_names(model):
    """The names of a model's inputs in exports: `measurement`, `data`, `data_1` and so on."""
    count = len(tf.nest.flatten(model.input))
    return ["measurement", "data", *(f"data_{n}" for n in range(1, count))][:count]


def signature(model, size=None, batch=None):
    """A `tf.TensorSpec` for each input, by name.

    Args:
        model: A functional Keras model.
        size: Height and width of the measurement, and of data of its size; `None`: any.
        batch: Number of images; `None`: any.
    """
    specs = {}
    for name, tensor in zip(input_names(model), tf.nest.flatten(model.input), strict=True):
        shape = [batch, *tensor.shape[1:]]
        if size is not None and len(shape) == 4:
            shape[1:3] = [n or given for n, given in zip(shape[1:3], size, strict=True)]
        specs[name] = tf.TensorSpec(shape, tensor.dtype, name)
    return specs


def save(model, folder, specs):
    """Writes the model as a SavedModel whose weights are constants.

    Args:
        model: A functional Keras model.
        folder: Where to.
        specs: What `signature` returned.
    """
    weights = [
        [variable.numpy() for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables)
    ]

    def reconstruct(**tensors):
        constants = [[tf.constant(value) for value in values] for values in weights]
        nested = tf.nest.pack_sequence_as(model.input, [tensors[name] for name in specs])
        result, _ = model.stateless_call(*constants, nested, training=False)
        return {"reconstruction": result}

    with direct_sums(model):
        function = tf.function(reconstruct, autograph=False).get_concrete_function(**specs)
    function = folded(function, specs)
    tf.saved_model.save(
        tf.Module(),
        str(folder),
        signatures={"serving_default": function},
        options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )


def folded(function, specs):
    """A concrete function with what does not depend on its inputs computed beforehand.

    The norms of filters, say, need Fourier transforms and eigenvalues, which no converter knows.

    Args:
        function: A `tf.types.experimental.ConcreteFunction` without variables.
        specs: Its inputs by name, in order.
    """
    graph, varying = function.graph, set()
    for operation in graph.get_operations():
        if operation.type == "Placeholder" or any(x.op in varying for x in operation.inputs):
            varying.add(operation)
    needed = {
        x.name for operation in varying for x in operation.inputs
        if x.op not in varying and x.op.type != "Const"
    } 
    definition, needed = graph.as_graph_def(), sorted(needed)

    def compute():
        return tf.graph_util.import_graph_def(definition, return_elements=needed)

    values = [value.numpy() for value in tf.compat.v1.wrap_function(compute, [])()]
    names = [x.name for x in graph.inputs]

    def rest(**tensors):
        given = dict(zip(names, tensors.values(), strict=True))
        given |= {name: tf.constant(value) for name, value in zip(needed, values, strict=True)}
        outputs = [x.name for x in function.outputs]
        (result,) = tf.graph_util.import_graph_def(definition, given, outputs)
        return {"reconstruction": result}

    return tf.function(rest, autograph=False).get_concrete_function(**specs)


@contextlib.contextmanager
def direct_sums(model):
    """Blurs that may choose how they are computed sum: few formats have Fourier transforms."""
    layers = model._flatten_layers(include_self=False, recursive=True)
    chosen = [layer for layer in layers if isinstance(layer, Blur) and layer.method == "auto"]
    for blur in chosen:
        blur.method = "direct"
    try:
        yield
    finally:
        for blur in chosen:
            blur.method = "auto"


def random_batches(specs, fixed):
    """Random measurements, on [0, 1] in each part of a number, for every input.

    Args:
        specs: What `signature` returned.
        fixed: Sizes of the batches: `(count, height, width)` each, where they are not known.
    """
    rng = np.random.default_rng(0)

    def draw(spec, size):
        shape = [n or given for n, given in zip(spec.shape, [*size, 1], strict=False)]
        values = rng.uniform(size=shape)
        if spec.dtype.is_complex:
            values = values + 1j * rng.uniform(size=shape)
        return values.astype(spec.dtype.as_numpy_dtype)

    return [{name: draw(spec, size) for name, spec in specs.items()} for size in fixed]

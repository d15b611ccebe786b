"""A Keras model as a SavedModel of constants: what every converter starts from."""

import contextlib

import numpy as np
import tensorflow as tf

import deq_keras as dk
from trainers.export.signatures import image_of, input_names, structured

_COPYING = "_copying"  # other functions of the old names are there already
_PASS_ON = ("Identity", "EnsureShape", "StopGradient", "PreventGradient")


def signature(model, size=None, batch=None):
    """A `tf.TensorSpec` for each input: `measurement`, and `data`, `data_1` … where there are some.

    Args:
        model: A functional Keras model.
        size: Height and width of the measurement, and of data of its size; `None`: any.
        batch: Number of images; `None`: any.
    """
    specs = {}
    for name, tensor in zip(input_names(model), model.inputs, strict=True):
        shape = [batch, *tensor.shape[1:]]
        if size is not None and len(shape) == 4:
            shape[1:3] = [n or given for n, given in zip(shape[1:3], size, strict=True)]
        specs[name] = tf.TensorSpec(shape, tensor.dtype, name)
    return specs


def live(model, specs, tolerance=None):
    """The model as a compiled function of its inputs by name, with what it found out of its solves.

    Args:
        model: A functional Keras model.
        specs: What `signature` returned.
        tolerance: In place of that of the solvers.

    Returns:
        A function that returns `reconstruction` and, where there are solves, `steps`, `residual`
        and `converged`.
    """

    def outputs(**tensors):
        return _outputs(model, specs, tensors, lambda y: model(y, training=False), tolerance)

    return tf.function(outputs, autograph=False, reduce_retracing=True)


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

    def call(y):
        constants = [[tf.constant(value) for value in values] for values in weights]
        return model.stateless_call(*constants, y, training=False)[0]

    def outputs(**tensors):
        # Few formats have the Fourier transforms of preconditioners.
        return _outputs(model, specs, tensors, call, precondition=False)

    with _direct_sums(model):
        function = tf.function(outputs, autograph=False).get_concrete_function(**specs)
    tf.saved_model.save(
        tf.Module(),
        str(folder),
        signatures={"serving_default": _folded(function, specs)},
        options=tf.saved_model.SaveOptions(experimental_custom_gradients=False),
    )


def random_batches(specs, sizes):
    """Batches of random measurements on [0, 1], in each part of a number, and of random data.

    Args:
        specs: What `signature` returned.
        sizes: `(count, height, width)` of each batch, for what is not known of the shapes.
    """
    rng = np.random.default_rng(0)

    def draw(spec, size):
        shape = [n or given for n, given in zip(spec.shape, [*size, 1], strict=False)]
        values = rng.uniform(size=shape)
        if spec.dtype.is_complex:
            values = values + 1j * rng.uniform(size=shape)
        return values.astype(spec.dtype.as_numpy_dtype)

    return [{name: draw(spec, size) for name, spec in specs.items()} for size in sizes]


def _outputs(model, specs, tensors, call, tolerance=None, precondition=True):
    with dk.layers.observe(tolerance, precondition=precondition) as observation:
        value = image_of(call(structured(model, [tensors[name] for name in specs])))
    if not observation:
        return {"reconstruction": value}
    solution = observation.solution(value)
    return {
        "reconstruction": value,
        "steps": solution.steps,
        "residual": solution.residual,
        "converged": solution.converged,
    }


@contextlib.contextmanager
def _direct_sums(model):
    """Blurs that may choose how they are computed sum: few formats have Fourier transforms."""
    layers = model._flatten_layers(include_self=False, recursive=True)
    blurs = [layer for layer in layers if isinstance(layer, dk.operators.Blur)]
    chosen = [blur for blur in blurs if blur.method == "auto"]
    for blur in chosen:
        blur.method = "direct"
    try:
        yield
    finally:
        for blur in chosen:
            blur.method = "auto"


def _folded(function, specs):
    """A concrete function with what does not depend on its inputs computed beforehand.

    The certified norms of filters, say, take eigenvalues, which no converter knows.

    Args:
        function: Without variables, as a constant is what has no input.
        specs: Its inputs by name, in order.
    """
    varying, needed = set(), set()
    for operation in function.graph.get_operations():  # those that make its inputs come before it
        if operation.type == "Placeholder" or any(x.op in varying for x in operation.inputs):
            varying.add(operation)
            needed |= {x.name for x in operation.inputs if x.op not in varying}
    definition, needed = function.graph.as_graph_def(), sorted(needed)

    def constants():
        return tf.graph_util.import_graph_def(definition, return_elements=needed)

    values = [value.numpy() for value in tf.compat.v1.wrap_function(constants, [])()]
    kept = {operation.name for operation in varying}
    nodes = [node for node in definition.node if node.name in kept]
    definition = tf.compat.v1.GraphDef(
        node=nodes, library=definition.library, versions=definition.versions
    )
    _copy_what_moves(definition)
    outputs = {name: x.name for name, x in function.structured_outputs.items()}

    def rest(**tensors):
        given = {f"{name}:0": tensor for name, tensor in tensors.items()}
        given |= {name: tf.constant(value) for name, value in zip(needed, values, strict=True)}
        results = tf.graph_util.import_graph_def(definition, given, list(outputs.values()))
        return dict(zip(outputs, results, strict=True))

    return tf.function(rest, autograph=False).get_concrete_function(**specs)


def _copy_what_moves(definition):
    """Copies each variable of a loop that the next round has in the place of another one.

    LiteRT and OpenVINO write the variables of the next round one by one, over others that are still
    to be read: what is passed on unchanged (previous iterates, memories of differences) arrives as
    something else. The maximum of a tensor and itself is a copy that no converter takes away.
    """
    functions = definition.library.function
    nodes = [*definition.node, *(node for function in functions for node in function.node_def)]
    loops = [node for node in nodes if "body" in node.attr]
    bodies = {node.attr["body"].func.name for node in loops}
    for function in (f for f in functions if f.signature.name in bodies):
        places = {arg.name: place for place, arg in enumerate(function.signature.input_arg)}
        passed = {n.name: n.input[0] for n in function.node_def if n.op in _PASS_ON}
        for place, output in enumerate(function.signature.output_arg):
            name = function.ret[output.name]
            while name.split(":")[0] in passed:
                name = passed[name.split(":")[0]]
            if places.get(name, place) != place and output.type != tf.bool.as_datatype_enum:
                copy = function.node_def.add(name=f"copy_{place}", op="Maximum")
                copy.input.extend([name, name])
                copy.attr["T"].type = output.type
                function.ret[output.name] = f"{copy.name}:z:0"
        function.signature.name += _COPYING
    for node in loops:
        node.attr["body"].func.name += _COPYING

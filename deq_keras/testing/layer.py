"""One test of a Keras layer, shared by all layers."""

import inspect
import os
import tempfile

import keras
import numpy as np
import tensorflow as tf

from deq_keras.testing.report import blame, check_close, fail, name_of, normal, to_numpy


def layer_test(
    cls_or_layer,
    init_kwargs=None,
    input_shape=(2, 12, 15, 1),
    input_data=None,
    *,
    rtol: float = 1e-6,
    seed=0,
    check_dtype: bool = True,
    check_graph: bool = True,
    check_output_shape: bool = True,
    check_unknown_size: bool = True,
    check_config: bool = True,
    check_saving: bool = True,
    check_predict: bool = True,
    check_batch: bool = True,
    check_gradients: bool = True,
    check_fit: bool = True,
):
    """Checks that a Keras layer of one input tensor behaves like one wherever Keras uses it.

    When it returns, the layer's weights are what they were.

    Args:
        cls_or_layer: a layer class, or a layer, which is copied by its config.
        init_kwargs: constructor arguments of the class.
        input_shape: shape of the random input on [0, 1], if there is no `input_data`.
        input_data: an input `(batch, ..., channels)`, with two images or more.
        rtol: largest difference between outputs that should be equal, relative to the norm of
            each image. A layer that iterates until a tolerance needs more than the default.
        seed: of the random input.
        check_dtype: the output has the layer's compute dtype.
        check_graph: a second call gives the same output, and so does a `tf.function`.
        check_output_shape: the shape stated for a symbolic input is the real one.
        check_unknown_size: the layer can be built, traced and saved with all but the number of
            channels unknown.
        check_config: `from_config(get_config())` forgets nothing.
        check_saving: a `Sequential` model with the layer survives its `.keras` file.
        check_predict: `predict` of a functional model gives the output.
        check_batch: each image alone gives what it gives in the batch.
        check_gradients: gradients reach every trainable weight and are finite.
        check_fit: one step of `fit` leaves loss and weights finite.

    Raises:
        AssertionError: if a check fails.
        ValueError: if the arguments do not describe one layer with one tensor as output.

    Example:

    >>> deq_keras.testing.layer_test(keras.layers.Conv2D, {"filters": 3, "kernel_size": 3})
    """
    is_layer = isinstance(cls_or_layer, keras.layers.Layer)
    if is_layer and init_kwargs:
        raise ValueError("layer_test expects `init_kwargs` with a class only. Received a layer.")
    init_kwargs = dict(init_kwargs or {})
    layer = cls_or_layer if is_layer else cls_or_layer(**init_kwargs)
    name = f"layer_test({name_of(layer)})"
    if input_data is None:
        images = np.random.default_rng(seed).uniform(size=input_shape)
        x = tf.constant(images, layer.compute_dtype)
    else:
        x = tf.convert_to_tensor(input_data)
    if len(x) < 2 and check_batch:
        raise ValueError(f"{name} expects two images or more, or check_batch=False.")
    y = layer(x)
    if not tf.is_tensor(y):
        raise ValueError(f"{name} expects one tensor as output. Received {type(y).__name__}.")
    state = layer.get_weights()
    known, unknown = tuple(x.shape), (*[None] * (len(x.shape) - 1), x.shape[-1])
    model_shape = unknown if check_unknown_size else (None, *known[1:])

    def copied():
        return (
            type(layer).from_config(layer.get_config()) if is_layer else cls_or_layer(**init_kwargs)
        )

    def same(what, output, cause, expected=y):
        check_close(f"{name}: {what}", output, expected, rtol, cause)

    if check_dtype and y.dtype.name != layer.compute_dtype:
        fail(
            f"{name}: the output is {y.dtype.name}, the compute dtype {layer.compute_dtype}.",
            "a constant or a cast of a fixed dtype.",
        )
    if check_graph:
        same("output of a second call", layer(x), "randomness, or state that a call changes.")
    if check_config:
        _check_config(
            name, layer, init_kwargs, x, lambda out: same("output of its copy", out, _CONFIG)
        )
    for shape in [known, unknown] if check_unknown_size else [known]:
        if check_graph:
            cause = "Python control flow or NumPy on tensors, or `.shape` where size is unknown."
            with blame(f"{name}: a tf.function for input shape {shape}", cause):
                signature = [tf.TensorSpec(shape, x.dtype)]
                graph = tf.function(lambda u: layer(u), signature, autograph=False)
                graph = graph.get_concrete_function()  # no warning of retracing
                same(f"output in a graph for input shape {shape}", graph(x), cause)
        if check_output_shape or shape == unknown:
            cause = "`build` or `compute_output_shape` that needs a size, or states another."
            with blame(f"{name}: building for input shape {shape}", cause):
                fresh = copied()
                spec = fresh(keras.Input(batch_shape=shape, dtype=x.dtype.name))
                stated = tf.TensorShape(spec.shape)
                real = stated == y.shape if shape == known else stated.is_compatible_with(y.shape)
                if check_output_shape and not real:
                    fail(f"{name}: output shape {stated} stated, {y.shape} received.", cause)
                fresh.set_weights(state)
                same(f"output when built for input shape {shape}", fresh(x), cause)
    if check_saving:
        cause = "no `register_keras_serializable`, or a `build` or config that loses something."
        with blame(f"{name}: a .keras file", cause), tempfile.TemporaryDirectory() as folder:
            model = keras.Sequential(
                [keras.Input(batch_shape=model_shape, dtype=x.dtype.name), layer]
            )
            path = os.path.join(folder, "model.keras")
            model.save(path)
            same("output after loading its .keras file", keras.models.load_model(path)(x), cause)
    inputs = keras.Input(batch_shape=model_shape, dtype=x.dtype.name)
    if check_predict:
        with blame(f"{name}: predict", "see check_graph."):
            model = keras.Model(inputs, layer(inputs))
            same("output of predict", model.predict(x, batch_size=len(x), verbose=0), "randomness.")
    if check_batch:
        alone = tf.concat([layer(x[i : i + 1]) for i in range(len(x))], axis=0)
        cause = "a mean, norm or stopping rule over the batch, or randomness."
        same("output of each image alone", alone, cause)
    if check_gradients and layer.trainable_weights:
        _check_layer_gradients(name, layer, x)
    if check_fit and layer.trainable_weights:
        with blame(f"{name}: fit", "see check_graph and check_gradients."):
            model = keras.Model(inputs, layer(inputs))
            model.compile(keras.optimizers.SGD(1e-3), "mse")
            try:
                loss = model.fit(x, tf.zeros_like(y), batch_size=len(x), verbose=0).history["loss"]
                finite = np.isfinite([loss[0], *(np.sum(to_numpy(w)) for w in layer.weights)]).all()
            finally:
                layer.set_weights(state)
        if not finite:
            fail(
                f"{name}: NaN or infinity after a step of fit, loss {loss}.", "see check_gradients."
            )


_CONFIG = "`get_config` leaves out an argument, or `from_config` drops or misreads one."


def _check_config(name, layer, init_kwargs, x, same):
    with blame(f"{name}: from_config(get_config())", _CONFIG):
        config = layer.get_config()
        copy = type(layer).from_config(layer.get_config())
        for key, parameter in inspect.signature(type(layer).__init__).parameters.items():
            # An argument that is left out may still be stored under its own name.
            default = parameter.default
            stored = getattr(layer, key, default)
            changed = isinstance(default, str | int | float | None) and not _equal(stored, default)
            explicit = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            if explicit and key not in config and (key in init_kwargs or changed):
                fail(f"{name}: argument `{key}` is not in get_config().", _CONFIG)
        if not _equal(config, copy.get_config()):
            wrong = [key for key in config if not _equal(config[key], copy.get_config().get(key))]
            fail(f"{name}: {wrong} differ between its config and that of its copy.", _CONFIG)
        copy(x)
        copy.set_weights(layer.get_weights())
        same(copy(x))


def _equal(a, b):
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(_equal, a, b))
    return bool(np.all(a == b))


def _check_layer_gradients(name, layer, x):
    with tf.GradientTape() as tape:
        # Along a fixed random image, or a sum that is always one would have no gradient.
        y = layer(x)
        loss = tf.reduce_sum(
            tf.cast(y, "float32") * normal(np.random.default_rng(0), y.shape, "float32")
        )
    weights = layer.trainable_weights
    gradients = tape.gradient(loss, [w.value for w in weights])
    for weight, gradient in zip(weights, gradients, strict=True):
        if gradient is None:
            fail(f"{name}: no gradient reaches {weight.path}.", "it is unused, or stop_gradient.")
        if not np.isfinite(to_numpy(gradient)).all():
            fail(f"{name}: the gradient of {weight.path} has NaN or infinity.", "a root at 0.")

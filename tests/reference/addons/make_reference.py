"""What tensorflow-addons computes, written to a file for the tests.

tensorflow-addons cannot be imported beside Keras 3, so this program runs in an environment of its
own (`requirements.txt` beside it); `make addons-reference` makes both. The tests need the file
alone: it holds the inputs, the results and the arguments that led to them.

The keys are `<part>/<case>/<array>`; `cases` is JSON, the arguments of every case by its name, and
`versions` JSON of what computed it. A second run on the same machine gives the same arrays; another
processor may round differently.

Usage:

    python make_reference.py FILE.npz
"""

import json
import os
import sys
import warnings
from importlib import metadata

# Before TensorFlow is imported: one order of summation, and no GPU.
os.environ.update(
    CUDA_VISIBLE_DEVICES="-1",
    TF_ENABLE_ONEDNN_OPTS="0",
    TF_NUM_INTRAOP_THREADS="1",
    TF_NUM_INTEROP_THREADS="1",
    TF_CPP_MIN_LOG_LEVEL="2",
)
warnings.filterwarnings("ignore", category=UserWarning)  # says that it is archived

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import tensorflow_addons as tfa  # noqa: E402

tf.get_logger().setLevel("ERROR")  # each blur is a graph of its own

SGD, ADAM = tf.keras.optimizers.legacy.SGD, tf.keras.optimizers.legacy.Adam
STEPS = 12
# (height, width) of the filter, sigma (vertical, horizontal). The last two are even.
BLURS = (
    ((3, 3), 1.0),
    ((7, 7), 1.6),
    ((5, 5), (0.8, 2.5)),
    ((5, 3), (1.6, 0.7)),
    ((1, 9), 2.0),
    ((4, 4), 1.2),
    ((6, 3), (1.5, 0.9)),
)
# Each one's class and arguments; the optimizer that it wraps is `inner`.
OPTIMIZERS = {
    "lamb": ("LAMB", {"learning_rate": 0.05}),
    "lamb_decay": ("LAMB", {"learning_rate": 0.05, "weight_decay": 0.1}),
    "adamw": ("AdamW", {"learning_rate": 0.05, "weight_decay": 0.01}),
    "sgdw": ("SGDW", {"learning_rate": 0.05, "weight_decay": 0.01, "momentum": 0.9}),
    "swa_each_step": ("SWA", {"inner": "sgd", "start_averaging": 0, "average_period": 1}),
    "swa": ("SWA", {"inner": "adam", "start_averaging": 3, "average_period": 2}),
    "moving_average": ("MovingAverage", {"inner": "sgd", "average_decay": 0.8, "start_step": 1}),
    "lookahead_sgd": ("Lookahead", {"inner": "sgd", "sync_period": 4, "slow_step_size": 0.5}),
    "lookahead_adam": ("Lookahead", {"inner": "adam", "sync_period": 5, "slow_step_size": 0.3}),
}
INNER = {"sgd": lambda: SGD(0.1), "adam": lambda: ADAM(0.1)}


class Reference:
    """The arrays under their keys, and the arguments of each case."""

    def __init__(self):
        self.arrays, self.cases = {}, {}

    def inputs(self, **arrays):
        """Stores arrays that several cases use; returns them in float32."""
        single = {key: np.asarray(array, np.float32) for key, array in arrays.items()}
        self.arrays.update({f"inputs/{key}": array for key, array in single.items()})
        return single.values()

    def case(self, part, name, arguments, **results):
        """Stores the results of one case and the arguments that gave them."""
        self.cases.setdefault(part, {})[name] = arguments
        for key, array in results.items():
            array = np.asarray(array)
            if array.dtype != np.float32 or not np.isfinite(array).all():
                raise ValueError(f"Expected finite float32. Received {array.dtype}: {part}/{name}")
            self.arrays[f"{part}/{name}/{key}"] = array

    def save(self, path):
        versions = {module.__name__: module.__version__ for module in (np, tf, tfa)}
        versions["keras"] = metadata.version("keras")
        np.savez_compressed(
            path, cases=json.dumps(self.cases), versions=json.dumps(versions), **self.arrays
        )


def filters(reference, random):
    """Blurs of images whose height and width differ, with 1 and 3 channels."""
    gray, colour = reference.inputs(
        gray=random.uniform(size=(1, 12, 9, 1)), colour=random.uniform(size=(1, 8, 10, 3))
    )
    for shape, sigma in BLURS:
        for padding in ("REFLECT", "CONSTANT", "SYMMETRIC"):
            arguments = {"filter_shape": shape, "sigma": sigma, "padding": padding}
            reference.case(
                "gaussian_filter2d",
                f"{shape[0]}x{shape[1]}-{padding.lower()}",
                arguments,
                gray=tfa.image.gaussian_filter2d(gray, **arguments),
                colour=tfa.image.gaussian_filter2d(colour, **arguments),
            )
    arguments = {"filter_shape": (5, 3), "sigma": 1.0, "padding": "CONSTANT"}
    arguments["constant_values"] = 0.5
    blurred = tfa.image.gaussian_filter2d(gray, **arguments)
    reference.case("gaussian_filter2d", "5x3-constant-half", arguments, gray=blurred)
    for name in ("mean_filter2d", "median_filter2d"):
        for shape in ((3, 3), (3, 5)):
            arguments = {"filter_shape": shape, "padding": "REFLECT"}
            filtered = getattr(tfa.image, name)(gray, **arguments)
            reference.case(name, f"{shape[0]}x{shape[1]}", arguments, gray=filtered)
    (flow,) = reference.inputs(flow=random.normal(scale=2.0, size=(1, 12, 9, 2)))
    reference.case("dense_image_warp", "flow", {}, gray=tfa.image.dense_image_warp(gray, flow))
    arguments = {"transforms": [0.9, -0.2, 1.3, 0.15, 1.1, -0.7, 0.0, 0.0]}
    for interpolation in ("nearest", "bilinear"):
        arguments = {**arguments, "interpolation": interpolation, "fill_mode": "constant"}
        turned = tfa.image.transform(gray, **arguments)
        reference.case("transform", interpolation, arguments, gray=turned)


def spectral_normalization(reference, random):
    """The kernel and the vector u after each of several calls in training."""
    layers = {
        "conv2d": (lambda: tf.keras.layers.Conv2D(4, (3, 2)), (1, 6, 5, 2), (3, 2, 2, 4)),
        "dense": (lambda: tf.keras.layers.Dense(5), (2, 7), (7, 5)),
    }
    for name, (make, shape, kernel_shape) in layers.items():
        x, kernel, u = reference.inputs(
            **{
                f"{name}_x": random.normal(size=shape),
                f"{name}_kernel": random.normal(size=kernel_shape),
                f"{name}_u": random.normal(size=(1, kernel_shape[-1])),
            }
        )
        for iterations in (1, 3):
            layer = tfa.layers.SpectralNormalization(make(), power_iterations=iterations)
            layer.build(x.shape)
            layer.w.assign(kernel)
            layer.u.assign(u)
            outputs, kernels, vectors = [], [], []
            for _ in range(4):
                outputs.append(layer(x, training=True))
                kernels.append(layer.w.numpy())
                vectors.append(layer.u.numpy())
            reference.case(
                "spectral_normalization",
                f"{name}-{iterations}",
                {"layer": name, "power_iterations": iterations},
                outputs=outputs,
                kernels=kernels,
                vectors=vectors,
                inference=layer(x, training=False),
            )


def normalizations(reference, random):
    """Group and instance normalisation with a given scale and offset."""
    x, gamma, beta = reference.inputs(
        features=random.normal(1.0, 2.0, size=(2, 5, 4, 6)),
        gamma=random.normal(size=6),
        beta=random.normal(size=6),
    )
    for name, layer in {
        "group": tfa.layers.GroupNormalization(groups=3),
        "instance": tfa.layers.InstanceNormalization(),
    }.items():
        layer.build(x.shape)
        layer.set_weights([gamma, beta])
        arguments = {"groups": layer.groups, "epsilon": layer.epsilon}
        reference.case("group_normalization", name, arguments, output=layer(x))


def activations(reference, random):
    """Each of its activations that has a formula without parameters, or with default ones."""
    (x,) = reference.inputs(activations=random.normal(scale=2.0, size=24))
    for name in ("gelu", "hardshrink", "mish", "softshrink", "tanhshrink"):
        reference.case("activations", name, {}, output=getattr(tfa.activations, name)(x))


def optimizers(reference, random):
    """Weights along 12 steps down noisy quadratics, and the averages where there are some."""
    shapes = {"matrix": (3, 4), "vector": (5,)}
    scales, noise, start = {}, {}, {}
    for key, shape in shapes.items():
        scales[key], noise[key], start[key] = reference.inputs(
            **{
                f"scale_{key}": random.uniform(0.5, 2.0, size=shape),
                f"noise_{key}": random.normal(size=(STEPS, *shape)),
                # LAMB scales steps by the weights' norm, and has a rule for 0.
                f"start_{key}": random.normal(size=shape) if key == "matrix" else np.zeros(shape),
            }
        )
    for name, (class_name, arguments) in OPTIMIZERS.items():
        chosen = dict(arguments)
        inner = [INNER[chosen.pop("inner")]()] if "inner" in chosen else []
        optimizer = getattr(tfa.optimizers, class_name)(*inner, **chosen)
        variables = {key: tf.Variable(value, name=key) for key, value in start.items()}
        steps = {key: [] for key in shapes}
        for step in range(STEPS):
            gradients = [
                tf.constant(scales[k] * v.numpy() + noise[k][step]) for k, v in variables.items()
            ]
            optimizer.apply_gradients(zip(gradients, variables.values(), strict=True))
            for key, variable in variables.items():
                steps[key].append(variable.numpy())
        results = {key: np.stack(values) for key, values in steps.items()}
        if hasattr(optimizer, "assign_average_vars"):
            optimizer.assign_average_vars(list(variables.values()))
            results.update({f"{k}_average": v.numpy() for k, v in variables.items()})
        reference.case("optimizers", name, {"optimizer": class_name, **arguments}, **results)


def main(path):
    reference, random = Reference(), np.random.default_rng(20240501)
    filters(reference, random)
    spectral_normalization(reference, random)
    normalizations(reference, random)
    activations(reference, random)
    optimizers(reference, random)
    reference.save(path)
    print(f"{path}: {len(reference.arrays)} arrays, {os.path.getsize(path) / 1000:.0f} kB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    main(sys.argv[1])

"""Signatures of an export: what a server answers, as functions of tensors alone."""

from __future__ import annotations

import functools

import keras
import tensorflow as tf

import deq_keras as dk
from trainers.callbacks.model_solver import sole_layer
from trainers.export import codec, requests
from trainers.process.errors import ConfigurationError

_ZERO = tf.UnconnectedGradients.ZERO
MAX_PIXELS = 2**24  # of an image in a request: 4096 x 4096


class Signatures:
    """The functions that an export of a model has, one for each signature.

    The inputs of the model are called `measurement` and, where the operator has data for each
    image, `data`, `data_1` and so on. Values are on [0, 1], except for `uint8` and `encoded`.

    - `serving_default`: the reconstruction.
    - `diagnose`: the reconstruction, and how well each image was solved for; the caller may choose
      tolerance and largest number of steps.
    - `gradient`: the mean squared error against a target for each image, and its derivative by the
      measurement.
    - `uint8`: the reconstruction from and to integers on 0 to 255. Only where the measurement is
      an image.
    - `encoded`: the same for PNG and JPEG files of any sizes.

    An input that is empty, not finite, or larger than the limit raises an error, for that request.

    Args:
        model: A Keras model that was built by the functional interface, or is sequential. The
            last of several outputs is the image.
        max_pixels: Limit of height times width of an input image.

    Attributes:
        inputs: A `tf.TensorSpec` for each input.

    Raises:
        ConfigurationError: If the model cannot be exported.

    Example:

    >>> layer = dk.layers.Variational(dk.operators.Identity(), dk.priors.TotalVariation())
    >>> served = Signatures(keras.Sequential([keras.Input((None, None, 1)), layer]))
    >>> answer = served.diagnose(tf.ones((2, 8, 8, 1)), tf.zeros(1), tf.constant([3]))
    >>> answer["steps"].shape
    TensorShape([2])
    >>> sorted(served.functions)
    ['diagnose', 'encoded', 'gradient', 'serving_default', 'uint8']
    """

    def __init__(self, model: keras.Model, max_pixels: int = MAX_PIXELS):
        try:
            inputs, self._image = model.inputs, tf.nest.flatten(model.outputs)[-1]
        except (AttributeError, ValueError, TypeError):
            inputs = None
        if not inputs:
            raise ConfigurationError(
                "Expected a model whose inputs Keras knows: of the functional interface, or a "
                f"`keras.Sequential` with a `keras.Input`. Received {model!r}."
            )
        self.model, self.max_pixels = model, max_pixels
        self.inputs = [
            tf.TensorSpec([None, *tensor.shape[1:]], _dtype(tensor), name=name)
            for name, tensor in zip(input_names(model), inputs, strict=True)
        ]
        # One graph that solves, for all signatures.
        limits = [tf.TensorSpec([None], tf.float32), tf.TensorSpec([None], tf.int32)]
        self._solved = tf.function(
            self._solve, autograph=False, input_signature=[*self.inputs, *limits]
        )
        self._layer = sole_layer(model)

    @property
    def takes_images(self) -> bool:
        """Whether all that is measured are images of one or three channels."""
        return all(
            spec.dtype.is_floating and spec.shape.rank == 4 and spec.shape[-1] in (1, 3)
            for spec in (*self.inputs, self._image_spec())
        )

    def serving_default(self, *inputs):
        """The reconstruction `(batch, height, width, channels)`, float32."""
        image, *_ = self._by_default(requests.checked(inputs, self.max_pixels))
        return {"reconstruction": image}

    def diagnose(self, *inputs):
        """The reconstruction, and what the solver says of it, a row for each image.

        Args:
            *inputs: Those of `serving_default`, then `tolerance`, the relative residual at which
                an image stops, and `max_steps`: `(batch,)` or `(1,)`; where a number is not
                positive the model's own holds.

        Returns:
            A dictionary with `reconstruction`, `steps`, `residual`, `converged`, and `error_bound`,
            the distance to the exact solution as root mean square over the pixels: an upper bound
            where `certified`, else an estimate by a linear solve; infinite where there is none.
        """
        *inputs, tolerance, max_steps = inputs
        inputs = requests.checked(inputs, self.max_pixels)
        count = tf.shape(inputs[0])[:1]
        tolerance, max_steps = (
            requests.for_each(name, value, count)
            for name, value in (("tolerance", tolerance), ("max_steps", max_steps))
        )
        image, steps, residual, converged = self._solved(*inputs, tolerance, max_steps)
        error_bound, certified = self._error_bound(inputs, image)
        return {
            "reconstruction": image,
            "steps": steps,
            "residual": residual,
            "converged": converged,
            "error_bound": error_bound,
            "certified": certified,
        }

    def gradient(self, *inputs):
        """`{"loss", "gradient"}`: mean squared errors `(batch,)`, and their derivatives.

        Args:
            *inputs: Those of `serving_default`, then `target`, images like the reconstruction.
        """
        *inputs, target = inputs
        measurement, *data = requests.checked(inputs, self.max_pixels)
        (target,) = requests.checked([target], float("inf"))
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(measurement)
            image, *_ = self._by_default([measurement, *data])
            loss = tf.reduce_mean((image - target) ** 2, axis=[1, 2, 3])
        gradient = tape.gradient(loss, measurement, unconnected_gradients=_ZERO)
        return {"loss": loss, "gradient": gradient}

    def uint8(self, *inputs):
        """The reconstruction in integers on 0 to 255, from such a measurement."""
        measurement, *data = inputs
        measurement = tf.cast(measurement, tf.float32) / 255.0
        image, *_ = self._by_default(requests.checked([measurement, *data], self.max_pixels))
        return {"reconstruction": codec.quantised(image, tf.uint8)}

    def encoded(self, *files):
        """PNG files with the bit depth of the measurement, and whether each image converged.

        Args:
            *files: For each input of `serving_default` the contents of PNG or JPEG files,
                `(batch,)`, brought to the channels of the input.
        """
        channels = [spec.shape[-1] for spec in self.inputs]
        requests.check_counts(files)

        def reconstruct(number, *contents):
            images, depths = zip(
                *(
                    codec.decode(content, count, self.max_pixels, number)
                    for content, count in zip(contents, channels, strict=True)
                ),
                strict=True,
            )
            batches = [
                tf.ensure_shape(image[None], spec.shape)
                for image, spec in zip(images, self.inputs, strict=True)
            ]
            inputs = requests.checked(batches, self.max_pixels)
            image, _, _, converged = self._by_default(inputs)
            return codec.encode(image[0], depths[0]), converged[0]

        numbers = tf.range(tf.shape(files[0])[0])
        images, converged = tf.map_fn(
            lambda row: reconstruct(*row),
            (numbers, *files),
            fn_output_signature=(tf.string, tf.bool),
        )
        return {"reconstruction_bytes": images, "converged": converged}

    def _by_default(self, inputs):
        return self._solved(*inputs, tf.zeros(1), tf.zeros(1, tf.int32))

    def _solve(self, *inputs):
        """`(image, steps, residual, converged)`, the last three a row for each image."""
        *inputs, tolerance, max_steps = inputs
        with dk.layers.observe(tolerance, max_steps) as observation:
            image = reconstruct(self.model, inputs)
        count = tf.shape(image)[:1]
        if not observation:  # nothing was solved for
            return image, tf.zeros(count, tf.int32), tf.zeros(count), tf.ones(count) > 0.0
        found = observation.solution(image)
        return image, found.steps, tf.cast(found.residual, tf.float32), found.converged

    def _error_bound(self, inputs, image):
        """The bound for a model that is nothing but a layer that solves."""
        if self._layer is None:
            unknown = tf.fill(tf.shape(image)[:1], float("inf"))
            return unknown, unknown < 0.0
        bound = self._layer.error_bound(structured(self.model, inputs), image)
        pixels = tf.cast(tf.size(image[0]), tf.float32)
        return tf.cast(bound.value, tf.float32) / tf.sqrt(pixels), bound.certified

    def _image_spec(self):
        return tf.TensorSpec([None, *self._image.shape[1:]], tf.float32)

    @functools.cached_property
    def functions(self) -> dict:
        """A concrete function for each signature, by name."""
        measurement, *data = self.inputs
        limits = [
            tf.TensorSpec([None], tf.float32, name="tolerance"),
            tf.TensorSpec([None], tf.int32, name="max_steps"),
        ]
        target = tf.TensorSpec(self._image_spec().shape, tf.float32, name="target")
        specs = {
            "serving_default": self.inputs,
            "diagnose": [*self.inputs, *limits],
            "gradient": [*self.inputs, target],
        }
        if self.takes_images:
            integers = tf.TensorSpec(measurement.shape, tf.uint8, name=measurement.name)
            specs["uint8"] = [integers, *data]
            specs["encoded"] = [
                tf.TensorSpec([None], tf.string, name=f"{spec.name}_bytes") for spec in self.inputs
            ]
        return {
            name: tf.function(getattr(self, name), autograph=False).get_concrete_function(*spec)
            for name, spec in specs.items()
        }


def reconstruct(model, inputs):
    """The image that a Keras model makes of a list of its inputs, float32."""
    return image_of(model(structured(model, inputs), training=False))


def image_of(result):
    """The image among what a model returns: the last of several outputs, float32."""
    return tf.cast(tf.nest.flatten(result)[-1], tf.float32)


def input_names(model):
    """What the inputs of a model are called in all that is exported of it."""
    count = len(model.inputs)
    return ["measurement", "data", *(f"data_{n}" for n in range(1, count))][:count]


def structured(model, inputs):
    """A list of inputs in the structure and the dtypes in which a Keras model takes them."""
    tensors = [tf.cast(x, own.dtype) for x, own in zip(inputs, model.inputs, strict=True)]
    try:
        structure = model.input
    except AttributeError:  # of a `keras.Sequential`, which has one
        structure = model.inputs[0]
    return tf.nest.pack_sequence_as(structure, tensors)


def _dtype(tensor):
    dtype = tf.as_dtype(tensor.dtype)
    return tf.complex64 if dtype.is_complex else tf.float32

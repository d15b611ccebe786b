"""One optimizer step, and one step of evaluation, over all replicas.

A step is the same mathematics however many replicas share the global batch, and however many parts
each computes one after the other (gradient accumulation): replica r has n_r of the n images and
the mean loss L_r over them; the gradient is sum_r (n_r / n) grad L_r, and the moving statistics of
normalisation layers are averaged in the same way. Everything is put into one vector and reduced in
one collective operation. What is decided on the result (clipping, whether it is finite) is so
decided on the whole gradient, alike on all workers; Keras's optimizers clip before they reduce.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from trainers.process.errors import ConfigurationError
from trainers.training.compiled import check, sums
from trainers.training.loss_scale import LossScale


class Outcome(NamedTuple):
    """What a training step came to, the same on all workers.

    Attributes:
        loss: The loss on the global batch, before the update.
        images: The size of the global batch.
        gradient_norm: The Euclidean norm of the gradient, before clipping.
        learning_rate: The learning rate.
        finite: Whether loss and gradient are finite; otherwise nothing was changed.
        stop: Whether some worker asked to stop.
        rescaled: Whether it is not finite because half precision overflowed: the loss scale was
            lowered.
    """

    loss: float
    images: int
    gradient_norm: float
    learning_rate: float
    finite: bool
    stop: bool
    rescaled: bool


class Step:
    """Training and evaluation of one batch of a compiled model.

    Args:
        model: A compiled and built Keras model, made in the scope of the strategy, in which this
            is called.
        strategy: A `tf.distribute.Strategy`.
        options: A `trainers.training.Options`.

    Attributes:
        optimizer: The optimizer that updates the weights.
        length: Number of entries of the vector that the replicas add up.

    Raises:
        ConfigurationError: If the model has a `train_step` of its own, losses some of which are
            sums and some are means over the batch, or an optimizer that was used before it was told
            to average the weights.
    """

    def __init__(self, model, strategy, options):
        check(model)
        self.model, self.strategy, self.clip_norm = model, strategy, options.clip_norm
        self.sums = sums(model, options.accumulation, strategy.num_replicas_in_sync)
        self._scale = LossScale(model.optimizer)
        self.optimizer = self._scale.optimizer
        if options.average is not None:
            if self.optimizer.built:
                raise ConfigurationError(
                    "Expected an optimizer that has not been used, to average the weights "
                    f"(average={options.average}). Received: {self.optimizer.name}, whose "
                    "variables exist. Compile the model with a new one."
                )
            self.optimizer.use_ema, self.optimizer.ema_momentum = True, options.average
        model.optimizer.build(model.trainable_variables)
        self.trainable = list(model.trainable_variables)
        metric = {id(variable) for metric in model.metrics for variable in metric.variables}
        self.statistics = [
            variable
            for variable in model.non_trainable_variables
            if id(variable) not in metric and tf.as_dtype(variable.dtype).is_floating
        ]
        variables = [*self.trainable, *self.statistics]
        self.length = sum(math.prod(v.shape) for v in variables) + len(("loss", "images", "stop"))
        double = any(tf.as_dtype(variable.dtype) == tf.float64 for variable in variables)
        self.dtype = tf.float64 if double else tf.float32
        self._prepared = False
        self._training = contextlib.nullcontext
        self.without_gradient: list[bool] = [False] * len(self.trainable)
        self._compute = self._function(self._compute_everywhere)
        self._apply = self._function(self._apply_everywhere)
        self._evaluate = self._function(
            lambda data: self.strategy.run(self._evaluate_replica, (data,))
        )

    def prepare(self, data: Any) -> None:
        """Make the variables of the metrics, which Keras makes at their first use; once."""
        if self._prepared:
            return

        def once(data):
            data, _ = data
            x, y, weight = keras.utils.unpack_x_y_sample_weight(data)
            prediction = self.model(x, training=False)
            self.model.compute_loss(x=x, y=y, y_pred=prediction, sample_weight=weight)
            self.model.compute_metrics(x, y, prediction, weight)

        self.strategy.run(once, (data,))
        self.model.reset_metrics()
        self._prepared = True

    def train_within(self, context: Callable[[], Any] | None) -> None:
        """Compute gradients within a context from now on: the step is traced anew.

        Args:
            context: Makes a context manager; `None`: as at first, without one.
        """
        self._training = contextlib.nullcontext if context is None else context
        self._compute = self._function(self._compute_everywhere)

    def train(self, parts: list[Any], stop: bool) -> Outcome:
        """One step of the optimizer.

        Args:
            parts: Each a batch for every local replica, as `Feed.training` gives them.
            stop: Whether this worker asks all to stop.
        """
        total, before = None, None
        for number, part in enumerate(parts):
            flag = tf.constant(float(stop), self.dtype) if number == len(parts) - 1 else None
            total, kept = self._compute(part, total, flag)
            before = before or kept
        vector, scalars = total
        loss, images, norm, rate, finite, asked = scalars.numpy().tolist()
        if finite:
            self._apply(vector)
        else:
            self.strategy.run(self._put_back, (before,))
        rescaled = self._scale.follow(bool(finite))
        return Outcome(loss, round(images), norm, rate, bool(finite), bool(asked), rescaled)

    def shared_variables(self) -> list[keras.Variable]:
        """The variables that are alike on all replicas: of the model and its optimizer."""
        return [*self.trainable, *self.statistics, *self.model.optimizer.variables]

    def evaluate(self, data: Any) -> None:
        """Adds a batch for every local replica to the metrics."""
        self._evaluate(data)

    # On a replica

    def _compute_replica(self, data, total, stop):
        """This replica's part of the vector, or the sum over all replicas if `stop` is given."""
        before = self._snapshot()
        vector = self._part(data, before)
        if total is not None:
            vector += total
        if stop is not None:
            vector = tf.concat([vector, [stop]], 0)
            context = tf.distribute.get_replica_context()
            vector = context.all_reduce(tf.distribute.ReduceOp.SUM, vector)
        return vector, before

    def _part(self, data, metrics):
        """Gradient, statistics and loss of one batch, weighted, and its number of images."""
        data, count = data
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        images = tf.cast(count, self.dtype)
        before = [tf.identity(v.value) for v in self.statistics]
        with tf.GradientTape() as tape:
            with self._training():  # a loss may call the model as well
                prediction = self.model(x, training=True)
                loss = self._loss(x, y, prediction, sample_weight, training=True)
            scale = self._scale.value
            scaled = loss if scale is None else loss * tf.cast(scale, loss.dtype)
        gradients = tape.gradient(scaled, self.trainable)
        self._note_missing(gradients)
        self._update_metrics(x, y, prediction, sample_weight, images, metrics)
        # A sum is spread over the replicas: their mean of this is the sum over all.
        tracked = loss * self.strategy.num_replicas_in_sync if self.sums else loss
        self._track(tracked, images, tf.ones_like(images) if self.sums else images)
        after = [tf.identity(v.value) for v in self.statistics]
        # The common value is assigned when it is known.
        for variable, value in zip(self.statistics, before, strict=True):
            variable.assign(value)
        weight = tf.cast(images > 0, self.dtype) if self.sums else images

        def flat(value, variable, divisor=None):
            if value is None:
                return tf.zeros([math.prod(variable.shape)], self.dtype)
            value = tf.reshape(tf.cast(tf.convert_to_tensor(value), self.dtype), [-1])
            return value if divisor is None else value / tf.cast(divisor, self.dtype)

        gradient = [flat(g, v, scale) for g, v in zip(gradients, self.trainable, strict=True)]
        means = [flat(a, v) for a, v in zip(after, self.statistics, strict=True)]
        # A filler has no weight, even if it makes a NaN.
        pieces = [tf.math.multiply_no_nan(piece, weight) for piece in gradient]
        pieces += [tf.math.multiply_no_nan(piece, images) for piece in means]
        loss = tf.math.multiply_no_nan(tf.cast(loss, self.dtype), weight)
        return tf.concat([*pieces, [loss, images]], 0)

    def _loss(self, x, y, prediction, sample_weight, training):
        loss = self.model.compute_loss(
            x=x, y=y, y_pred=prediction, sample_weight=sample_weight, training=training
        )
        replicas = self.strategy.num_replicas_in_sync
        if self.sums and replicas > 1 and self.model.losses:
            raise ConfigurationError(
                "Expected a loss that is a mean over the batch. Received one that is a sum, with "
                f"losses of its layers and {replicas} replicas: the latter would be counted once "
                "for each. Set its reduction to 'sum_over_batch_size'."
            )
        # Keras divides a mean by the number of replicas, as if all had as many images.
        return loss if self.sums else loss * replicas

    def _track(self, loss, images, weight):
        """The first metric of a compiled model is the mean of the loss."""
        loss = tf.where(images > 0, loss, tf.zeros_like(loss))
        self.model.metrics[0].update_state(loss, sample_weight=weight)

    def _update_metrics(self, x, y, prediction, sample_weight, images, before):
        self._reweigh(prediction, images, before)
        self.model.compute_metrics(x, y, prediction, sample_weight)
        # A filler does not count, whatever layers and metrics have made of it.
        for variable, value in zip(self._metric_variables(), before, strict=True):
            variable.assign(tf.where(images > 0, variable.value, value))

    def _evaluate_replica(self, data):
        data, count = data
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        images, before = tf.cast(count, self.dtype), self._snapshot()
        prediction = self.model(x, training=False)
        loss = self._loss(x, y, prediction, sample_weight, training=False)
        self._update_metrics(x, y, prediction, sample_weight, images, before)
        self._track(loss, images, tf.cast(images > 0, self.dtype) if self.sums else images)

    def _reweigh(self, prediction, images, before):
        """Keras counts a batch as one image in the losses of outputs, if its length is unknown."""
        loss = self.model._compile_loss
        if loss is None or tf.nest.flatten(prediction)[0].shape[0] is not None:
            return
        known = {id(v): value for v, value in zip(self._metric_variables(), before, strict=True)}
        for metric in loss.metrics:
            (total, old_total), (count, old_count) = ((v, known[id(v)]) for v in metric.variables)
            number = tf.cast(images, total.dtype)
            mean = tf.math.divide_no_nan(total - old_total, count - old_count)
            total.assign(old_total + mean * number)
            count.assign(old_count + number)

    def _snapshot(self):
        return [tf.identity(variable.value) for variable in self._metric_variables()]

    def _put_back(self, values):
        for variable, value in zip(self._metric_variables(), values, strict=True):
            variable.assign(value)

    def _metric_variables(self):
        return [variable for metric in self.model.metrics for variable in metric.variables]

    def _note_missing(self, gradients):
        if all(gradient is None for gradient in gradients):
            raise ConfigurationError(
                "Expected the loss to depend on a trainable variable. Received a model in which "
                "none has a gradient."
            )
        self.without_gradient = [gradient is None for gradient in gradients]

    # Over all replicas

    def _function(self, f):
        if self.model.run_eagerly:
            return f
        # XLA does not compile what reduces over replicas.
        compiled = (
            True if self.model.jit_compile and self.strategy.num_replicas_in_sync == 1 else None
        )
        return tf.function(f, reduce_retracing=True, jit_compile=compiled, autograph=False)

    def _compute_everywhere(self, data, total, stop):
        vector, before = self.strategy.run(self._compute_replica, (data, total, stop))
        if stop is None:
            return vector, before
        vector = self.strategy.experimental_local_results(vector)[0]
        loss, images, stops = tf.unstack(vector[-3:])
        size = sum(math.prod(variable.shape) for variable in self.trainable)
        divisor = tf.ones_like(images) if self.sums else images
        gradient, loss = vector[:size] / divisor, loss / divisor
        means = tf.concat([gradient, vector[size:-3] / images], 0)
        finite = tf.reduce_all(tf.math.is_finite(means)) & tf.math.is_finite(loss)
        scalars = [loss, images, tf.norm(gradient), self.optimizer.learning_rate, finite, stops]
        return (means, tf.stack([tf.cast(x, tf.float64) for x in scalars])), before

    def _apply_everywhere(self, vector):
        """In cross-replica context, where an optimizer does not reduce its gradients again."""
        variables = [*self.trainable, *self.statistics]
        pieces = tf.split(vector, [math.prod(variable.shape) for variable in variables])
        values = [
            tf.cast(tf.reshape(piece, variable.shape), variable.dtype)
            for piece, variable in zip(pieces, variables, strict=True)
        ]
        gradients, statistics = values[: len(self.trainable)], values[len(self.trainable) :]
        if self.clip_norm is not None:
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm)
        if self.optimizer.loss_scale_factor is not None:  # by which Keras divides them
            gradients = [gradient * self.optimizer.loss_scale_factor for gradient in gradients]
        known = zip(gradients, self.without_gradient, strict=True)
        gradients = [None if missing else gradient for gradient, missing in known]
        self.optimizer.apply(gradients, self.trainable)
        for variable, value in zip(self.statistics, statistics, strict=True):
            variable.assign(value)

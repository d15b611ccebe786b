"""Compiled models: which of them can be trained in parts and on replicas."""

import keras
import tensorflow as tf

from trainers.process.errors import ConfigurationError


def check(model: keras.Model) -> None:
    """Raises `ConfigurationError` for a model that is not compiled, or has steps of its own."""
    if not model.compiled or model.optimizer is None:
        raise ConfigurationError(
            "Expected a compiled model: call `model.compile(optimizer, loss)` in the function that "
            f"builds it. Received: {model!r}."
        )
    for name in ("train_step", "test_step"):
        if getattr(type(model), name) is not getattr(keras.Model, name):
            raise ConfigurationError(
                f"Expected a model without a `{name}` of its own, for it would not be called here. "
                f"Received: {type(model).__name__}. Override `compute_loss` instead."
            )


def sums(model: keras.Model, parts: int, replicas: int) -> bool:
    """Whether the loss is a sum over the batch, and not a mean.

    Args:
        model: A compiled model.
        parts: In how many parts a replica computes its gradient.
        replicas: Number of replicas.

    Raises:
        ConfigurationError: If it is neither, or cannot be computed in parts.
    """
    losses = [loss for loss in tf.nest.flatten(model.loss) if loss is not None]
    reductions = [getattr(loss, "reduction", "sum_over_batch_size") for loss in losses]
    if "mean_with_sample_weight" in reductions and parts * replicas > 1:
        raise ConfigurationError(
            "Expected a loss that divides by the number of images. Received one whose reduction "
            "'mean_with_sample_weight' divides by the sum of the weights, which no replica knows. "
            "Set it to 'sum_over_batch_size', or train on one device without accumulation."
        )
    kinds = {reduction == "sum" for reduction in reductions}
    if len(kinds) > 1 or {None, "none"} & set(reductions):
        raise ConfigurationError(
            "Expected the losses to be all means over the batch, or all sums. Received the "
            f"reductions {reductions}."
        )
    if kinds == {True} and parts > 1:
        raise ConfigurationError(
            "Expected a loss that is a mean over the batch, to accumulate gradients. Received one "
            "that is a sum: set its reduction to 'sum_over_batch_size'."
        )
    return kinds == {True}

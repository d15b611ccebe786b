"""Diagnostics of a layer: what it reports of its solves, and what happens when one fails."""

import sys

import keras
import tensorflow as tf

from deq_keras.checks import unknown_name_error

NAMES = (
    "forward_steps",
    "forward_products",
    "forward_residual",
    "converged",
    "error_bound",
    "backward_steps",
    "backward_residual",
    "backward_converged",
)
POLICIES = ("silent", "warn", "error")


class Diagnostic(keras.metrics.Mean):
    """A mean that is NaN, not zero, where nothing was measured: in validation, say."""

    def result(self):
        return tf.where(self.count > 0, super().result(), float("nan"))


def check_policy(policy):
    """The policy, or a `ValueError` with the nearest one."""
    if policy not in POLICIES:
        raise unknown_name_error("on_failure", policy, POLICIES)
    return policy


def make(prefix):
    """The metrics of a layer, by name."""
    return {name: Diagnostic(name=f"{prefix}_{name}") for name in NAMES}


def silent(metrics, takes_products, may_certify):
    """The metrics of a layer of which it can have nothing to say.

    Args:
        metrics: Those of `make`.
        takes_products: Whether its solver counts products with the Jacobian.
        may_certify: Whether its cell may certify a modulus, and so bound errors.
    """
    missing = {"forward_products": not takes_products, "error_bound": not may_certify}
    return [metrics[name] for name, holds in missing.items() if holds]


def record(metrics, direction, solution, error_bound=None):
    """Put a `Solution` into the metrics of a direction, `"forward"` or `"backward"`."""
    converged = "converged" if direction == "forward" else "backward_converged"
    metrics[f"{direction}_steps"].update_state(solution.steps)
    metrics[f"{direction}_residual"].update_state(solution.residual)
    if direction == "forward" and solution.products is not None:
        metrics["forward_products"].update_state(solution.products)
    metrics[converged].update_state(tf.cast(solution.converged, tf.float32))
    if error_bound is not None:
        # An image without a certified modulus has no bound, and is left out of the mean.
        known = tf.math.is_finite(error_bound)
        metrics["error_bound"].update_state(
            tf.where(known, error_bound, tf.zeros_like(error_bound)), tf.cast(known, tf.float32)
        )


def enforce(policy, name, direction, solution):
    """Do what `policy` says if an image did not converge, in graphs as well.

    Raises:
        tf.errors.InvalidArgumentError: With `policy="error"`.
    """
    if policy == "silent":
        return
    failed = tf.logical_not(solution.converged)
    what = {"forward": "the fixed point", "backward": "the adjoint equation"}[direction]

    def act():
        # Formatted here, so that the text is the same in graphs and out of them.
        message = tf.strings.format(
            f"{name}: {what} was not found to the tolerance. Images: {{}}, steps: {{}}, relative "
            "residuals: {}. Allow more steps or a larger tolerance, or choose another solver.",
            [
                tf.where(failed)[:, 0],
                tf.boolean_mask(solution.steps, failed),
                tf.boolean_mask(solution.residual, failed),
            ],
            summarize=8,
        )
        if policy == "error":
            tf.debugging.Assert(False, [message])
        else:
            tf.print("Warning:", message, output_stream=sys.stderr)
        return tf.constant(0)

    tf.cond(tf.reduce_any(failed), act, lambda: tf.constant(0))


def check_finite(inputs):
    """Raises an error for NaN and infinite values, where they are known before the solve."""
    for tensor in filter(tf.is_tensor, tf.nest.flatten(inputs)):
        real = tf.abs(tensor) if tensor.dtype.is_complex else tensor
        if tf.executing_eagerly() and real.dtype.is_floating and real.shape.rank:
            bad = ~tf.math.is_finite(real)
            if tf.reduce_any(bad):
                images = tf.unique(tf.where(bad)[:, 0])[0].numpy().tolist()
                raise ValueError(
                    "Expected finite pixels. Received NaN or infinite values in "
                    f"{int(tf.reduce_sum(tf.cast(bad, tf.int32)))} places, in the images "
                    f"{images[:10]} of the batch. Remove these images, or mask the pixels and use "
                    "`deq_keras.operators.Mask`."
                )

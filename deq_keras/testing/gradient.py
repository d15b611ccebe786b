"""Reverse-mode derivatives against central differences."""

import keras
import numpy as np
import tensorflow as tf

from deq_keras.testing.report import divide, fail, name_of, normal, to_numpy


def gradient_test(
    function, *tensors, variables=(), directions: int = 3, seed=0, rtol: float = 1e-6
):
    """Checks reverse-mode derivatives against central differences, in float64.

    For random weights `w`, the derivative of `<w, function(...)>` by each argument apart, along
    random directions, is compared with central differences of several steps and with their
    Richardson extrapolations; the one that agrees best counts. A function that solves an
    equation must solve it to about `1e-3 * rtol`, or the differences see the solver's errors.

    Args:
        function: deterministic map of `tensors` to a tensor, computed in float64.
        *tensors: its arguments, converted to float64.
        variables: float64 variables (of Keras or TensorFlow) that it reads. They are perturbed
            by assignment and restored, also after an error.
        directions: how many random directions for each argument.
        seed: of the directions and weights.
        rtol: largest relative error allowed.

    Returns:
        The worst relative error. The search for a better step stops at a tenth of `rtol`.

    Raises:
        AssertionError: if the derivatives differ.
        ValueError: if there is nothing to differentiate by, or something is not float64.

    Example:

    >>> error = deq_keras.testing.gradient_test(tf.math.softplus, tf.constant([0.3, -1.2]))
    """
    name = f"gradient_test({name_of(function)})"
    tensors = [tf.cast(tensor, "float64") for tensor in tensors]
    variables = [v.value if isinstance(v, keras.Variable) else v for v in variables]
    points = tensors + variables
    if not points or any(v.dtype != tf.float64 for v in variables):
        raise ValueError(
            f"{name} expects at least one tensor or variable, and variables of float64. Received "
            f"{len(tensors)} tensors and variables of {[v.dtype.name for v in variables]}. Build "
            "layers with dtype='float64'."
        )

    def value_at(index, point):
        if index < len(tensors):
            return function(*tensors[:index], point, *tensors[index + 1 :])
        saved = tf.identity(points[index])
        try:
            points[index].assign(point)
            return function(*tensors)
        finally:
            points[index].assign(saved)

    with tf.GradientTape(persistent=True) as tape:
        tape.watch(points)
        value = function(*tensors)
        if value.dtype != tf.float64:
            raise ValueError(
                f"{name} expects a float64 result. Received {value.dtype.name}. Build layers with "
                "dtype='float64' and cast constants."
            )
        rng = np.random.default_rng(seed)
        weights = [normal(rng, value.shape, "float64") for _ in range(directions)]
        outputs = [tf.reduce_sum(weight * value) for weight in weights]
    worst = 0.0
    for weight, output in zip(weights, outputs, strict=True):
        gradients = tape.gradient(output, points)
        noise = 1e-6 * float(tf.reduce_sum(tf.abs(weight * value)))
        for index, (point, gradient) in enumerate(zip(points, gradients, strict=True)):
            start = tf.identity(point)
            size = np.sqrt(np.mean(np.square(start))) or 1.0
            direction = size * normal(rng, start.shape, "float64")
            known = np.zeros(start.shape) if gradient is None else to_numpy(gradient)
            reverse = float(np.sum(known * direction))

            def along(step, index=index, start=start, direction=direction, weight=weight):
                return float(tf.reduce_sum(weight * value_at(index, start + step * direction)))

            # Not relative to `reverse` alone: a direction may be nearly orthogonal to the
            # gradient, and a function that ignores the argument still has rounding errors.
            floor = max(size * np.linalg.norm(known), noise)
            error, differences = _best_difference(along, reverse, floor, rtol / 10)
            if not error <= rtol:
                fail(
                    f"{name}: argument {index} (tensors first, then variables; shape "
                    f"{tuple(start.shape)}): derivative along a random direction {reverse:.10g} in "
                    f"reverse mode, {differences} by differences with steps 1e-2, 1e-3, ...; "
                    f"relative error: {error:.2e}, allowed: {rtol:.1e}",
                    _gradient_cause(gradient, reverse, differences),
                )
            worst = max(worst, error)
    return worst


def _best_difference(along, reverse, floor, enough):
    """The least relative error of `reverse` among difference quotients, and the quotients."""
    best, quotients = np.inf, []
    for step in (1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
        quotients.append((along(step) - along(-step)) / (2 * step))
        trials = quotients[-1:]
        if len(quotients) > 1:  # Richardson: the error is of second order and the ratio is 10
            trials = [*trials, quotients[-1] + (quotients[-1] - quotients[-2]) / 99]
        for trial in trials:
            scale = max(abs(trial), abs(reverse), floor)
            best = min(best, float(divide(abs(trial - reverse), scale)))
        if best <= enough:
            break
    return best, quotients


def _gradient_cause(gradient, reverse, differences):
    middle = np.median(differences)
    if gradient is None:
        return "no gradient reaches it: a stop_gradient, a NumPy step, or an uncaptured tensor."
    if not np.isfinite([reverse, *differences]).all():
        return "NaN or infinity: a square root or norm at 0, or the unused branch of a where."
    if np.ptp(differences[1:4]) > 1e-2 * abs(middle):
        return (
            "the differences do not settle: randomness, a kink, or an equation solved too loosely."
        )
    if reverse == 0:
        return "its derivative is zero in reverse mode: a stop_gradient or a rounding."
    return (
        f"the derivative is {reverse / middle:.6g} times that of differences: a factor or sign in "
        "a custom gradient, a term left out of it, or an adjoint equation solved too loosely."
    )

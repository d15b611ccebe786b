"""Certified bounds on how the gradient of a prior depends on its parameters."""

from typing import NamedTuple

import tensorflow as tf


class Sensitivity(NamedTuple):
    """What is certified of `B(u) = d grad R(u) / d theta`, a linear map from parameters to images.

    Attributes:
        norm: `(batch,)`, a bound on `||B(u)||`.
        lipschitz: `(batch,)`, a bound on `||B(v) - B(u)|| / ||v - u||` for `||v - u|| <= radius`.
    """

    norm: tf.Tensor
    lipschitz: tf.Tensor


def of_experts(prior, u, radius, size=None):
    """The sensitivities of `grad R(u) = A^T sigma(chi (A u + b))` to the weights of a tied prior.

    With `t = chi (A u + b)` and `s''` a bound on `|sigma''|`, they follow from

        dA:        dA^T sigma(t) + A^T (chi sigma'(t) dA u)
        d log chi: A^T (sigma'(t) t)
        db:        A^T (chi sigma'(t))

    by `|sigma'| <= 1`, the bound on `||A||` for the size of the images, the exact norms of
    `dA -> dA u` and `dA -> dA^T sigma` (`Experts.parameter_norms`) and the triangle inequality.
    Those of the raw filters are multiplied by a bound on the derivative of their normalisation.

    Args:
        prior: `deq_keras.priors.Experts` with an energy.
        u: Images.
        radius: `(batch,)`.
        size: As for `Prior.gradient_lipschitz`.

    Returns:
        Dictionary from the name of a weight (`"analysis"`, `"log_sharpness"`, `"bias"`) to a
        `Sensitivity`.
    """
    c = prior.coefficients(size)
    chi = tf.reduce_max(c.sharpness)
    norm_of_a = tf.sqrt(c.lipschitz / chi)
    t = prior._respond(u, c, tf.identity)
    slope, second = prior.potential.curvature(t), prior.potential.curvature_lipschitz

    def longest(x):
        """The largest norm of an expert's responses, `(batch,)`."""
        squares = tf.reduce_sum(x * x, axis=tf.range(1, tf.rank(x) - 1))
        return tf.sqrt(tf.reduce_max(squares, axis=-1))

    response = prior.potential.activation(t)
    of_image, of_response = prior.parameter_norms(prior.remove_mean(u), response)
    everywhere = prior.parameter_constant()  # those norms, over that of the image or response
    chain = _normalisation_norm(prior, c.analysis) if prior.normalize else 1.0
    # The largest change of an entry of A u for a change of u of norm one.
    entry = tf.reduce_max(tf.norm(tf.reshape(c.analysis, (-1, c.analysis.shape[-1])), axis=0))
    entry *= prior.boundary_factor()
    steepest = chi * norm_of_a
    bending = chi * second * entry * (of_image + everywhere * radius)
    found = {
        "analysis": Sensitivity(
            chain * (of_response + steepest * of_image),
            chain * steepest * (2.0 * everywhere + bending),
        ),
        "log_sharpness": Sensitivity(
            norm_of_a * longest(slope * t),
            norm_of_a * steepest * prior.potential.elasticity_lipschitz * tf.ones_like(radius),
        ),
    }
    if c.bias is not None:
        found["bias"] = Sensitivity(
            norm_of_a * longest(c.sharpness * slope), second * steepest**2 * tf.ones_like(radius)
        )
    return found


def hessian_variation(prior, p, size=None):
    """`L` such that `||(Hess R(u) - Hess R(v)) p|| <= L ||u - v||` for tied experts, `(batch,)`.

    `Hess R(u) = A^T diag(chi sigma'(t)) A`, so the left side is at most
    `||A|| max_j (chi_j^2 sup|sigma''| |A p|_j) ||A (u - v)||`.
    """
    c = prior.coefficients(size)
    square_of_norm = c.lipschitz / tf.reduce_max(c.sharpness)
    changes = c.sharpness**2 * tf.abs(prior._analyse(p, c.analysis))
    largest = tf.reduce_max(changes, axis=tf.range(1, tf.rank(changes)))
    return square_of_norm * prior.potential.curvature_lipschitz * largest


def _normalisation_norm(prior, analysis):
    """The norm of `dw -> da` for `a = w / s(w)`: `da = (dw - a <s', dw>) / s`."""
    with tf.GradientTape() as tape:
        raw = tf.convert_to_tensor(prior.analysis)
        tape.watch(raw)
        scale, _ = prior._norms(prior._project(raw))
    slope = tape.gradient(scale, raw)
    # Of I - a s'^T: the identity but in the plane of a and s', where it is a matrix of two rows.
    a, s = tf.norm(analysis), tf.norm(slope)
    product = tf.reduce_sum(analysis * slope)
    trace = 2.0 - 2.0 * product + (a * s) ** 2
    determinant = (1.0 - product) ** 2
    largest = 0.5 * (trace + tf.sqrt(tf.maximum(trace**2 - 4.0 * determinant, 0.0)))
    return tf.sqrt(tf.maximum(largest, 1.0)) / scale

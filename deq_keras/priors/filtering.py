"""What convolutional priors share: the sizes that their filters fit, and their Hessians.

The Jacobian of `u -> S^T psi'(A u)` is `S^T diag(d) A` with the curvatures `d = psi''(A u)`.
"""

import tensorflow as tf

from deq_keras import checks, convolution
from deq_keras.convolution import spectra


def check_images(owner, shape, channels, kernel_size, padding):
    """The number of channels of images that filters fit.

    Args:
        owner: The name of the prior, for messages.
        shape: Of the images; unknown sizes are `None`.
        channels: That the prior was built for, or `None`.
        kernel_size: `(height, width)` of the filters.
        padding: As for `deq_keras.convolution.correlate`.

    Raises:
        ValueError: If they have another number of channels, or are too small.
    """
    found = checks.shape_4d(owner, shape)[-1]
    if channels is not None and found != channels:
        # TensorFlow would run a convolution of groups of channels.
        raise ValueError(
            f"{owner} was built for {channels} channels. Received images of shape {tuple(shape)}."
        )
    # A whole patch must fit, or the pixels that are mirrored or wrapped around must exist.
    part = {"valid": 1.0, "reflect": 0.5, "circular": 0.5, "zero": 0.0}[padding]
    least = tuple(int(part * side) + (padding == "reflect") for side in kernel_size)
    if any(n is not None and n < m for n, m in zip(shape[1:3], least, strict=True)):
        raise ValueError(
            f"{owner} with filters of {tuple(kernel_size)} pixels and padding "
            f"{padding!r} expected images of at least {least} pixels. Received shape "
            f"{tuple(shape)}. Use larger images, smaller filters or `padding='zero'`."
        )
    return found


def hessian_spectrum(u, curvatures, analysis, synthesis) -> tf.Tensor:
    """`sum_i mean(d_i) Re(conj(s_i^) a_i^)`: coefficients are replaced by their means.

    Args:
        u: Images.
        curvatures: `d` for them, `(batch, ..., filters)`.
        analysis: Filters `a_i`.
        synthesis: Filters `s_i`, the same tensor if the map is a gradient.

    Returns:
        `(batch, height, width // 2 + 1)`, the mean over the channels.
    """
    first = tf.transpose(analysis, [2, 3, 0, 1])
    second = first if synthesis is analysis else tf.transpose(synthesis, [2, 3, 0, 1])
    powers = spectra.cross_power(first, second, *spectra.size_of(u))
    weights = tf.reduce_mean(curvatures, axis=(1, 2))
    return tf.tensordot(weights, tf.reduce_mean(powers, axis=0), 1)


def hessian_diagonal(u, curvatures, analysis, synthesis, padding) -> tf.Tensor:
    """`sum_i (s_i a_i) * d_i`, exact where filters do not meet a mirrored boundary."""
    found = convolution.correlate_adjoint(curvatures, analysis * synthesis, padding)
    return tf.ensure_shape(found, u.shape)
